"""The layers of convolutional teachers, for many small networks at once, as batched matrix products.

Grouped convolutions, which a vmap'd network makes, take several times as long on a processor. Maps have their channels
last, so that a patch is copied in rows. Products are in the precision of their inputs, whatever the weights' is, and
gradients are written out: tracing a small layer takes as long as computing it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from methods.core.speed.patches import patches

# Of every convolution here: as `nn.Conv2d(..., 5, stride=2, padding=2)`.
_SIZE, _STRIDE, _PADDING = (5, 5), (2, 2), (2, 2)
_TAPS = 25


def seen(images: torch.Tensor) -> torch.Tensor:
    """Returns the patches [..., H / 2, W / 2, 25 * C] of images [..., C, H, W] that a convolution's places see."""
    return patches(images.flatten(0, -4), _SIZE, _STRIDE, _PADDING).unflatten(0, images.shape[:-3])


class Convolution:
    """A convolution of n networks to O channels, whose input of C channels is joined by a constant map for each label.

    Where a label's map is one, it adds the sum of its taps inside the image: a small table, and no channel of a patch.

    Args:
        weight: [n, O, C + L, 5, 5].
        bias: [n, O], or none.
        parts: what is `seen` of its input, [n, B, H / 2, W / 2, 25 * C].
        labels: one-hot [n, B, L], of the parts' precision.

    Attributes:
        made: the output [n, B * P, O] at the P = H / 2 * W / 2 places.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, parts: torch.Tensor, labels: torch.Tensor
    ) -> None:
        (n, outputs), self._places, self._labels = weight.shape[:2], parts.shape[1:4], labels
        self._inside = _inside(*self._places[1:], parts.device)
        self._channels, taps = parts.shape[4] // _TAPS, weight.flatten(3)
        self._own = taps[:, :, : self._channels].permute(0, 3, 2, 1).reshape(n, -1, outputs).to(parts.dtype)
        # All of them as one product: one for each label takes several times as long.
        sums = taps[:, :, self._channels :].transpose(1, 2).reshape(-1, _TAPS) @ self._inside.to(weight)
        tables = sums.view(n, -1, outputs, self._inside.shape[1]).transpose(2, 3)
        tables = tables if bias is None else tables + bias[:, None, None]
        base = labels @ tables.flatten(2).to(parts.dtype)
        self._parts = parts.flatten(1, 3)
        self.made = torch.baddbmm(base.view(n, -1, outputs), self._parts, self._own)

    def by_weight(self, gradient: torch.Tensor) -> torch.Tensor:
        """Returns the gradient float32 [n, O, C + L, 5, 5] of the weight, by that of what was made."""
        n, _, outputs = gradient.shape
        # The product of a wide matrix and a narrow one takes less time this way round.
        own = (gradient.mT @ self._parts).view(n, outputs, _TAPS, self._channels).transpose(2, 3)
        sums = (self._labels.mT @ gradient.view(n, self._labels.shape[1], -1)).float().unflatten(2, (-1, outputs))
        tables = (sums.transpose(2, 3).flatten(0, 2) @ self._inside.mT).view(n, -1, outputs, _TAPS).transpose(1, 2)
        return torch.cat([own.float(), tables], dim=2).unflatten(3, _SIZE)

    def by_maps(self, gradient: torch.Tensor) -> torch.Tensor:
        """Returns the gradient [n, B, H, W, C] of the input, by that of what was made.

        Four places of a stride are four channels of a small map. Place p of stride y is seen by tap p + 2 (1 - d) of
        the outputs y + d, d = -1 .. 1, where there is such a tap: a convolution of the gradient with 3x3 taps, as one
        product, and no sum over patches that overlap.
        """
        (n, _, outputs), (batch, height, width) = gradient.shape, self._places
        places = gradient.reshape(n * batch, height, width, outputs).permute(0, 3, 1, 2)
        parts = patches(places, (3, 3), (1, 1), (1, 1)).view(n, -1, 9 * outputs)
        taps = F.pad(self._own.view(n, *_SIZE, self._channels, outputs), (0, 0, 0, 0, 0, 1, 0, 1))
        taps = taps.view(n, 3, 2, 3, 2, self._channels, outputs).flip(1, 3).permute(0, 1, 3, 6, 2, 4, 5)
        maps = parts @ taps.reshape(n, 9 * outputs, 4 * self._channels)
        maps = maps.view(n, batch, height, width, 2, 2, self._channels).transpose(3, 4)
        return maps.reshape(n, batch, 2 * height, 2 * width, self._channels)


class Units:
    """Leaky units of rows [n, R, channels], after a batch norm over the rows of each batch if there is one.

    Args:
        rows: what they are of.
        batches: how many rows each batch has, one after the other; R in all.
        norm: factor and offset [n, channels] of the batch norm, which makes rows of mean 0 and variance 1, multiplies
            by 1 + factor and adds the offset; or none.
        slope: of a unit below zero.

    Attributes:
        made: the units [n, R, channels], in 32 bits after a norm.
    """

    def __init__(
        self,
        rows: torch.Tensor,
        batches: Sequence[int],
        norm: tuple[torch.Tensor, torch.Tensor] | None,
        slope: float,
    ) -> None:
        self._slope, self._norms = slope, []
        if norm is not None:
            self._batches = list(batches)
            parts = [_Norm(part, *(one.float()[:, None, None] for one in norm)) for part in self._apart(rows.float())]
            self._norms, rows = parts, _together([part.made for part in parts])
        self.made = F.leaky_relu(rows, slope)

    def by_rows(self, gradient: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
        """Returns the gradient of the rows by that of the units, and factor's and offset's [n, channels] or none."""
        # Units have the signs of what they were made of.
        gradient = torch.ops.aten.leaky_relu_backward(gradient, self.made, self._slope, True)
        if not self._norms:
            return gradient, None
        found = [norm.back(part) for norm, part in zip(self._norms, self._apart(gradient), strict=True)]
        rows, along, total = zip(*found, strict=True)
        return _together(rows), (sum(along), sum(total))

    def _apart(self, rows: torch.Tensor) -> Sequence[torch.Tensor]:
        """Returns rows as batches [n, k, R, channels] of equal sizes: one tensor, or one for each batch."""
        if len(set(self._batches)) == 1:
            return [rows.unflatten(1, (len(self._batches), -1))]
        return [part[:, None] for part in rows.split(self._batches, dim=1)]


class _Norm:
    """Rows [n, k, R, channels] normalised over R. Torch's variance over rows takes as long as ten passes."""

    _EPSILON = 1e-5

    def __init__(self, rows: torch.Tensor, factor: torch.Tensor, offset: torch.Tensor) -> None:
        unit = rows - rows.mean(2, keepdim=True)
        scale = unit.square().mean(2, keepdim=True).add_(self._EPSILON).rsqrt_()
        self._unit, gain = unit.mul_(scale), 1 + factor
        self._scale = scale * gain
        self.made = torch.addcmul(offset, self._unit, gain)

    def back(self, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns the gradients of rows, factor and offset by that of what was made."""
        total, along = gradient.sum(2, keepdim=True), (gradient * self._unit).sum(2, keepdim=True)
        share = -1 / gradient.shape[2]
        rows = torch.addcmul(gradient, self._unit, along, value=share).add_(total, alpha=share).mul_(self._scale)
        return rows, along.sum(1)[:, 0], total.sum(1)[:, 0]


def _together(batches: Sequence[torch.Tensor]) -> torch.Tensor:
    rows = [batch.flatten(1, 2) for batch in batches]
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)


@functools.cache
def _inside(rows: int, columns: int, device: torch.device) -> torch.Tensor:
    """Returns [25, P]: for each of the P = rows * columns places, which of its taps lie inside an image."""
    ones = torch.ones(1, 1, 2 * rows, 2 * columns)
    return patches(ones, _SIZE, _STRIDE, _PADDING)[0].flatten(0, 1).T.contiguous().to(device)
