"""What all pictures of a set are made into: square, of one size, grey or RGB, in 0..255."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageColor

from workflow.common.errors import UserError
from workflow.common.own_set import SIZES, OwnSet

SMALLEST_SIDE = 8
# 64 is never deduced from larger pictures: it costs four times 32, and not every method's networks take it.
DEDUCED_SIZES = (32, 28)


@dataclass(frozen=True)
class Look:
    """Side in pixels, whether grey, how another aspect becomes square, the window or None, the background in RGB."""

    size: int
    grey: bool
    fit: str
    window: tuple[float, float] | None
    background: tuple[int, int, int]
    deduced: tuple[str, ...] = ()

    @classmethod
    def decide(cls, own: OwnSet, sides: np.ndarray, all_grey: bool, deep: bool) -> Look:
        """Returns the look that `own` states, with size and mode deduced where they are left open.

        Size: what all pictures have already, if that is 28x28, 32x32 or 64x64; else 32 if at least half of them have
        a short side of 32 or more; else 28. Mode: grey if every picture's own mode is grey and so is the background.

        Args:
            sides: widths and heights [N, 2] in pixels.
            all_grey: whether every picture's own mode is a grey one.
            deep: whether any has 16 bits, other integers or floats.

        Raises UserError for an unknown colour, or a window that would apply to no picture.
        """
        if own.window and not deep:
            deep_only = "is for 16-bit, integer and float pictures"
            raise UserError(f"window {own.window} {deep_only}; {own.folder} has none: leave window out")
        colour = background(own.background)
        grey = own.mode == "grey" or (own.mode == "auto" and all_grey and len(set(colour)) == 1)
        deduced = (*(["size"] if own.size == 0 else []), *(["mode"] if own.mode == "auto" else []))
        size = own.size or _deduced_size(sides)
        return cls(size, grey, own.fit, own.window_values, colour, deduced)

    @property
    def channels(self) -> int:
        return 1 if self.grey else 3

    def card(self, own: OwnSet, test_split: str, deep_span: float) -> dict[str, Any]:
        """Returns what card.json says about the making of the pictures.

        `test_split` says where it came from, empty if it was drawn, which `test_drawn` tells programs: which pictures
        are in it then follows from how many each class has. `deep_span` is the share of grey levels that deep pictures
        use.
        """
        fraction = f"{own.test_fraction:g} of each class, drawn with seed {own.split_seed}"
        return {
            "size": self.size,
            "mode": "grey" if self.grey else "rgb",
            "deduced": list(self.deduced),
            "fit": self.fit,
            "background": "#{:02x}{:02x}{:02x}".format(*self.background),
            "window": list(self.window) if self.window else None,
            "deep_span": round(deep_span, 4),
            "test_split": test_split or fraction,
            "test_drawn": not test_split,
            "public": own.public,
        }

    def background_levels(self) -> tuple[int, ...]:
        """Returns the background in the look's own channels."""
        red, green, blue = self.background
        return (round(0.299 * red + 0.587 * green + 0.114 * blue),) if self.grey else self.background

    def square(self, planes: list[Image.Image]) -> np.ndarray:
        """Returns uint8 [C, size, size] of one picture, given as one L or RGB image, or as F images in 0..255.

        Lanczos with antialiasing; float planes are rounded once, after it. Cropped at the centre or padded.
        """
        parts = [self._resized(plane) for plane in planes]
        small = np.concatenate([part[:, :, None] if part.ndim == 2 else part for part in parts], axis=2)
        if self.fit == "crop":
            return np.broadcast_to(small.transpose(2, 0, 1), (self.channels, self.size, self.size))
        canvas = np.empty((self.size, self.size, self.channels), np.uint8)
        canvas[:] = self.background_levels()
        top, left = ((self.size - side) // 2 for side in small.shape[:2])
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
        return canvas.transpose(2, 0, 1)

    def _resized(self, plane: Image.Image) -> np.ndarray:
        width, height = plane.size
        if self.fit == "crop":
            side = min(width, height)
            left, top = (width - side) // 2, (height - side) // 2
            box, target = (left, top, left + side, top + side), (self.size, self.size)
        else:
            scale = self.size / max(width, height)
            box, target = (0, 0, width, height), tuple(max(1, round(scale * side)) for side in (width, height))
        small = np.asarray(plane.resize(target, Image.Resampling.LANCZOS, box=box, reducing_gap=3.0))
        return small if small.dtype == np.uint8 else np.rint(small).clip(0, 255).astype(np.uint8)


def _deduced_size(sides: np.ndarray) -> int:
    if len(own := set(np.unique(sides).tolist())) == 1 and own <= set(SIZES):
        return own.pop()
    median = np.median(sides.min(axis=1))
    return next((size for size in DEDUCED_SIZES if size <= median), min(SIZES))


def background(name: str) -> tuple[int, int, int]:
    """Returns red, green and blue of a colour's name or #rrggbb. Raises UserError for a name that is none."""
    try:
        return ImageColor.getrgb(name)[:3]
    except ValueError:
        raise UserError(f"background {name!r} is no colour; use #rrggbb or a name such as white, black, grey") from None


def scaled(values: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Returns float32 in 0..255: the window's ends become 0 and 255, what lies outside is cut off."""
    low, high = window
    return ((values.astype(np.float64) - low) * (255 / (high - low))).clip(0, 255).astype(np.float32)


def range_of_type(values: np.ndarray, where: str) -> tuple[float, float]:
    """Returns the values that become black and white where no window is stated, for finite `values`.

    Those of the type for bool and integers up to 16 bits; 0 and 1 for floats that lie between them. Raises UserError
    for other floats and wider integers: they say nothing about what is black and white.
    """
    kind, low, high = values.dtype.kind, float(values.min()), float(values.max())
    if kind == "b" or (kind == "f" and low >= 0 and high <= 1):
        return 0.0, 1.0
    if kind in "iu" and values.dtype.itemsize <= 2:
        return float(np.iinfo(values.dtype).min), float(np.iinfo(values.dtype).max)
    what = "floats outside 0..1" if kind == "f" else f"{values.dtype} integers"
    raise UserError(f"{where} holds {what} ({low:g} to {high:g}); state window: LOW,HIGH, what is black and white")


def check_finite(values: np.ndarray, where: str) -> None:
    """Raises UserError if a float among `values` is NaN or infinite."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError(f"{where} holds NaN or infinity; replace them with numbers or remove that picture")
