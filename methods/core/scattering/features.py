"""Scattering features of images: fixed wavelets and their moduli, of which nothing depends on data."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from methods.core.speed.waves import wave_moduli

# Directions of a wavelet, and the side of its square of weights at the fine and the coarse scale.
_ANGLES, _FINE, _COARSE = 8, 5, 9
# Most places of a map along a side; of larger images maps are averaged further.
_PLACES = 8
# Channels that are made comparable together, as in group normalisation.
_GROUP = 3
# Under the root of a modulus, whose slope at 0 is infinite.
_LEAST = 1e-6


class Scattering:
    """Group-normalised scattering coefficients up to order 2 at two scales (J = 2) and eight directions.

    A channel of an image gives 81 maps: its blur, eight moduli of wavelets at each scale, and 64 moduli of wavelets
    of the fine scale's moduli. Maps have a quarter of the image's side, 7x7 at 28x28, averaged further to 8x8 at most.
    Sides must be multiples of 4. Any tensor on `device` will do; gradients flow through.
    """

    def __init__(self, image_shape: tuple[int, int, int], device: torch.device | str = "cpu") -> None:
        channels, height, width = image_shape
        self.channels = channels * (1 + 2 * _ANGLES + _ANGLES**2)
        self._halved = tuple(_halvings(side // 4) for side in (height, width))
        places = math.prod(math.ceil(side // 4 / (1 << halved)) for side, halved in
                           zip((height, width), self._halved, strict=True))  # fmt: skip
        self.size = self.channels * places
        # On the halved maps of the fine scale the fine filters are those of the coarse one.
        self._fine, self._coarse = (_bank(side, scale).to(device) for side, scale in ((_FINE, 0), (_COARSE, 1)))
        self._blur = _gaussian(_COARSE, 1.6)[None, None].to(device)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Returns features [N, size] of images [N, C, H, W] in [0, 1], of norm size^0.5 less what faint maps lack."""
        maps = self._maps(images)
        return functional.group_norm(maps, self.channels // _GROUP).flatten(1)

    def _maps(self, images: torch.Tensor) -> torch.Tensor:
        flat = images.flatten(0, 1)[:, None]
        blurred = functional.conv2d(flat, self._blur, stride=4, padding=_COARSE // 2)
        fine = functional.avg_pool2d(wave_moduli(flat, self._fine, 1, _LEAST), 2)
        coarse = wave_moduli(flat, self._coarse, 2, _LEAST)
        second = wave_moduli(fine.flatten(0, 1)[:, None], self._fine, 1, _LEAST)
        second = second.view(len(flat), _ANGLES**2, *fine.shape[2:])
        moduli = functional.avg_pool2d(torch.cat([fine, coarse, second], dim=1), 2)
        maps = torch.cat([blurred, moduli], dim=1).view(len(images), self.channels, *blurred.shape[2:])
        if any(self._halved):
            maps = functional.avg_pool2d(maps, tuple(1 << halved for halved in self._halved), ceil_mode=True)
        return maps


def unit(features: torch.Tensor) -> torch.Tensor:
    """Returns features [N, D] scaled to norm 1, or shorter where an image has nearly none of them."""
    return features / torch.linalg.vector_norm(features, dim=1, keepdim=True).clamp_min(1.0)


def _halvings(places: int) -> int:
    """Returns how often a side of so many places must be halved."""
    return max(0, math.ceil(math.log2(places / _PLACES)))


def _bank(side: int, scale: int) -> torch.Tensor:
    """Returns wavelets of one scale in all directions, [2 * angles, 1, side, side]: real parts, then imaginary ones."""
    waves = torch.stack([_morlet(side, scale, math.pi * angle / _ANGLES) for angle in range(_ANGLES)])
    return torch.cat([waves.real, waves.imag])[:, None].float()


def _morlet(side: int, scale: int, angle: float) -> torch.Tensor:
    """Returns a Morlet wavelet of mean 0, complex [side, side], twice as long across its direction as along it."""
    width, frequency, slant = 0.8 * 2**scale, 0.75 * math.pi / 2**scale, 4 / _ANGLES
    rows, columns = _places(side)
    along = columns * math.cos(angle) + rows * math.sin(angle)
    across = rows * math.cos(angle) - columns * math.sin(angle)
    envelope = torch.exp(-(along.square() + (slant * across).square()) / (2 * width**2))
    wave = torch.polar(envelope, frequency * along)
    wave = wave - envelope * (wave.sum() / envelope.sum())
    return wave * (slant / (2 * math.pi * width**2))


def _gaussian(side: int, width: float) -> torch.Tensor:
    rows, columns = _places(side)
    weights = torch.exp(-(rows.square() + columns.square()) / (2 * width**2))
    return (weights / weights.sum()).float()


def _places(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    places = torch.arange(side, dtype=torch.float64) - side // 2
    return torch.meshgrid(places, places, indexing="ij")
