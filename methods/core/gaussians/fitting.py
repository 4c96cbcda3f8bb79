"""A Gaussian for each class from noisy moments: what stands out of the known noise is kept, the rest is shared.

Everything here is computed from released answers and public numbers, so it costs no privacy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from methods.core.gaussians.rows import NoisyMoments


@dataclass(frozen=True)
class ClassGaussians:
    """Normal laws N(means[c], L L^T) of vectors by class, L = basis @ factors[c].

    Attributes:
        means: [C, d].
        basis: orthonormal columns [d, r], the directions in which classes spread.
        factors: [C, r, r].
    """

    means: torch.Tensor
    basis: torch.Tensor
    factors: torch.Tensor

    def float(self) -> ClassGaussians:
        """Returns the same in single precision, in which they are stored."""
        return ClassGaussians(self.means.float(), self.basis.float(), self.factors.float())

    def draw(self, labels: torch.Tensor, normal: torch.Tensor) -> torch.Tensor:
        """Returns vectors [N, d] of classes int64 [N], of standard normal numbers [N, r]."""
        spread = torch.einsum("nij,nj->ni", self.factors[labels], normal)
        return self.means[labels] + spread @ self.basis.T


def fit(moments: NoisyMoments, least_rank: int) -> ClassGaussians:
    """Returns the Gaussians of noisy moments.

    Means are drawn towards the mean of all, covariances towards the shared one of the same size, each as far as its
    known noise explains their distance (James and Stein). The shared covariance keeps the eigenvectors above the edge
    of its noise's spectrum, and at least `least_rank` of them, or as many as there are; so do the classes within these,
    and what is kept loses what noise adds to an eigenvalue.
    """
    share = moments.counts / moments.counts.sum()
    means = _drawn_together(moments.means, share, moments.mean_noise)
    covariances = moments.seconds - means[:, :, None] * means[:, None, :]
    shared = torch.einsum("c,cij->ij", share, covariances)
    shared_noise = float((share * moments.second_noise).square().sum().sqrt())
    values, vectors = torch.linalg.eigh(shared)
    edge = noise_edge(shared_noise, len(values))
    rank = min(len(values), max(int((values > edge).sum()), least_rank))
    basis, values = vectors[:, -rank:], values[-rank:]
    pooled = torch.diag(_without_noise(values, edge))
    within = torch.einsum("di,cde,ej->cij", basis, covariances, basis)
    return ClassGaussians(means, basis, _factors(within, pooled, moments.second_noise))


def noise_edge(noise: float, size: int) -> float:
    """Returns the largest eigenvalue of a symmetric noise matrix: `noise` is an entry's scale off the diagonal."""
    return 2 * noise * math.sqrt(size)


def _drawn_together(means: torch.Tensor, share: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    grand = share @ means
    apart = means - grand
    explained = means.shape[1] * noise.square() / apart.square().sum(1).clamp_min(1e-300)
    return grand + (1 - explained).clamp_min(0.0)[:, None] * apart


def _factors(within: torch.Tensor, pooled: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Returns factors [C, r, r] of class covariances [C, r, r], each drawn towards the pooled one of its own size."""
    rank = len(pooled)
    whole = float(pooled.trace())
    if whole <= 0:
        return torch.zeros_like(within)
    factors = []
    for covariance, scale in zip(within, noise.tolist(), strict=True):
        target = pooled * max(float(covariance.trace()) / whole, 0.0)
        apart = covariance - target
        explained = rank * (rank + 1) * scale**2 / max(float(apart.square().sum()), 1e-300)
        kept = max(0.0, 1 - explained)
        values, vectors = torch.linalg.eigh(target + kept * apart)
        values = _without_noise(values, noise_edge(kept * scale, rank))
        factors.append(vectors * values.sqrt())
    return torch.stack(factors)


def _without_noise(values: torch.Tensor, edge: float) -> torch.Tensor:
    """Returns eigenvalues without what noise of a spectrum that ends at `edge` adds to them; below it they are 0.

    An eigenvalue l is seen at l + edge^2 / 4 l, if it is above edge / 2.
    """
    inner = (values.square() - edge**2).clamp_min(0.0).sqrt()
    return torch.where(values > edge, (values + inner) / 2, 0.0).clamp_min(0.0)
