"""The layers of convolutional teachers, for many small networks at once, as batched matrix products.

Grouped convolutions, which a vmap'd network makes, take several times as long on a processor. Maps have their channels
last, so that a patch is copied in rows.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F

from methods.core.speed.patches import patches

# Of every convolution here: as `nn.Conv2d(..., 5, stride=2, padding=2)`.
_SIZE, _STRIDE, _PADDING = (5, 5), (2, 2), (2, 2)


def convolved(maps: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Returns maps [n, B, H / 2, W / 2, O] of n networks, whose input is joined by a constant map for each label.

    Where a label's map is one, it adds the sum of its taps inside the image: a small table, and no channel of a patch.

    Args:
        maps: [n, B, H, W, C]; H and W even.
        labels: one-hot [n, B, L].
        weight, bias: [n, O, C + L, 5, 5] and [n, O].
    """
    (n, batch, height, width, channels), outputs = maps.shape, weight.shape[1]
    taps = weight.flatten(3)
    own = taps[:, :, :channels].permute(0, 3, 2, 1).reshape(n, -1, outputs)
    tables = taps[:, :, channels:].permute(0, 2, 1, 3) @ _inside(height, width, maps.device, maps.dtype)
    tables = (tables + bias[:, None, :, None]).transpose(2, 3)
    base = (labels @ tables.flatten(2)).view(n, -1, outputs)
    return _Convolution.apply(maps, own, base).view(n, batch, height // 2, width // 2, outputs)


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Returns [n, B, O] of n linear layers for x [n, B, I], weight [n, O, I] and bias [n, O]."""
    return _Linear.apply(x, weight) + bias[:, None]


class _Linear(torch.autograd.Function):
    """The products of `linear`; torch's own gradient of a weight lies the other way round, and is copied for Adam."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        context.save_for_backward(x, weight)
        return x @ weight.mT

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        x, weight = context.saved_tensors
        of_x, of_weight = context.needs_input_grad
        return gradient @ weight if of_x else None, gradient.mT @ x if of_weight else None


class _Convolution(torch.autograd.Function):
    """Patches [n, B * P, 25 * C] of maps [n, B, H, W, C], times own [n, 25 * C, O], plus base [n, B * P, O]."""

    @staticmethod
    def forward(context: Any, maps: torch.Tensor, own: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        seen = patches(maps.flatten(0, 1).permute(0, 3, 1, 2), _SIZE, _STRIDE, _PADDING).view(
            len(maps), -1, own.shape[1]
        )
        context.save_for_backward(seen, own)
        context.shape = maps.shape
        return torch.baddbmm(base, seen, own)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        seen, own = context.saved_tensors
        of_maps, of_own, _ = context.needs_input_grad
        return (
            _to_maps(gradient, own, context.shape) if of_maps else None,
            # The product of a wide matrix and a narrow one takes less time this way round.
            (gradient.mT @ seen).mT if of_own else None,
            gradient,
        )


def _to_maps(gradient: torch.Tensor, own: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Returns the gradient of maps [n, B, H, W, C], whose four places of a stride are four channels of a small map.

    Place p of stride y is seen by tap p + 2 (1 - d) of the outputs y + d, d = -1 .. 1, where there is such a tap: a
    convolution of the gradient with 3x3 taps, as one product, and no sum over patches that overlap.
    """
    (n, batch, height, width, channels), outputs = shape, own.shape[2]
    places = gradient.view(n * batch, height // 2, width // 2, outputs).permute(0, 3, 1, 2)
    seen = patches(places, (3, 3), (1, 1), (1, 1)).view(n, -1, 9 * outputs)
    taps = F.pad(own.view(n, *_SIZE, channels, outputs), (0, 0, 0, 0, 0, 1, 0, 1))
    taps = taps.view(n, 3, 2, 3, 2, channels, outputs).flip(1, 3).permute(0, 1, 3, 6, 2, 4, 5)
    maps = seen @ taps.reshape(n, 9 * outputs, 4 * channels)
    return maps.view(n, batch, height // 2, width // 2, 2, 2, channels).transpose(3, 4).reshape(shape)


@functools.cache
def _inside(height: int, width: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Returns [25, P]: for each of the P places of a convolution, which of its taps lie inside an image."""
    seen = patches(torch.ones(1, 1, height, width), _SIZE, _STRIDE, _PADDING)[0].flatten(0, 1).T.contiguous()
    return seen.to(device, dtype)
