"""One picture file of any common kind, through Pillow, into a square of the set's look."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from workflow.common.errors import UserError
from workflow.common.readers.guard import check_file
from workflow.datasets.chunks import in_chunks
from workflow.datasets.look import SMALLEST_SIDE, Look, check_finite, range_of_type, scaled

T = TypeVar("T")
# No format that starts another program (EPS starts Ghostscript), whatever a file is named.
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
MOST_PIXELS = 89_478_485  # Pillow's own limit, at which it warns of a decompression bomb
TAG_BITS, TAG_PHOTOMETRIC, TAG_SAMPLE_FORMAT = 258, 262, 339
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """Of many files, from their heads: sides [N, 2], whether all are grey, how many are deep, how many have frames.

    Deep pictures are those of 16 bits and more, or floats; of several frames or pages the first is read.
    """

    sides: np.ndarray
    all_grey: bool
    deep: int
    several_frames: int


def probe(paths: Sequence[str], title: str) -> Facts:
    """Returns the facts of the files, most of them undecoded.

    Raises UserError naming the first file that may not be read, is empty, no picture, broken, under 8 pixels on a
    side or above 89 million pixels.
    """
    Image.init()  # Here, before several threads would each do it.
    with _quiet():
        parts = list(in_chunks(len(paths), lambda part: [_guarded(path, _facts) for path in paths[part]], title))
    rows = [row for part in parts for row in part]
    sides = np.array([row[0] for row in rows], np.int64).reshape(-1, 2)
    greys, deep, frames = (sum(row[column] for row in rows) for column in (1, 2, 3))
    return Facts(sides, greys == len(rows), deep, frames)


def decode(paths: Sequence[str], look: Look, title: str, workers: int = 1) -> tuple[np.ndarray, float]:
    """Returns uint8 [N, C, size, size], and the share of 0..255 that the deep pictures' values span (0 without any).

    The same for any number of `workers`, which are threads.

    Raises UserError naming the first file that cannot be decoded, or whose values need a window.
    """
    images = np.empty((len(paths), look.channels, look.size, look.size), np.uint8)

    def work(part: slice) -> tuple[float, float]:
        low, high = 255.0, 0.0
        for row in range(part.start, part.stop):
            planes = _guarded(paths[row], lambda image, row=row: _planes(image, look, paths[row]))
            if planes[0].mode == "F":
                ends = [end for plane in planes for end in plane.getextrema()]
                low, high = min(low, *ends), max(high, *ends)
            images[row] = look.square(planes)
        return low, high

    with _quiet():
        spans = list(in_chunks(len(paths), work, title, workers))
    return images, max(0.0, max(high for _, high in spans) - min(low for low, _ in spans)) / 255


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences Pillow's warnings: what matters among them, too many pixels, is an error here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _guarded(path: str, action: Callable[[Image.Image], T]) -> T:
    check_file(path, "remove it or put a picture there")
    try:
        with open(path, "rb") as handle, _opened(handle, path) as image:
            return action(image)
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f"{path} is no picture, whatever its name says; remove it or put the picture there") from None
    except PermissionError:
        raise UserError(f"{path} may not be read; change its permissions or remove it") from None
    except Image.DecompressionBombError:
        raise UserError(f"{path} has more pixels than {MOST_PIXELS:,}; make it smaller or remove it") from None
    except Exception as error:
        # Pillow's decoders let through whatever a broken file makes them stumble over: OSError, SyntaxError,
        # ValueError, struct.error, EOFError, zlib.error, MemoryError, IndexError, KeyError and others.
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} is damaged or cut short ({reason}); replace it or remove it") from None


@contextmanager
def _opened(handle: BinaryIO, path: str) -> Iterator[Image.Image]:
    if os.fstat(handle.fileno()).st_size == 0:
        raise UserError(f"{path} is empty (0 bytes); replace it or remove it")
    with Image.open(handle, formats=FORMATS) as image:
        width, height = image.size
        if width * height > MOST_PIXELS:
            size = f"{width}x{height}, {width * height:,} pixels"
            raise UserError(f"{path} is {size}; at most {MOST_PIXELS:,} are read: make it smaller or remove it")
        if min(width, height) < SMALLEST_SIDE:
            least = f"at least {SMALLEST_SIDE} on each side are needed"
            raise UserError(f"{path} is {width}x{height} pixels; {least}: replace it or remove it")
        yield image


def _is_deep(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _facts(image: Image.Image) -> tuple[tuple[int, int], bool, bool, bool]:
    return image.size, _is_grey(image), _is_deep(image), bool(getattr(image, "is_animated", False))


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("P", "PA"):
        colours = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((colours == colours[:, :1]).all())
    if image.mode == "RGBA" and image.tile and str(image.tile[0].args).startswith("LA"):
        return True  # 16-bit grey with alpha, which Pillow opens as colour
    return image.mode in ("1", "L", "LA", "La") or _is_deep(image)


def _planes(image: Image.Image, look: Look, path: str) -> list[Image.Image]:
    """Returns one L or RGB image, or for deep pictures F images in 0..255, upright, without transparency."""
    if _is_deep(image):
        planes = _deep_planes(image, look, path)
    else:
        _refuse_lost_bits(image, look, path)
        _refuse_signed(image, path)
        # A JPEG can be decoded at an eighth of its size; three times the target is kept for the filter.
        scale = 3 * look.size / (min if look.fit == "crop" else max)(image.size)
        image.draft(None, tuple(int(scale * side) + 1 for side in image.size))
        planes = [_eight_bits(image, look)]
    turned = _orientation(image)
    return [plane.transpose(_TURNS[turned]) for plane in planes] if turned in _TURNS else planes


def _orientation(image: Image.Image) -> int:
    """Returns EXIF's orientation of a loaded picture; Pillow turns a TIFF by itself and takes the tag away."""
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def _refuse_lost_bits(image: Image.Image, look: Look, path: str) -> None:
    """Pillow reads the upper 8 of 16 bits in several channels: good as a picture, too little for these two."""
    asked = "window" if look.window else "its transparent colour" if "transparency" in image.info else ""
    if asked and any(";16" in str(tile.args) for tile in image.tile):
        raise UserError(
            f"{path} has 16 bits in several channels, so that {asked} cannot be applied; save it as 16-bit grey or "
            "with 8 bits a channel"
        )


