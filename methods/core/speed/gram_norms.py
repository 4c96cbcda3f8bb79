"""Norms of per-example gradients from inner products between places, where the gradients are larger than those.

All in double precision: a norm is a sum of signed products here, and where they cancel, single precision would put it,
and so the clip, too low.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

# Examples whose products a processor's cache holds.
_AT_ONCE = 16


def gram_norms(patches: torch.Tensor, deltas: torch.Tensor) -> torch.Tensor:
    """Returns the norms [B], in single precision, of deltas.T @ patches, of [B, places, ins] and [B, places, outs]."""
    return torch.cat([_gram(*part) for part in zip(deltas.split(_AT_ONCE), patches.split(_AT_ONCE), strict=True)])


def folds(layer: nn.Module) -> bool:
    """Returns whether the layer is a convolution of stride above 1 that is one of stride 1 on blocks of pixels."""
    if not isinstance(layer, nn.Conv2d) or layer.stride == (1, 1):
        return False
    return all(size % step == 0 for size, step in zip(layer.kernel_size, layer.stride, strict=True))


def folded_cost(layer: nn.Conv2d, places: tuple[int, int]) -> int:
    """Returns the products of `folded_norms` for an example with so many places in height and width."""
    (rows, columns), (down, across) = layer.kernel_size, layer.stride
    blocks = (places[0] + rows // down - 1) * (places[1] + columns // across - 1)
    return blocks**2 * down * across * layer.in_channels + (places[0] * places[1]) ** 2 * layer.out_channels


def folded_norms(layer: nn.Conv2d, images: torch.Tensor, derivatives: torch.Tensor) -> torch.Tensor:
    """Returns `gram_norms` for a layer that `folds`, of its inputs [B, C, H, W] and derivatives [B, out, h, w].

    A pixel stands in several patches: inner products between blocks of pixels, each made once, hold those of patches.
    """
    parts = zip(images.split(_AT_ONCE), derivatives.split(_AT_ONCE), strict=True)
    return torch.cat([_folded(layer, *part) for part in parts])


def _gram(deltas: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    wide = deltas.double(), patches.double()
    grams = [part @ part.mT for part in wide]
    return (grams[0] * grams[1]).sum((1, 2)).clamp(min=0).sqrt().float()


def _folded(layer: nn.Conv2d, images: torch.Tensor, derivatives: torch.Tensor) -> torch.Tensor:
    (rows, columns), (down, across), (above, beside) = layer.kernel_size, layer.stride, layer.padding
    size, channels, high, wide = len(images), images.shape[1], *derivatives.shape[2:]
    taps = rows // down, columns // across
    blocks = high + taps[0] - 1, wide + taps[1] - 1
    padded = F.pad(images.permute(0, 2, 3, 1).double(), (0, 0, beside, beside, above, above))
    cut = padded[:, : blocks[0] * down, : blocks[1] * across]
    folded = cut.reshape(size, blocks[0], down, blocks[1], across, channels).transpose(2, 3)
    folded = folded.reshape(size, blocks[0] * blocks[1], -1)
    seen = (folded @ folded.mT).view(size, *blocks, *blocks)
    deltas = derivatives.permute(0, 2, 3, 1).flatten(1, 2).double()
    grams = (deltas @ deltas.mT).view(size, high, wide, high, wide)
    squares = torch.zeros(size, dtype=torch.double, device=images.device)
    for i in range(taps[0]):
        for j in range(taps[1]):
            squares += (seen[:, i : i + high, j : j + wide, i : i + high, j : j + wide] * grams).sum((1, 2, 3, 4))
    return squares.clamp(min=0).sqrt().float()
