"""The user's own images: one sub-folder per class, all of one size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from workflow.common.contracts import LabelledImages
from workflow.common.errors import UserError
from workflow.datasets.store import Dataset, stratified

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp"}


def load(sources: Iterable[str | Path]) -> Dataset:
    """Returns the images of the one given folder, in their own size; one in five of each class is test.

    Classes are the sub-folders in alphabetical order. Grey images stay one channel if all are grey, else all
    become RGB. Raises UserError for a wrong folder, a class with under two images, a broken image or mixed sizes.
    """
    folders = [Path(source) for source in sources]
    if len(folders) != 1 or not folders[0].is_dir():
        raise UserError(f"image_folder needs one existing folder as --source, got {[str(f) for f in folders]}")
    classes = sorted(path for path in folders[0].iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        raise UserError(f"{folders[0]} needs one sub-folder per class, at least 2; it has {len(classes)}")
    paths = [(path, label) for label, folder in enumerate(classes) for path in _images(folder)]
    images = _decode([path for path, _ in paths])
    data = LabelledImages(images, np.array([label for _, label in paths], np.int64))
    train, test = stratified(data, "image_folder")
    listing = hashlib.sha256()
    for path, _ in paths:
        listing.update(hashlib.sha256(path.read_bytes()).digest())
    names = tuple(folder.name for folder in classes)
    return Dataset("image_folder", train, test, names, f"folder {folders[0].name}", {"all images": listing.hexdigest()})


def _images(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise UserError(f"{folder} holds no image ({', '.join(sorted(SUFFIXES))})")
    return paths


def _decode(paths: list[Path]) -> np.ndarray:
    from PIL import Image

    modes, arrays = set(), []
    for path in tqdm(paths, desc="image_folder", unit="image", disable=None):
        try:
            with Image.open(path) as image:
                modes.add("L" if image.mode in ("1", "L") else "RGB")
                arrays.append(np.asarray(image.convert("RGB")))
        except OSError as error:
            raise UserError(f"{path} is not a readable image: {error}") from None
        if arrays[-1].shape != arrays[0].shape:
            size, first = arrays[-1].shape[:2], arrays[0].shape[:2]
            raise UserError(f"{path} is {size[0]}x{size[1]} but {paths[0]} is {first[0]}x{first[1]}; use one size")
    channels = 1 if modes == {"L"} else 3
    return np.ascontiguousarray(np.stack(arrays).transpose(0, 3, 1, 2)[:, :channels])
