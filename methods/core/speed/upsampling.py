"""Convolutions after, or of, a doubling of the image's sides, in fewer products."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from methods.core.speed.choices import CHOICES

# Width of a map from which doubling by transposed convolution is faster on a processor.
_LARGE = 16
# Outputs of a transposed convolution to which one for the places of its stride is faster.
_FEW = 4

Pair = tuple[int, int]


@functools.cache
def _fold(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Returns [9, 16]: how a 3x3 kernel's taps add up where nearest doubling puts one input under several of them."""
    line = torch.tensor([[0.0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0]])
    return torch.kron(line, line).to(device, dtype)


def doubled(convolution: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """Returns the 3x3 convolution, padding 1, of x [N, C, H, W] after nearest doubling: [N, C', 2H, 2W].

    Large maps in single precision take the equal 4x4 transposed convolution of stride 2: four products for each output
    instead of nine. In bf16 it would gain a processor next to nothing, and lose in backward passes.
    """
    if not CHOICES.folded_upsampling or x.shape[-1] < _LARGE or torch.is_autocast_enabled(x.device.type):
        return convolution(F.interpolate(x, scale_factor=2))
    kernel = convolution.weight
    folded = kernel.transpose(0, 1).flatten(2) @ _fold(kernel.device, kernel.dtype)
    return F.conv_transpose2d(x, folded.unflatten(2, (4, 4)), convolution.bias, stride=2, padding=1)


def transposed(layer: nn.ConvTranspose2d, x: torch.Tensor) -> torch.Tensor:
    """Returns the transposed convolution of x [N, C, H, W], undilated and ungrouped, in a processor's shortest time.

    To few channels, one of stride 2 and even kernel is a convolution for its four output places. Where the kernel is no
    multiple of the stride, torch adds a bias slowly, and everywhere it sums a bias's gradient slowly.
    """
    if not CHOICES.by_places or x.device.type != "cpu":
        return nn.ConvTranspose2d.forward(layer, x)
    kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return _Transposed.apply(*(part.to(kind) for part in (x, layer.weight, layer.bias)), layer.stride, layer.padding)


class Transposed(nn.ConvTranspose2d):
    """torch's layer, as `transposed` computes it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return transposed(self, x)


class _Transposed(torch.autograd.Function):
    @staticmethod
    def forward(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: Pair, padding: Pair) -> torch.Tensor:
        outputs, kernel = weight.shape[1], weight.shape[2:]
        if stride == (2, 2) and outputs <= _FEW and kernel[0] == kernel[1] and kernel[0] % 2 == 0:
            return _by_places(x, weight, bias, padding)
        # There a bias within takes the kernel a slow way; elsewhere a sum of its own would cost more.
        apart = any(size % step for size, step in zip(kernel, stride, strict=True))
        maps = F.conv_transpose2d(x, weight, None if apart else bias, stride, padding)
        return maps.add_(bias[:, None, None]) if apart else maps

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.places = inputs[3:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, signal: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x, weight), (stride, padding) = ctx.saved_tensors, ctx.places
        signal = signal.contiguous(memory_format=torch.channels_last)
        by_x = F.conv2d(signal, weight, None, stride, padding) if ctx.needs_input_grad[0] else None
        by_weight = torch.ops.aten.convolution_backward(
            signal, x, weight, None, stride, padding, (1, 1), True, (0, 0), 1, (False, True, False)
        )[1]
        flat = signal.permute(0, 2, 3, 1).flatten(0, 2)
        return by_x, by_weight, flat.new_ones(len(flat)) @ flat, None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor,
        *places: Pair,
    ) -> tuple[torch.Tensor, int]:  # fmt: skip
        """Of a stack of layers: torch's own, in groups."""
        layer = functools.partial(F.conv_transpose2d, stride=places[0], padding=places[1])
        return torch.vmap(layer, in_dims[:3])(x, weight, bias), 0


def _by_places(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, padding: Pair) -> torch.Tensor:
    inputs, outputs, size = weight.shape[:3]
    taps = weight.view(inputs, outputs, size // 2, 2, size // 2, 2).flip(2, 4).permute(1, 3, 5, 0, 2, 4)
    kernel, bias = taps.reshape(4 * outputs, inputs, size // 2, size // 2), bias.repeat_interleave(4)
    full = F.pixel_shuffle(F.conv2d(x, kernel, bias, padding=size // 2 - 1), 2)
    return F.pad(full, (-padding[1], -padding[1], -padding[0], -padding[0]))


def doubled_bilinearly(maps: torch.Tensor, convolution: nn.Conv2d) -> torch.Tensor:
    """Returns maps [B, out, 2H, 2W] of maps [B, in, H, W]: doubled bilinearly, then convolved to the same size.

    Both are linear and act on rows and columns apart, so three matrix products do: the channels at the small size, once
    for each place of the kernel, then the rows, then the columns. Under half of torch's time for one colour on a CPU.
    The kernel is odd, and its padding half of it.
    """
    if not CHOICES.separable_doubling:
        return convolution(F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=True))
    maps = maps.permute(0, 2, 3, 1)
    (count, height, width, _), weight = maps.shape, convolution.weight
    outs, _, down, across = weight.shape
    taps = (maps @ weight.permute(1, 2, 0, 3).flatten(1)).view(count, height, width, down, outs, across)
    taps = taps.permute(0, 3, 1, 4, 2, 5).reshape(count, down * height, outs * width * across)
    rows = _doubling(height, down, maps.device).flatten(1) @ taps
    columns = _doubling(width, across, maps.device).mT.flatten(1)
    doubled = rows.view(count * 2 * height * outs, width * across) @ columns.T
    return doubled.view(count, 2 * height, outs, 2 * width).transpose(1, 2) + convolution.bias[:, None, None]


@functools.cache
def _doubling(size: int, kernel: int, device: torch.device) -> torch.Tensor:
    """Returns [2 * size, kernel, size]: what each entry gives to each place of a kernel centred on a doubled entry."""
    doubled = F.interpolate(torch.eye(size)[None], scale_factor=2, mode="linear", align_corners=True)[0].T
    return F.pad(doubled, (0, 0, kernel // 2, kernel // 2)).unfold(0, kernel, 1).mT.contiguous().to(device)
