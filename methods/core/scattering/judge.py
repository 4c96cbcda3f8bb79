"""A linear classifier on scattering features, trained by DP-SGD with gradients in closed form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch.nn import functional

from methods.core.privacy.grant import Grant
from methods.core.privacy.shares import multiplier
from methods.core.release import PublicSpec, Release

_MOMENTUM = 0.9
# A hair below the bound, so that rounding of a norm cannot end above it.
_HAIR = 1 - 1e-5
# Rows in double precision that a processor's cache holds.
_AT_ONCE = 64


def gradient_release(
    name: str, public: PublicSpec, noise: float, *, share: float, steps: int, rate: float, clip: float, adjacency: str
) -> Release:
    """Returns the release of `steps` sums of clipped gradients over Poisson batches.

    Together they cost about what one Gaussian answer of multiplier noise / share^0.5 does: see `privacy.shares`.
    """
    sigma = multiplier(noise, share=share, rate=rate, uses=steps)
    return Release(
        name=name, kind="gaussian", clip=clip, noise=sigma, bounded="sum", rows=public.num_train, rate=rate,
        sampling="poisson", max_uses=steps, adjacency=adjacency,
    )  # fmt: skip


class Judge:
    """Softmax regression on features [N, size] and a constant; public, since it is made of noisy answers alone.

    The gradient of a record's cross-entropy is the outer product of its residual, softmax minus one-hot label, and its
    features, so its norm is a product of two and a batch's sum is one matrix product.
    """

    def __init__(self, size: int, classes: int, device: torch.device | str) -> None:
        self.weights = torch.zeros(classes, size + 1, device=device)
        self._velocity = torch.zeros_like(self.weights)

    def step(
        self, grant: Grant, batch: Iterable[tuple[torch.Tensor, torch.Tensor]], learning_rate: float, expected: float
    ) -> None:
        """One step with momentum down a noisy gradient sum, divided by `expected`.

        `batch` yields features [B_i, size], finite, and labels int64 [B_i] of the records of a Poisson batch, and is
        read lazily. A record whose residual is not finite, as weights that ran away make it, counts as zero. Raises
        UnaccountedAccess unless the grant is open.
        """
        # In 32 bits rounding grows with the records, and depends on who stands beside whom: a record then moves the sum
        # by as much more than its gradient.
        weights = self.weights.double()
        total = torch.zeros_like(weights)
        for rows, labels in _doubled(batch):
            residuals = (rows @ weights.T).softmax(1) - functional.one_hot(labels, len(self.weights))
            if grant.release.kind != "none":
                residuals = torch.where(
                    residuals.isfinite().all(1, keepdim=True),
                    residuals * _factors(residuals, rows, grant.release.clip), 0.0,
                )  # fmt: skip
            total += residuals.T @ rows
        self._velocity = _MOMENTUM * self._velocity + grant.noise(total).to(self.weights) / expected
        self.weights = self.weights - learning_rate * self._velocity

    def scores(self, features: torch.Tensor) -> torch.Tensor:
        """Returns logits [N, classes] of features [N, size]."""
        return _with_constant(features) @ self.weights.T

    def state(self) -> dict[str, torch.Tensor]:
        """Returns what `load` takes to continue exactly."""
        return {"weights": self.weights, "velocity": self._velocity}

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Puts back what `state` returned."""
        device = self.weights.device
        self.weights, self._velocity = state["weights"].to(device), state["velocity"].to(device)


def _with_constant(features: torch.Tensor) -> torch.Tensor:
    return functional.pad(features, (0, 1), value=1.0)


def _doubled(batch: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields rows float64 [R, size + 1] and labels [R] of a batch's features, few at once on a processor."""
    for features, labels in batch:
        most = _AT_ONCE if features.device.type == "cpu" else max(1, len(features))
        for part, of in zip(features.split(most), labels.split(most), strict=True):
            yield _with_constant(part).double(), of


def _factors(residuals: torch.Tensor, rows: torch.Tensor, clip: float) -> torch.Tensor:
    """Returns by what residuals [B, classes] are multiplied, so that no gradient is longer than the clip, [B, 1]."""
    one, other = (torch.linalg.vector_norm(part, dim=1, keepdim=True) for part in (residuals, rows))
    return _HAIR * clip / (one * other).clamp_min(clip)
