"""Convolutions after, or of, a doubling of the image's sides, in fewer products."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import nn

from methods.core.speed.choices import CHOICES

# Width of a map from which doubling by transposed convolution is faster on a processor.
_LARGE = 16


def _fold() -> torch.Tensor:
    """Returns [9, 16]: how a 3x3 kernel's taps add up where nearest doubling puts one input under several of them."""
    line = torch.tensor([[0.0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0]])
    return torch.kron(line, line)


def doubled(convolution: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """Returns the 3x3 convolution, padding 1, of x [N, C, H, W] after nearest doubling: [N, C', 2H, 2W].

    Large maps in single precision take the equal 4x4 transposed convolution of stride 2: four products for each output
    instead of nine. In bf16 it would gain a processor next to nothing, and lose in backward passes.
    """
    if not CHOICES.folded_upsampling or x.shape[-1] < _LARGE or torch.is_autocast_enabled(x.device.type):
        return convolution(F.interpolate(x, scale_factor=2))
    kernel = convolution.weight
    folded = kernel.transpose(0, 1).flatten(2) @ _fold().to(kernel)
    return F.conv_transpose2d(x, folded.unflatten(2, (4, 4)), convolution.bias, stride=2, padding=1)


def by_places(layer: nn.ConvTranspose2d, x: torch.Tensor) -> torch.Tensor:
    """Returns the transposed convolution of stride 2 and even kernel as one convolution for its four output places.

    To few channels that is two to four times faster than the transposed kernel, except through backward passes in bf16,
    which take the layer as it is.
    """
    slow = torch.is_grad_enabled() and torch.is_autocast_enabled(x.device.type)
    if slow or not CHOICES.by_places:
        return layer(x)
    inputs, outputs, size = layer.weight.shape[:3]
    taps = layer.weight.view(inputs, outputs, size // 2, 2, size // 2, 2).flip(2, 4).permute(1, 3, 5, 0, 2, 4)
    kernel, bias = taps.reshape(4 * outputs, inputs, size // 2, size // 2), layer.bias.repeat_interleave(4)
    return F.pixel_shuffle(F.conv2d(x, kernel, bias, padding=size // 2 - 1), 2)


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
