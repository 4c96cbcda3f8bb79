"""Pixel norm with its backward pass written out."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from methods.core.speed.choices import CHOICES


def pixel_norm(x: torch.Tensor) -> torch.Tensor:
    """Divides x [N, C, ...] by its root mean square over channels (Karras et al. 2018, section 4.2)."""
    if not CHOICES.written_pixel_norm:
        return x * (x.float().square().mean(dim=1, keepdim=True) + 1e-10).rsqrt().to(x.dtype)
    return _PixelNorm.apply(x)[0]


class _PixelNorm(torch.autograd.Function):
    """Written out: traced, its backward pass is most of the time that a generator spends outside convolutions."""

    @staticmethod
    def forward(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale = _mean_square(x).add_(1e-10).rsqrt_().to(x.dtype)
        return x * scale, scale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor], output: tuple[torch.Tensor, torch.Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        y, scale = ctx.saved_tensors
        along = (gradient * y).mean(dim=1, keepdim=True)
        return torch.addcmul(gradient, y, along, value=-1).mul_(scale)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], x: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], tuple[int, int]]:
        """Of a stack [M, N, C, ...]: all images are one batch."""
        stack = x.movedim(in_dims[0], 0)
        return tuple(part.unflatten(0, stack.shape[:2]) for part in _PixelNorm.apply(stack.flatten(0, 1))), (0, 0)


def _mean_square(x: torch.Tensor) -> torch.Tensor:
    if x.ndim != 4 or not x.is_contiguous(memory_format=torch.channels_last):
        return (x * x).mean(dim=1, keepdim=True)
    # Several times faster where channels lie side by side, and slower where they do not.
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return norm.to(torch.promote_types(x.dtype, torch.float32)).square_().div_(x.shape[1])
