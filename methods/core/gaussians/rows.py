"""What a record contributes to the second moments of its class, and what these say of counts, means and spread."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from methods.core.privacy.moments import unpacked


@dataclass(frozen=True)
class MomentRows:
    """Rows (a x / radius, b) of norm at most 1, x being a vector cut to norm `radius`, a^2 + b^2 = 1.

    The constant entry b makes counts and sums entries of the same matrices. `constant_share` is b^2, between 0 and 1:
    the larger it is, the less noise have counts and means, and the more has the spread. All of it is public.
    """

    radius: float
    constant_share: float

    @property
    def weight(self) -> float:
        """a / radius, by which a vector is multiplied."""
        return math.sqrt(1 - self.constant_share) / self.radius

    def of(self, vectors: torch.Tensor, cut: bool = True) -> torch.Tensor:
        """Returns rows [N, d + 1] of vectors [N, d], cut to the radius unless there is no privacy to keep."""
        if cut:
            norms = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
            vectors = vectors * (self.radius / norms.clamp_min(self.radius))
        constant = vectors.new_full((len(vectors), 1), math.sqrt(self.constant_share))
        return torch.cat([vectors * self.weight, constant], dim=1)

    def read(self, moments: torch.Tensor, scale: float) -> NoisyMoments:
        """Returns what packed second moments [classes, P] say, with noise of standard deviation `scale` an entry.

        A class of fewer records than noise alone may show is filled up to so many by records like the mean of all.
        """
        matrices = unpacked(moments.double())
        constant = math.sqrt(self.constant_share)
        seen = (matrices[:, -1, -1] / constant**2).clamp_min(0.0)
        counts = seen.clamp_min(max(1.0, 2 * scale / constant**2))
        average = matrices.sum(0) / seen.sum().clamp_min(1.0)
        matrices = (matrices + (counts - seen)[:, None, None] * average) / counts[:, None, None]
        return NoisyMoments(
            counts=counts,
            means=matrices[:, :-1, -1] / (self.weight * constant),
            seconds=matrices[:, :-1, :-1] / self.weight**2,
            mean_noise=scale / math.sqrt(2) / (self.weight * constant) / counts,
            second_noise=scale / math.sqrt(2) / self.weight**2 / counts,
        )


@dataclass(frozen=True)
class NoisyMoments:
    """Estimates by class, float64, each with the standard deviation of its noise; the records' own is not counted.

    Attributes:
        counts: records [C], 1 or more.
        means: mean vector [C, d]; mean_noise [C] is of one entry.
        seconds: mean of x x^T [C, d, d]; second_noise [C] is of one entry off the diagonal, sqrt(2) of it on it.
    """

    counts: torch.Tensor
    means: torch.Tensor
    seconds: torch.Tensor
    mean_noise: torch.Tensor
    second_noise: torch.Tensor
