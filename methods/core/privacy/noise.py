"""Clipping and noise: the only code between private rows and what a run releases."""

from __future__ import annotations

import hmac
import json

import numpy as np
import torch

_NORM = {"gaussian": 2, "laplace": 1}


def clip_rows(rows: torch.Tensor, clip: float, kind: str) -> torch.Tensor:
    """Returns rows [R, D], float32 or float64, each of norm at most `clip` (L2 for gaussian, L1 for laplace).

    A row with an inf or a NaN, or with a norm beyond float64, becomes zero: scaling it would release its direction at
    no bound or poison a sum. So does a row for whose factor its own precision has few digits: in float32, one more than
    8e37 times as long as the clip. The norm is taken in float64, so that 1e30 in float32 does not overflow.
    """
    rows = rows.detach()
    if rows.dtype not in (torch.float32, torch.float64):
        rows = rows.float()
    norms = torch.linalg.vector_norm(rows, ord=_NORM[kind], dim=1, dtype=torch.float64)
    # A hair below the clip, so that rounding in the rows' own precision cannot end above it.
    limit = clip * (1 - 1e-6)
    factors = limit / norms.clamp_min(limit)
    # A subnormal factor has few digits: rounded to them, it would leave a row of up to twice the clip. An infinite norm
    # has the factor 0, and one that is no number has none.
    kept = factors >= torch.finfo(rows.dtype).tiny
    factors = torch.where(kept, factors, 0.0).to(rows.dtype)
    return torch.where(kept[:, None], rows * factors[:, None], 0.0)


class NoiseSource:
    """Noise, and secret draws of records: a function of a secret key and the number of the use they serve.

    Keyed by use, not drawn from one running generator: a resumed run neither repeats the noise of an earlier use nor
    needs a saved generator. Every use has a NumPy Philox generator of its own with 128 bits of key (torch's CPU
    generator keeps 32 bits of a seed), on every device. Whoever knows the key can subtract the noise.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def draw(self, kind: str, shape: tuple[int, ...], scale: float, name: str, use: int) -> torch.Tensor:
        """Returns noise float64 of a shape, on the CPU: N(0, scale^2), or Laplace of scale b = `scale`."""
        rng = self.rng(name, use)
        unit = rng.standard_normal(shape) if kind == "gaussian" else rng.laplace(size=shape)
        return torch.from_numpy(np.asarray(unit)) * scale

    def rng(self, name: str, use: int, purpose: str = "noise") -> np.random.Generator:
        """Returns the generator for one purpose of a use."""
        names = json.dumps([name, use, purpose]).encode()
        key = hmac.digest(self._key, names, "sha256")[:16]
        return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big")))


def on_grid(values: torch.Tensor, grid: float) -> torch.Tensor:
    """Returns values, float64, rounded to multiples of `grid`, a power of two.

    What is left of an answer then says nothing of the row's low bits: every multiple is possible under every row
    (Mironov, On Significance of the Least Significant Bits for Differential Privacy, CCS 2012).
    """
    return (values / grid).round() * grid


def count_votes(choices: torch.Tensor, bins: int) -> torch.Tensor:
    """Returns the voters of each bin, float32 [answers, bins], for choices int64 [R, answers] in 0 .. bins - 1."""
    answers = choices.shape[1]
    cells = choices + torch.arange(answers, device=choices.device) * bins
    return torch.bincount(cells.flatten(), minlength=answers * bins).view(answers, bins).float()