def _refuse_signed(image: Image.Image, path: str) -> None:
    """Pillow reads signed bytes as if they had no sign, which turns dark into bright."""
    if _first(getattr(image, "tag_v2", {}).get(TAG_SAMPLE_FORMAT)) == 2:
        raise UserError(f"{path} holds signed 8-bit values; save it with 8 bits without sign, or with 16 bits")


def _eight_bits(image: Image.Image, look: Look) -> Image.Image:
    target = "L" if look.grey else "RGB"
    if image.mode == "LAB":
        image = image.convert("RGB")  # The one target that Pillow knows from there.
    if image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image
        below = Image.new("RGBA", image.size, (*look.background, 255))
        image = Image.alpha_composite(below, image.convert("RGBA")).convert("RGB")
    return image.convert(target)


def _deep_planes(image: Image.Image, look: Look, path: str) -> list[Image.Image]:
    tags = getattr(image, "tag_v2", {})
    bits, signed = _first(tags.get(TAG_BITS)), _first(tags.get(TAG_SAMPLE_FORMAT)) == 2
    largest = _largest_of_pgm(image)
    values = np.asarray(image)
    if largest:
        values = values * (largest / 65535)  # Pillow stretches a PGM to 16 bits
    if image.mode == "I" and bits == 32 and not signed:
        values = values.view(np.uint32)
    check_finite(values, path)
    window = look.window or ((0.0, float(largest)) if largest else _range(image, values, bits, signed, path))
    tones = scaled(values, window)
    if tags.get(TAG_PHOTOMETRIC) == 0:
        tones = 255 - tones
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return [Image.fromarray(tones)]
    levels = look.background_levels()
    return [Image.fromarray(np.where(values == clear, np.float32(level), tones)) for level in levels]


def _largest_of_pgm(image: Image.Image) -> int:
    """Returns the value of white in a PGM's head, or 0 for other files."""
    if image.format != "PPM" or image.mode != "I":
        return 0
    arguments = image.tile[0].args
    return arguments[-1] if isinstance(arguments, tuple) else 65535


def _range(image: Image.Image, values: np.ndarray, bits: int, signed: bool, path: str) -> tuple[float, float]:
    """Returns the range of the type in the file, which is not that of the array that Pillow makes of it."""
    if image.mode == "F":
        return range_of_type(values, path)
    if image.mode != "I":
        return 0.0, float(2 ** (bits or 16) - 1)
    if signed and bits == 16:
        return -32768.0, 32767.0
    return range_of_type(values, path)


def _first(value: tuple[int, ...] | int | None) -> int:
    return (value[0] if isinstance(value, tuple) else value) or 0
