"""A real set to score samples against, in any layout: a data folder, an npz of either layout, a folder of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workflow.common.contracts import LabelledImages, load_images
from workflow.common.errors import UserError
from workflow.common.files import read_object
from workflow.common.own_set import OwnSet
from workflow.common.readers.npz_file import npz_names, read_npz
from workflow.datasets.foreign_samples import Wanted, as_bytes, whole_labels
from workflow.datasets.store import OWN_DRAW, drawn

TEST_SHARE = 0.2


@dataclass(frozen=True)
class RealSet:
    """What samples must look like, and the two splits that they are scored against."""

    wanted: Wanted
    train: LabelledImages
    test: LabelledImages


def read_real(path: Path, test: Path | None = None) -> RealSet:
    """Returns the real set at `path`.

    It is a folder that `python -m workflow.datasets` made, an npz of `images` and `labels`, an npz in MedMNIST's
    layout, or a folder with a sub-folder of pictures per class. `test` is the test split of the second and the last;
    without it a fifth of each class is drawn, always the same.

    Raises UserError for what is none of these, is damaged, or brings a test split of its own where `test` is given.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(f"no such file or folder: {path}; give the real set that the samples imitate")
    if (path / "card.json").is_file():
        _refuse(test, path)
        wanted = Wanted.from_card(read_object(path / "card.json", "a data set card"), path / "card.json")
        return _checked(RealSet(wanted, *(load_images(path / f"{split}.npz") for split in ("train", "test"))), path)
    if path.is_dir():
        return _own(path, OwnSet(folder=str(path), test=str(test or "")))
    names = npz_names(path, "is no npz", "give an .npz or a folder")
    if "train_images" in names:
        _refuse(test, path)
        if path.suffix.lower() != ".npz":
            raise UserError(f"{path} is an npz under another name; call it {path.stem}.npz")
        return _own(path, OwnSet(folder=str(path)))
    return _of_npz(path, test)


def _refuse(test: Path | None, path: Path) -> None:
    if test is not None:
        raise UserError(f"{path} has a test split of its own; leave out --test")


def _own(path: Path, own: OwnSet) -> RealSet:
    from workflow.datasets import own as own_sets

    found = own_sets.load(path.stem, own)
    return RealSet(Wanted(path.stem, found.train.image_shape, found.class_names), found.train, found.test)


def _of_npz(path: Path, test: Path | None) -> RealSet:
    train = _arrays(path)
    # Before anything is made for each class.
    if len(train) and (most := train.labels.max()) >= len(train):
        why = f"label {most} among {len(train)} images; labels are 0 .. classes - 1, and no class is empty"
        raise UserError(f"{path} has the {why}: mend it")
    if test is None:
        if len(train) and (counts := np.bincount(train.labels))[counts > 0].min() < 2:
            raise UserError(f"{path}: class {_rarest(counts)} has one image; give --test, or more images")
        apart = drawn(train.labels, OWN_DRAW, TEST_SHARE)
        train, tested = train.take(np.flatnonzero(~apart)), train.take(np.flatnonzero(apart))
    else:
        tested = _arrays(test)
    classes = tuple(str(label) for label in range(1 + int(train.labels.max(initial=0))))
    return _checked(RealSet(Wanted(path.stem, train.image_shape, classes), train, tested), path)


def _arrays(path: Path) -> LabelledImages:
    arrays = read_npz(path, ("images", "labels"), "is no npz of `images` and `labels`, nor in MedMNIST's layout")
    images = as_bytes(arrays["images"], f"{path}: images")
    labels = whole_labels(arrays["labels"], f"{path}: labels")
    if len(images) != len(labels):
        raise UserError(f"{path} has {len(images)} images and {len(labels)} labels; give one label an image")
    if len(labels) and labels.min() < 0:
        raise UserError(f"{path} has the label {labels.min()}; labels are 0 .. classes - 1: mend it")
    return LabelledImages(images, labels)


def _rarest(counts: np.ndarray) -> int:
    return int(np.flatnonzero(counts == counts[counts > 0].min())[0])


def _checked(found: RealSet, path: Path) -> RealSet:
    classes = len(found.wanted.class_names)
    for name, split in (("train", found.train), ("test", found.test)):
        if split.image_shape != found.wanted.image_shape or not len(split):
            raise UserError(
                f"{path}: its {name} split has {len(split)} images {list(split.image_shape)}, expected"
                f" {list(found.wanted.image_shape)}; make it again"
            )
        if split.labels.max() >= classes:
            raise UserError(f"{path}: its {name} split has the label {split.labels.max()}, its classes are {classes}")
        lacking = np.flatnonzero(np.bincount(split.labels, minlength=classes) == 0)
        if name == "train" and (len(lacking) or classes < 2):
            what = f"no image of class {lacking[0]}" if len(lacking) else "one class alone"
            raise UserError(f"{path}: its train split has {what}; a real set has two classes or more, and none empty")
    return found
