"""What every loader returns, and how it is written: train.npz, test.npz, then card.json."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from workflow.common.contracts import LabelledImages
from workflow.common.errors import UserError
from workflow.common.files import write_json, write_npz
from workflow.common.seeds import numpy_stream
from workflow.datasets import closed

# One name for all own sets: what a set is called, or its size, moves no picture between the splits.
OWN_DRAW = "own"


@dataclass(frozen=True)
class Dataset:
    """Both splits (uint8 [N, C, H, W], int64 [N] in 0..len(class_names)-1) and where they came from.

    `files` maps each raw file to its SHA-256 (of the decompressed content for IDX); `details` goes into the card.
    """

    name: str
    train: LabelledImages
    test: LabelledImages
    class_names: tuple[str, ...]
    source: str
    files: dict[str, str]
    details: dict[str, Any] = field(default_factory=dict)


def labelled(images: np.ndarray, labels: np.ndarray) -> LabelledImages:
    """Returns contiguous uint8 images and int64 labels; images [N, H, W] get a channel axis."""
    images = images[:, None] if images.ndim == 3 else images
    return LabelledImages(np.ascontiguousarray(images, np.uint8), labels.astype(np.int64))


def stratified(data: LabelledImages, name: str, fraction: float = 0.2) -> tuple[LabelledImages, LabelledImages]:
    """Returns (train, test) with `fraction` of each class, at least one image, in test; order is kept.

    The draw depends only on `name`, so the split is the same everywhere. Raises UserError if a class has one image.
    """
    chosen = drawn(data.labels, name, fraction)
    return data.take(np.flatnonzero(~chosen)), data.take(np.flatnonzero(chosen))


def drawn(labels: np.ndarray, name: str, fraction: float, seed: int = 0) -> np.ndarray:
    """Returns bool [N]: which records of int64 labels [N] are set apart as test split.

    `fraction` of each class, at least one record, and at least one is left. Depends on nothing but the arguments.
    Raises UserError if a class has one record.
    """
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise UserError(f"{name}: class {label} has one image; each class needs at least 2 for train and test")
        shuffled = numpy_stream(seed, "datasets", name, "split", int(label)).permutation(members)
        chosen[shuffled[: min(len(members) - 1, max(1, round(fraction * len(members))))]] = True
    return chosen


def _describe(split: LabelledImages, classes: int) -> dict[str, Any]:
    return {
        "count": len(split),
        "per_class": np.bincount(split.labels, minlength=classes).tolist(),
        "sha256": split.digest(),
    }


def card(dataset: Dataset) -> dict[str, Any]:
    """Returns the card: shape, classes, counts per class, source and hashes.

    A split's `sha256` is LabelledImages.digest.
    """
    classes = len(dataset.class_names)
    return {
        "dataset": dataset.name,
        "image_shape": list(dataset.train.image_shape),
        "num_classes": classes,
        "class_names": list(dataset.class_names),
        "splits": {"train": _describe(dataset.train, classes), "test": _describe(dataset.test, classes)},
        "source": dataset.source,
        "files": dataset.files,
        **dataset.details,
    }


def save(dataset: Dataset, out: Path, private: bool = False) -> None:
    """Writes the two splits and, last, the card, each atomically: a card means that the data are complete.

    A card of earlier data goes first, so that it never stands beside other splits. What is `private` is closed to other
    users; a line on stderr says where it cannot be.
    """
    mode = 0o600 if private else 0o666
    if private:
        closed.close(out)
    with contextlib.suppress(OSError):  # What cannot be removed cannot be written either, and is reported there.
        (out / "card.json").unlink()
    for name, split in (("train", dataset.train), ("test", dataset.test)):
        write_npz(out / f"{name}.npz", mode, images=split.images, labels=split.labels)
    write_json(out / "card.json", card(dataset), mode)
    if private:
        closed.say_if_open(out)
