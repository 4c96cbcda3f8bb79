"""A run's images as one picture, so that a page can hold them: the first of each class, never picked."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from workflow.common.contracts import LabelledImages

PER_CLASS = (10, 5, 2, 1)  # images of each class, until all pictures fit
LARGEST = 64  # pixels: wider images are shown smaller


@dataclass(frozen=True)
class Sheet:
    """A picture of images, a row for each class: PNG bytes, its size in pixels, and how many rows and columns."""

    png: bytes
    width: int
    height: int
    classes: int
    per_class: int

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def sheet(data: LabelledImages, per_class: int) -> Sheet:
    """Returns the first `per_class` images of each class, a row a class, on white with a line between them.

    A class that has fewer leaves white places. Images uint8 [N, C, H, W], C 1 or 3.
    """
    classes = 1 + int(data.labels.max(initial=0))
    step = max(1, -(-max(data.images.shape[2:]) // LARGEST))
    images = data.images[:, :, ::step, ::step]
    channels, height, width = images.shape[1:]
    canvas = np.full((classes * (height + 1), per_class * (width + 1), channels), 255, np.uint8)
    for label in range(classes):
        for column, index in enumerate(np.flatnonzero(data.labels == label)[:per_class]):
            y, x = label * (height + 1), column * (width + 1)
            canvas[y : y + height, x : x + width] = images[index].transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(canvas[..., 0] if channels == 1 else canvas).save(file, "PNG", optimize=True)
    return Sheet(file.getvalue(), canvas.shape[1], canvas.shape[0], classes, per_class)


def sheets(samples: Sequence[LabelledImages], most: int) -> list[Sheet | None]:
    """Returns a sheet for each set, all with as many images of each class as `most` bytes of text allow in all.

    None for every set where not even one image of each class fits.
    """
    for per_class in PER_CLASS:
        drawn, left = [], most
        for data in samples:
            drawn.append(sheet(data, per_class))
            left -= len(drawn[-1].png) * 4 // 3
            if left < 0:
                break
        else:
            return drawn
    return [None] * len(samples)
