"""Moduli of complex waves in images of one channel, with a backward pass written out."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from methods.core.speed.choices import CHOICES


def wave_moduli(images: torch.Tensor, bank: torch.Tensor, stride: int, least: float) -> torch.Tensor:
    """Returns sqrt(real^2 + imaginary^2 + least) [N, waves, H', W'] of images [N, 1, H, W] filtered by waves.

    The bank [2 * waves, 1, side, side] has the waves' real parts, then their imaginary ones, of odd side and fixed: it
    gets no gradient.
    """
    if CHOICES.patches:
        return _Moduli.apply(images, bank, stride, least)
    real, imaginary = _filtered(images, bank, stride).chunk(2, dim=1)
    return (real.square() + imaginary.square() + least).sqrt()


def _filtered(images: torch.Tensor, bank: torch.Tensor, stride: int) -> torch.Tensor:
    return F.conv2d(images, bank, stride=stride, padding=bank.shape[-1] // 2)


class _Moduli(torch.autograd.Function):
    """Torch's gradient by a single channel takes several times as long as one product and the sum of its patches."""

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, bank: torch.Tensor, stride: int, least: float) -> torch.Tensor:
        filtered = _filtered(images, bank, stride)
        real, imaginary = filtered.chunk(2, dim=1)
        values = real.square().add_(imaginary.square()).add_(least).sqrt_()
        ctx.save_for_backward(values, filtered, bank)
        ctx.size, ctx.stride = images.shape[2:], stride
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, signal: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        values, filtered, bank = ctx.saved_tensors
        by_filtered = filtered.unflatten(1, (2, -1)) * (signal / values)[:, None]
        by_patch = bank.flatten(1).T @ by_filtered.flatten(3).flatten(1, 2)
        side = bank.shape[-1]
        return F.fold(by_patch, ctx.size, side, padding=side // 2, stride=ctx.stride), None, None, None
