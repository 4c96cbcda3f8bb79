"""The network that refines drawn images, and begins as one that leaves them as they are."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from methods.core.speed.layout import laid_out, maps_laid_out

_LABEL = 8
_LEAK = 0.2
# About the mean brightness of an image.
_CENTRE = 0.3


class Refiner(nn.Module):
    """Adds to an image what three convolutions at half its side make of it, its label and maps of noise.

    The last layer starts at 0, so that nothing is added at first. Sides must be even.
    """

    def __init__(self, image_shape: tuple[int, int, int], classes: int, width: int, noise_maps: int) -> None:
        super().__init__()
        seen = 4 * image_shape[0]
        self._noise = (noise_maps, image_shape[1] // 2, image_shape[2] // 2)
        self.labels = nn.Embedding(classes, _LABEL)
        self.first = nn.Conv2d(seen + _LABEL + noise_maps, width, 3, padding=1)
        self.middle = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.last = nn.Conv2d(width, seen, 3, padding=1)
        for value in self.last.parameters():
            nn.init.zeros_(value)
        laid_out(self)

    def noise(self, count: int, rng: torch.Generator) -> torch.Tensor:
        """Returns noise [count, noise_maps, H / 2, W / 2] for as many images, on the CPU."""
        return torch.randn(count, *self._noise, generator=rng)

    def forward(self, images: torch.Tensor, labels: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Returns images [N, C, H, W] in [0, 1] for those in [0, 1] and their labels int64 [N]."""
        small = functional.pixel_unshuffle(images - _CENTRE, 2)
        label = self.labels(labels)[:, :, None, None].expand(-1, -1, *small.shape[2:])
        hidden = functional.leaky_relu(self.first(maps_laid_out(torch.cat([small, label, noise], dim=1))), _LEAK)
        for layer in self.middle:
            hidden = hidden + functional.leaky_relu(layer(hidden), _LEAK)
        return (images + functional.pixel_shuffle(self.last(hidden), 2)).clamp(0.0, 1.0)
