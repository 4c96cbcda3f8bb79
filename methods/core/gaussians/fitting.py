"""Gaussians by class, or by parts of classes, from noisy moments: what stands out of the known noise is kept.

Everything here is computed from released answers and public numbers, so it costs no privacy.
"""

from __future__ import annotations

import math

import torch

from methods.core.gaussians.mixture import ClassMixtures
from methods.core.gaussians.rows import NoisyMoments


def fit(moments: NoisyMoments, classes: int, least_rank: int) -> ClassMixtures:
    """Returns the Gaussians of noisy moments of classes * K parts, those of one class side by side.

    Means are drawn towards the mean of all; covariances of parts towards that of their class, and these towards the
    one of all, which is scaled to their size; each as far as its known noise explains the distance (James and Stein).
    The covariance of all keeps the eigenvectors above the edge of its noise's spectrum, and at least `least_rank` of
    them, or as many as there are; each part keeps those within that are above its own, and what is kept loses what
    noise adds to an eigenvalue.
    """
    share = moments.counts / moments.counts.sum()
    means = _drawn_together(moments.means, share, moments.mean_noise)
    spread = moments.seconds - means[:, :, None] * means[:, None, :]
    mean, noise = _mean_of(spread, moments.second_noise, share)
    basis, seen, shared = _subspace(mean, noise, least_rank)
    # The directions were chosen by their noise too, so each part has its share of what that adds within them.
    chosen_for = share * moments.second_noise.square() / max(noise**2, 1e-300)
    within = torch.einsum("di,kde,ej->kij", basis, spread, basis) - chosen_for[:, None, None] * (seen - shared)
    parts = len(share) // classes
    factors = []
    for number in range(classes):
        own = slice(number * parts, (number + 1) * parts)
        shares = share[own] / share[own].sum()
        whole = _towards(shared, 0.0, *_mean_of(within[own], moments.second_noise[own], shares))
        each = zip(within[own], moments.second_noise[own].tolist(), strict=True)
        factors.append(torch.stack([_factor(*_towards(*whole, covariance, noise)) for covariance, noise in each]))
    return ClassMixtures(means.view(classes, parts, -1), basis, torch.stack(factors), share.view(classes, parts))


def noise_edge(noise: float, size: int) -> float:
    """Returns the largest eigenvalue of a symmetric noise matrix: `noise` is an entry's scale off the diagonal."""
    return 2 * noise * math.sqrt(size)


def _drawn_together(means: torch.Tensor, share: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    grand = share @ means
    apart = means - grand
    explained = means.shape[1] * noise.square() / apart.square().sum(1).clamp_min(1e-300)
    return grand + (1 - explained).clamp_min(0.0)[:, None] * apart


def _mean_of(spread: torch.Tensor, noise: torch.Tensor, share: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Returns the mean of covariances [K, d, d] by their shares [K], and the noise of one of its entries."""
    return torch.einsum("k,kij->ij", share, spread), float((share * noise).square().sum().sqrt())


def _subspace(shared: torch.Tensor, noise: float, least_rank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the leading eigenvectors [d, r] of a covariance, what it is within them, and that without noise."""
    values, vectors = torch.linalg.eigh(shared)
    edge = noise_edge(noise, len(values))
    rank = min(len(values), max(int((values > edge).sum()), least_rank))
    return vectors[:, -rank:], torch.diag(values[-rank:]), torch.diag(_without_noise(values[-rank:], edge))


def _towards(
    target: torch.Tensor, target_noise: float, covariance: torch.Tensor, noise: float
) -> tuple[torch.Tensor, float]:
    """Returns a covariance [r, r] drawn towards a target of its size, and the noise of an entry that is left."""
    size = max(float(covariance.trace()) / max(float(target.trace()), 1e-300), 0.0)
    apart = covariance - size * target
    explained = len(target) * (len(target) + 1) * noise**2 / max(float(apart.square().sum()), 1e-300)
    kept = max(0.0, 1 - explained)
    return size * target + kept * apart, math.hypot(kept * noise, (1 - kept) * size * target_noise)


def _factor(covariance: torch.Tensor, noise: float) -> torch.Tensor:
    """Returns F [r, r], F F^T being the covariance without what is noise."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * _without_noise(values, noise_edge(noise, len(values))).sqrt()


def _without_noise(values: torch.Tensor, edge: float) -> torch.Tensor:
    """Returns eigenvalues without what noise of a spectrum that ends at `edge` adds to them; below it they are 0.

    An eigenvalue l is seen at l + edge^2 / 4 l, if it is above edge / 2.
    """
    inner = (values.square() - edge**2).clamp_min(0.0).sqrt()
    return torch.where(values > edge, (values + inner) / 2, 0.0).clamp_min(0.0)
