"""Samples that were made elsewhere, an npz or a folder of pictures, checked against the real set they imitate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workflow.common.class_names import in_order, safe_name
from workflow.common.contracts import LabelledImages
from workflow.common.errors import UserError, short, shown, unknown
from workflow.common.own_set import OwnSet
from workflow.common.readers.npz_file import read_npz

# With fewer of a class no classifier can hold any out, and no score means anything.
LEAST_PER_CLASS = 10
_LARGEST_SHOWN = 5  # classes named in an error


@dataclass(frozen=True)
class Wanted:
    """What samples must be: of the shape (C, H, W) and the classes of a real set called `name`."""

    name: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]

    @classmethod
    def from_card(cls, card: Mapping[str, Any], path: object) -> Wanted:
        """Returns what a card.json asks for. Raises UserError where it says no shape or classes."""
        try:
            shape, names = tuple(map(int, card["image_shape"])), tuple(map(str, card["class_names"]))
            name = str(card["dataset"])
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{path} has no dataset, image_shape and class_names; make the data again") from None
        if len(shape) != 3:
            raise UserError(f"{path}: image_shape must be [C, H, W], got {list(shape)}; make the data again")
        return cls(name, shape, names)


def read_samples(path: Path, wanted: Wanted) -> LabelledImages:
    """Returns the samples of an npz (`images`, `labels`) or of a folder with a sub-folder of pictures per class.

    Images may be uint8 or floats in 0 .. 1, [N, C, H, W], [N, H, W] or [N, H, W, C]; labels whole numbers [N] or
    [N, 1]. Folders are named as the classes, or 0 .. classes - 1. Nothing is resized.

    Raises:
        UserError: it is missing, damaged or the folder of a run, of another size or other channels than `wanted`, holds
            NaN, a label out of range, or fewer than 10 images of a class.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(f"no such file or folder: {path}; samples are an .npz of images and labels, or a folder")
    # The pictures that it lacks would be missed in private/, with the advice to remove that: its ledger.
    if (path / "run.json").is_file() or (path / "plan.json").is_file():
        whole = path / "samples.npz"
        mend = f"give {whole}" if whole.is_file() else f"join its samples: dpbench join {path} --out samples.npz"
        raise UserError(f"{path} is the folder of a run, and holds no pictures of its own; {mend}")
    found = _of_folder(path, wanted) if path.is_dir() else _of_npz(path, wanted)
    _check_classes(path, found.labels, wanted)
    return found


def _of_npz(path: Path, wanted: Wanted) -> LabelledImages:
    problem, mend = "is no npz of `images` and `labels`", "save both into one .npz"
    arrays = read_npz(path, ("images", "labels"), problem, mend)
    labels = whole_labels(arrays["labels"], f"{path}: labels")
    images = as_bytes(arrays["images"], f"{path}: images", wanted.image_shape)
    if images.shape[1:] != wanted.image_shape:
        raise _misfit(f"{path} has images of", images.shape[1:], wanted)
    if len(images) != len(labels):
        raise UserError(f"{path} has {len(images)} images and {len(labels)} labels; give one label an image")
    return LabelledImages(images, labels)


def as_bytes(images: np.ndarray, where: str, like: tuple[int, int, int] | None = None) -> np.ndarray:
    """Returns images as uint8 [N, C, H, W]; `like` settles which axis holds the channels where both could.

    Raises UserError for another number of axes, another type, NaN, or floats outside 0 .. 1.
    """
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4:
        raise UserError(f"{where} must be [N, C, H, W], [N, H, W] or [N, H, W, C]; got {list(images.shape)}")
    if images.shape[1:] != like and images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.shape[1] not in (1, 3):
        raise UserError(f"{where} must have 1 channel (grey) or 3 (RGB), got {images.shape[1]} in {list(images.shape)}")
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if images.dtype.kind != "f":
        raise UserError(f"{where} must be uint8, or floats in 0 .. 1; got {images.dtype}")
    if not np.isfinite(images).all():
        bad = int(np.flatnonzero(~np.isfinite(images.reshape(len(images), -1)).all(axis=1))[0])
        raise UserError(f"{where}: number {bad} holds NaN or an infinity; what made it has diverged: leave it out")
    low, high = (float(end) for end in (images.min(initial=0), images.max(initial=0)))
    if low < 0 or high > 1:
        raise UserError(f"{where} are floats in {low:g} .. {high:g}; scale them to 0 .. 1, or save uint8 in 0 .. 255")
    return np.ascontiguousarray(np.rint(images * 255).astype(np.uint8))


