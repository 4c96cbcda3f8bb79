"""The layers of convolutional teachers, for many small networks at once, as batched matrix products.

Grouped convolutions, which a vmap'd network makes, take several times as long on a processor. Maps have their channels
last, so that a patch is copied in rows. Products are in the precision of their maps, whatever the weights' is: of
weights and their gradients nothing else is rounded.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F

from methods.core.speed.patches import patches

# Of every convolution here: as `nn.Conv2d(..., 5, stride=2, padding=2)`.
_SIZE, _STRIDE, _PADDING = (5, 5), (2, 2), (2, 2)
_Gradients = tuple[torch.Tensor | None, ...]


def seen(images: torch.Tensor) -> torch.Tensor:
    """Returns the patches [..., H / 2, W / 2, 25 * C] of images [..., C, H, W] that a convolution's places see."""
    return patches(images.flatten(0, -4), _SIZE, _STRIDE, _PADDING).unflatten(0, images.shape[:-3])


def convolved(maps: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Returns maps [n, B, H / 2, W / 2, O] of n networks, whose input is joined by a constant map for each label.

    Where a label's map is one, it adds the sum of its taps inside the image: a small table, and no channel of a patch.

    Args:
        maps: [n, B, H, W, C]; H and W even.
        labels: one-hot [n, B, L].
        weight, bias: [n, O, C + L, 5, 5] and [n, O].
    """
    n, batch, height, width, channels = maps.shape
    own, base = _split(weight, bias, labels, channels, (height, width), maps.dtype)
    made = _Convolution.apply(maps, own, base)
    return made.view(n, batch, height // 2, width // 2, weight.shape[1])


def convolved_seen(
    parts: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """Returns what `convolved` does, of what is `seen` of its maps, [n, B, H / 2, W / 2, 25 * C], without gradient."""
    places, entries = parts.shape[1:4], parts.shape[4]
    own, base = _split(weight, bias, labels, entries // 25, (2 * places[1], 2 * places[2]), parts.dtype)
    return _Product.apply(parts.flatten(1, 3), own, base).unflatten(1, places)


def _split(
    weight: torch.Tensor,
    bias: torch.Tensor,
    labels: torch.Tensor,
    channels: int,
    size: tuple[int, int],
    to: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the weight of the maps [n, 25 * C, O], and what labels and bias add at each place [n, B * P, O]."""
    (n, outputs), taps = weight.shape[:2], weight.flatten(3)
    own = taps[:, :, :channels].permute(0, 3, 2, 1).reshape(n, -1, outputs).to(to)
    tables = taps[:, :, channels:].permute(0, 2, 1, 3) @ _inside(*size).to(weight)
    tables = (tables + bias[:, None, :, None]).transpose(2, 3)
    base = labels.to(to) @ tables.flatten(2).to(to)
    return own, base.view(n, -1, outputs)


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Returns [n, B, O] of n linear layers for x [n, B, I], weight [n, O, I] and bias [n, O], or none."""
    made = _Linear.apply(x, weight)
    return made if bias is None else made + bias[:, None].to(made)


def normed(
    rows: torch.Tensor, factor: torch.Tensor, offset: torch.Tensor, slope: float, epsilon: float
) -> torch.Tensor:
    """Returns float32 leaky units of rows [n, k, R, channels], normalised over the R rows of each of k batches.

    A unit is one of mean 0 and variance 1, times 1 + factor, plus offset, both [n, channels]; below zero, times slope.
    """
    return _Normed.apply(rows, factor, offset, slope, epsilon)


class _Linear(torch.autograd.Function):
    """The products of `linear`; torch's own gradient of a weight lies the other way round, and is copied for Adam."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        kept = weight.to(x.dtype)
        context.save_for_backward(x, kept)
        context.precision = weight.dtype
        return x @ kept.mT

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> _Gradients:
        x, weight = context.saved_tensors
        of_x, of_weight = context.needs_input_grad
        by_weight = (gradient.mT @ x).to(context.precision) if of_weight else None
        return gradient @ weight if of_x else None, by_weight


class _Normed(torch.autograd.Function):
    """`normed` in few passes: torch's variance over rows takes as long as ten of them."""

    @staticmethod
    def forward(
        context: Any, rows: torch.Tensor, factor: torch.Tensor, offset: torch.Tensor, slope: float, epsilon: float
    ) -> torch.Tensor:
        rows = rows.float()
        centred = rows - rows.mean(2, keepdim=True)
        scale = centred.square().mean(2, keepdim=True).add_(epsilon).rsqrt_()
        unit = centred.mul_(scale)
        gain = (1 + factor.float())[:, None, None]
        made = F.leaky_relu(torch.addcmul(offset.float()[:, None, None], unit, gain), slope, inplace=True)
        context.save_for_backward(unit, scale, gain, made)
        context.slope = slope
        return made

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> _Gradients:
        unit, scale, gain, made = context.saved_tensors
        # Of the same sign as what went into the units.
        gradient = torch.ops.aten.leaky_relu_backward(gradient, made, context.slope, True)
        total, along = gradient.sum(2, keepdim=True), (gradient * unit).sum(2, keepdim=True)
        rows = gradient.sub_(total / unit.shape[2]).addcmul_(unit, along, value=-1 / unit.shape[2]).mul_(scale * gain)
        return rows, along.sum(1)[:, 0], total.sum(1)[:, 0], None, None


class _Product(torch.autograd.Function):
    """Parts [n, B * P, 25 * C] times own [n, 25 * C, O], plus base [n, B * P, O]; the parts get no gradient."""

    @staticmethod
    def forward(context: Any, parts: torch.Tensor, own: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        context.save_for_backward(parts)
        return torch.baddbmm(base, parts, own)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> _Gradients:
        (parts,) = context.saved_tensors
        return None, _of_weight(gradient, parts), gradient


class _Convolution(torch.autograd.Function):
    """Patches [n, B * P, 25 * C] of maps [n, B, H, W, C], times own [n, 25 * C, O], plus base [n, B * P, O]."""

    @staticmethod
    def forward(context: Any, maps: torch.Tensor, own: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        parts = seen(maps.movedim(4, 2)).flatten(1, 3)
        context.save_for_backward(parts, own)
        context.shape = maps.shape
        return torch.baddbmm(base, parts, own)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> _Gradients:
        parts, own = context.saved_tensors
        of_maps, of_own, _ = context.needs_input_grad
        return (
            _to_maps(gradient, own, context.shape) if of_maps else None,
            _of_weight(gradient, parts) if of_own else None,
            gradient,
        )


def _of_weight(gradient: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
    # The product of a wide matrix and a narrow one takes less time this way round.
    return (gradient.mT @ parts).mT


def _to_maps(gradient: torch.Tensor, own: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Returns the gradient of maps [n, B, H, W, C], whose four places of a stride are four channels of a small map.

    Place p of stride y is seen by tap p + 2 (1 - d) of the outputs y + d, d = -1 .. 1, where there is such a tap: a
    convolution of the gradient with 3x3 taps, as one product, and no sum over patches that overlap.
    """
    (n, batch, height, width, channels), outputs = shape, own.shape[2]
    places = gradient.view(n * batch, height // 2, width // 2, outputs).permute(0, 3, 1, 2)
    parts = patches(places, (3, 3), (1, 1), (1, 1)).view(n, -1, 9 * outputs)
    taps = F.pad(own.view(n, *_SIZE, channels, outputs), (0, 0, 0, 0, 0, 1, 0, 1))
    taps = taps.view(n, 3, 2, 3, 2, channels, outputs).flip(1, 3).permute(0, 1, 3, 6, 2, 4, 5)
    maps = parts @ taps.reshape(n, 9 * outputs, 4 * channels)
    return maps.view(n, batch, height // 2, width // 2, 2, 2, channels).transpose(3, 4).reshape(shape)


@functools.cache
def _inside(height: int, width: int) -> torch.Tensor:
    """Returns [25, P]: for each of the P places of a convolution, which of its taps lie inside an image."""
    return patches(torch.ones(1, 1, height, width), _SIZE, _STRIDE, _PADDING)[0].flatten(0, 1).T.contiguous()
