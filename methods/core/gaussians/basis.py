"""A public basis of smooth images: the cosine waves of low frequency, in brightness and, more coarsely, in colour."""

from __future__ import annotations

import math

import torch


class CosineBasis:
    """Orthonormal coefficients of images [C, H, W]: a 2-D cosine transform (DCT-II) of each channel's low frequencies.

    Kept are the waves (u, v) with u^2 + v^2 < cutoff^2. Several channels are first turned into their mean and what is
    left of it (a DCT-II along the channels), of which only waves below half the cutoff are kept: colour varies little.
    Nothing of it depends on data.
    """

    def __init__(self, image_shape: tuple[int, int, int], cutoff: float, device: torch.device | str = "cpu") -> None:
        channels, height, width = image_shape
        self.image_shape = image_shape
        rows, columns = (min(side, math.ceil(cutoff)) for side in (height, width))
        self._mixed = _waves(channels, channels).to(device)
        self._rows, self._columns = (_waves(kept, side).to(device) for kept, side in ((rows, height), (columns, width)))
        squares = torch.arange(rows).square()[:, None] + torch.arange(columns).square()
        limits = torch.full((channels,), cutoff / 2)
        limits[0] = cutoff
        # The constant wave of each channel stays, however low the cutoff.
        kept = (squares < limits.square()[:, None, None]) | (squares == 0)
        # Low frequencies first, so that a prefix of the coefficients is a coarser basis.
        places = kept.flatten().nonzero()[:, 0]
        order = squares.expand(channels, -1, -1).flatten()[places].argsort(stable=True)
        self._places = places[order].to(device)
        self._grid = (channels, rows, columns)

    def __len__(self) -> int:
        """The number of coefficients d."""
        return len(self._places)

    @property
    def device(self) -> torch.device:
        """Where images must be."""
        return self._places.device

    def coefficients(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the coefficients [N, d] of images [N, C, H, W]: of the basis' span they keep the L2 norm."""
        mixed = torch.einsum("kc,nchw->nkhw", self._mixed, images)
        grid = self._rows @ mixed @ self._columns.T
        return grid.flatten(1)[:, self._places]

    def images(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Returns the images [N, C, H, W] of coefficients [N, d]; what the basis leaves out is 0."""
        grid = coefficients.new_zeros(len(coefficients), math.prod(self._grid))
        grid[:, self._places] = coefficients
        mixed = self._rows.T @ grid.view(-1, *self._grid) @ self._columns
        return torch.einsum("kc,nkhw->nchw", self._mixed, mixed)


def _waves(count: int, length: int) -> torch.Tensor:
    """Returns the first `count` orthonormal DCT-II waves of `length` points, float32 [count, length]."""
    places = torch.arange(length, dtype=torch.float64) + 0.5
    waves = torch.cos(math.pi / length * torch.arange(count, dtype=torch.float64)[:, None] * places)
    waves *= math.sqrt(2 / length)
    waves[0] /= math.sqrt(2)
    return waves.float()
