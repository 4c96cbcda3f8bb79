"""Mixtures of Gaussians by class: what samples are drawn from, and how classes are split once such a law is public."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ClassMixtures:
    """Each class c is a mixture of K normal laws N(means[c, k], L L^T), L = basis @ factors[c, k].

    Attributes:
        means: [C, K, d].
        basis: orthonormal columns [d, r], the directions in which vectors spread.
        factors: [C, K, r, r].
        weights: [C, K], positive; those of one class need not add up to 1.
    """

    means: torch.Tensor
    basis: torch.Tensor
    factors: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def blank(cls, classes: int, size: int) -> ClassMixtures:
        """Returns laws that are 0 everywhere, in place of those that are not yet known."""
        return cls(
            torch.zeros(classes, 1, size), torch.zeros(size, 1), torch.zeros(classes, 1, 1, 1), torch.ones(classes, 1)
        )

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> ClassMixtures:
        """Returns what `tensors` described, on the CPU."""
        return cls(**{name: value.cpu() for name, value in tensors.items()})

    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns all there is, by name, in single precision."""
        return {name: value.float() for name, value in vars(self).items()}

    def moved(self, means: torch.Tensor) -> ClassMixtures:
        """Returns the laws of vectors whose class means [C, d] had been taken off."""
        return ClassMixtures(self.means + means[:, None], self.basis, self.factors, self.weights)

    def draw(self, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """Returns vectors [N, d] of classes int64 [N], drawn from `rng` alone."""
        part = torch.multinomial(self.weights[labels], 1, generator=rng)[:, 0]
        normal = torch.randn(len(labels), self.basis.shape[1], generator=rng, dtype=self.means.dtype)
        spread = torch.einsum("nij,nj->ni", self.factors[labels, part], normal)
        return self.means[labels, part] + spread @ self.basis.T


@dataclass(frozen=True)
class Parts:
    """Public centres [C, d] of classes, and directions [C, q, d] whose signs split each class into 2^q parts."""

    centres: torch.Tensor
    directions: torch.Tensor

    @classmethod
    def along(cls, laws: ClassMixtures, splits: int, device: torch.device | str = "cpu") -> Parts:
        """Returns the split of classes along the first `splits` principal axes of one Gaussian each."""
        axes = [torch.linalg.svd(laws.basis @ factor)[0][:, :splits].T for factor in laws.factors[:, 0]]
        return cls(laws.means[:, 0].float().to(device), torch.stack(axes).float().to(device))

    @property
    def count(self) -> int:
        """How many parts a class has."""
        return 1 << self.directions.shape[1]

    def place(self, vectors: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns vectors [N, d] less their class's centre, and the part int64 [N] of all C * 2^q that each is in."""
        apart = vectors - self.centres[labels]
        part = labels
        for axis in self.directions.unbind(1):
            part = 2 * part + ((apart * axis[labels]).sum(1) > 0)
        return apart, part
