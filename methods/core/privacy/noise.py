"""Clipping and noise: the only code between private rows and what a run releases."""

from __future__ import annotations

import numpy as np
import torch

from workflow.common.seeds import derive

_NORM = {"gaussian": 2, "laplace": 1}


def clip_rows(rows: torch.Tensor, clip: float, kind: str) -> torch.Tensor:
    """Returns rows [R, D], float32 or float64, each of norm at most `clip` (L2 for gaussian, L1 for laplace).

    A row with an inf or a NaN, or with a norm beyond float64, becomes zero: scaling it would release its direction at
    no bound or poison a sum. The norm is taken in float64, so that 1e30 in float32 does not overflow.
    """
    rows = rows.detach()
    if rows.dtype not in (torch.float32, torch.float64):
        rows = rows.float()
    norms = torch.linalg.vector_norm(rows, ord=_NORM[kind], dim=1, dtype=torch.float64)
    finite = torch.isfinite(norms)
    # A hair below the clip, so that rounding in the rows' own precision cannot end above it.
    limit = clip * (1 - 1e-6)
    factors = torch.where(finite, limit / norms.clamp_min(limit), 0.0).to(rows.dtype)
    return torch.where(finite[:, None], rows * factors[:, None], 0.0)


class NoiseSource:
    """Noise, and secret draws of records: a function of a root seed and the number of the use they serve.

    Keyed by use, not drawn from one running generator: a resumed run neither repeats the noise of an earlier use nor
    needs a saved generator. On CPU it is NumPy's Philox (128-bit key; torch's CPU generator keeps only 32 bits of a
    seed); on CUDA it is torch's Philox. The root seed must be secret in a real deployment: who knows it can subtract
    the noise.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def draw(self, kind: str, like: torch.Tensor, scale: float, name: str, use: int) -> torch.Tensor:
        """Returns noise of `like`'s shape, dtype and device: N(0, scale^2), or Laplace of scale b = `scale`."""
        if like.device.type == "cpu":
            unit = torch.from_numpy(self._numpy(kind, tuple(like.shape), name, use)).to(like.dtype)
        else:
            unit = self._torch(kind, like, name, use)
        return unit * scale

    def rng(self, name: str, use: int, purpose: str = "") -> np.random.Generator:
        """Returns a Philox generator with a key of 128 bits for one purpose of a use."""
        names = (name, use, purpose) if purpose else (name, use)
        key = derive(self._seed, *names, "low") | derive(self._seed, *names, "high") << 64
        return np.random.Generator(np.random.Philox(key=key))

    def _numpy(self, kind: str, shape: tuple[int, ...], name: str, use: int) -> np.ndarray:
        rng = self.rng(name, use)
        if kind == "gaussian":
            return np.asarray(rng.standard_normal(shape, dtype=np.float32))
        return np.asarray(rng.laplace(size=shape))

    def _torch(self, kind: str, like: torch.Tensor, name: str, use: int) -> torch.Tensor:
        rng = torch.Generator(device=like.device).manual_seed(derive(self._seed, name, use))
        if kind == "gaussian":
            return torch.randn(like.shape, generator=rng, device=like.device, dtype=like.dtype)
        # A difference of two exponentials is Laplace, and needs no inverse at the edge of the unit interval.
        pair = torch.empty((2, *like.shape), device=like.device, dtype=like.dtype).exponential_(generator=rng)
        return pair[0] - pair[1]


def count_votes(choices: torch.Tensor, bins: int) -> torch.Tensor:
    """Returns the voters of each bin, float32 [answers, bins], for choices int64 [R, answers] in 0 .. bins - 1."""
    answers = choices.shape[1]
    cells = choices + torch.arange(answers, device=choices.device) * bins
    return torch.bincount(cells.flatten(), minlength=answers * bins).view(answers, bins).float()