def whole_labels(labels: np.ndarray, where: str) -> np.ndarray:
    """Returns labels as int64 [N]. Raises UserError for another shape, or what is no whole number."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise UserError(f"{where} must be [N], one number an image; got {list(labels.shape)} (of one-hot rows: argmax)")
    numbers = labels.astype(np.float64) if labels.dtype.kind in "iufb" else np.array([np.nan])
    if not (np.isfinite(numbers) & (numbers == np.rint(numbers)) & (np.abs(numbers) < 2**53)).all():
        raise UserError(f"{where} must be whole numbers, got {labels.dtype} with others among them")
    return numbers.astype(np.int64)


def _of_folder(path: Path, wanted: Wanted) -> LabelledImages:
    # Imported late, as all loaders: Pillow is for those alone who have pictures.
    from workflow.datasets import pictures
    from workflow.datasets.class_lists import listings
    from workflow.datasets.look import Look

    listing, _ = listings(OwnSet(folder=str(path)))
    number = _numbers(path, in_order(listing.classes), wanted.class_names)
    channels, height, width = wanted.image_shape
    files = listing.paths()
    facts = pictures.probe(files, "heads of the samples")
    for file, (wide, high) in zip(files, facts.sides.tolist(), strict=True):
        if (high, wide) != (height, width):
            raise _misfit(f"{file} is a picture of", (channels, high, wide), wanted)
    if facts.all_grey != (channels == 1):
        raise _misfit(f"{path} holds pictures of", (1 if facts.all_grey else 3, height, width), wanted)
    if height != width:
        raise UserError(f"{path}: folders are read for square images alone; give an .npz of images {height}x{width}")
    look = Look(height, channels == 1, "crop", None, (255, 255, 255))
    images, _ = pictures.decode(files, look, "samples")
    return LabelledImages(images, np.array([number[name] for name in listing.classes], np.int64))


def _numbers(path: Path, found: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """Returns the label of each folder: named as a class, as a release writes it, or as the label itself."""
    for known in (names, [safe_name(name) for name in names], [str(label) for label in range(len(names))]):
        if set(found) <= set(known):
            return {name: known.index(name) for name in found}
    wrong = next(name for name in found if name not in names)
    raise unknown("class", wrong, names, "or name the folders 0, 1, 2 ... in that order", where=f"in {path}")


def _misfit(what: str, shape: Sequence[int], wanted: Wanted) -> UserError:
    mine, theirs = (f"{high}x{wide} {'grey' if c == 1 else 'RGB'}" for c, high, wide in (shape, wanted.image_shape))
    mend = "resize" if shape[0] == wanted.image_shape[0] else "convert"
    return UserError(f"{what} {mine}, {wanted.name} has {theirs}; {mend} them, or name the set that they imitate")


def _check_classes(path: Path, labels: np.ndarray, wanted: Wanted) -> None:
    classes = len(wanted.class_names)
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise UserError(f"{path} has the label {outside[0]}; labels of {wanted.name} are 0 .. {classes - 1}: mend it")
    counts = np.bincount(labels, minlength=classes)
    if len(few := np.flatnonzero(counts < LEAST_PER_CLASS)):
        which = short(", ".join(f"{shown(wanted.class_names[k])} has {counts[k]}" for k in few[:_LARGEST_SHOWN]))
        raise UserError(
            f"{path} has too few images: class {which}{', ...' * (len(few) > _LARGEST_SHOWN)}; at least"
            f" {LEAST_PER_CLASS} of each of the {classes} classes of {wanted.name} are needed: draw more"
        )
