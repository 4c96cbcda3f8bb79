"""Features of images that are computed once, however often the images come."""

from __future__ import annotations

from collections.abc import Callable

import torch

from methods.core.speed.choices import CHOICES
from methods.core.speed.transfers import sent

# Images at once: what is made of so many stays in a processor's cache.
_AT_ONCE = 64
# On a GPU, always: its libraries may choose kernels by the number of images, and how many of a Poisson batch there are
# would then move the last digits of each one's values.
_ON_A_GPU = 512
_MOST_BYTES = 2**30


class Remembered:
    """A fixed function of one image at a time, whose values are kept in memory, in half precision, by the image itself.

    Nothing else tells whether an image came before, so a value is the same either way, and says nothing of other
    images. Values beyond a gigabyte are not kept; on an accelerator none are, since there they take no time.

    Args:
        function: of images [N, C, H, W] in [0, 1], on `device`, to [N, size].
        most: images that may come at all.
    """

    def __init__(
        self, function: Callable[[torch.Tensor], torch.Tensor], size: int, most: int, device: torch.device
    ) -> None:
        self._function, self._device = function, device
        keeps = CHOICES.remembered_features and device.type == "cpu"
        self._at_once = _AT_ONCE if device.type == "cpu" else _ON_A_GPU
        # Memory that is not written to is not taken.
        self._values = torch.empty(min(most, _MOST_BYTES // (2 * size)) if keeps else 0, size, dtype=torch.float16)
        self._places: dict[bytes, int] = {}

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Returns values float32 [N, size], rounded to half precision, of images uint8 [N, C, H, W] on the CPU."""
        if not len(self._values):
            return torch.cat([self._made(part) for part in images.split(self._at_once)]).float()
        names = [bytes(image) for image in images.flatten(1).numpy()]
        places = torch.tensor([self._places.get(name, -1) for name in names], dtype=torch.int64)
        found = torch.empty(len(images), self._values.shape[1], dtype=torch.float16)
        known, new = (places >= 0).nonzero()[:, 0], (places < 0).nonzero()[:, 0]
        found[known] = self._values[places[known]] if len(known) else found[known]
        for part in new.split(_AT_ONCE):
            found[part] = self._made(images[part])
        self._keep({names[index]: index for index in new.tolist()}, found)
        return found.float()

    def _made(self, images: torch.Tensor) -> torch.Tensor:
        count = len(images)
        if self._device.type != "cpu":
            images = torch.cat([images, images.new_zeros(_ON_A_GPU - count, *images.shape[1:])])
        return self._function(sent(images, self._device).float() / 255)[:count].half()

    def _keep(self, new: dict[bytes, int], found: torch.Tensor) -> None:
        room = len(self._values) - len(self._places)
        for name, index in list(new.items())[:room]:
            self._places[name] = len(self._places)
            self._values[self._places[name]] = found[index]
