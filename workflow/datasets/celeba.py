"""CelebA's aligned faces at 3x32x32, labelled by the attribute Male."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from workflow.common.contracts import LabelledImages
from workflow.common.errors import UserError, shown, unknown
from workflow.common.files import sha256
from workflow.common.readers.guard import read_bytes, read_text, reading, reason
from workflow.common.readers.zip_file import check_directory, leaves, read_member
from workflow.datasets import downloads
from workflow.datasets.sources import CELEBA_SIZES, ENVIRONMENT, celeba_folders, celeba_problem
from workflow.datasets.store import Dataset

if TYPE_CHECKING:
    from PIL import Image

SIDE = 32
ATTRIBUTE = "Male"
FETCH = "fetch CelebA's own file again"
MOST_BYTES, MOST_PIXELS = 1 << 26, 4_000_000  # of one image; CelebA's have about 7,000 and 38,804
PARTITIONS = {"train": "0", "valid": "1", "test": "2"}
_REQUIRED = "img_align_celeba.zip (or the folder img_align_celeba), list_attr_celeba.txt and list_eval_partition.txt"


def load(name: str, sources: Iterable[str | Path], cache: Path, test_split: str = "test") -> Dataset:
    """Returns `celeba` or `celeba10k`: faces resized to 32x32 (bilinear with antialiasing, no crop), female 0, male 1.

    Args:
        test_split: the partition that serves as test: "test", or "valid" as in DP-GAN-DPAC's released evaluation.

    Raises UserError if no folder holds the files, one of them is missing or broken, or the count is not the name's.
    """
    if test_split not in ("test", "valid"):
        raise unknown("test split", test_split, ("test", "valid"))
    folder, source = _find(name, list(sources), cache)
    labels = read_attribute(folder / "list_attr_celeba.txt", ATTRIBUTE)
    partition = read_partition(folder / "list_eval_partition.txt")
    if labels.keys() != partition.keys() or len(labels) != CELEBA_SIZES[name]:
        raise UserError(
            f"{folder}: list_attr_celeba.txt lists {len(labels)} images and list_eval_partition.txt {len(partition)}; "
            f"{name} needs the same {CELEBA_SIZES[name]} in both"
        )
    splits = {}
    with opener(folder) as read:
        for split in ("train", test_split):
            names = sorted(image for image, part in partition.items() if part == PARTITIONS[split])
            if not names:
                raise UserError(f"{folder}/list_eval_partition.txt puts no image into {split!r}")
            images = decode(names, read, f"{name} {split}")
            splits[split] = LabelledImages(images, np.array([labels[image] for image in names], np.int64))
    files = {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.is_file() and _hashed(path.name)}
    details = {"test_split": test_split, "label": ATTRIBUTE}
    return Dataset(name, splits["train"], splits[test_split], ("female", "male"), source, files, details)


def _hashed(name: str) -> bool:
    return name in ("img_align_celeba.zip", "list_attr_celeba.txt", "list_eval_partition.txt")


def _find(name: str, sources: list[str | Path], cache: Path) -> tuple[Path, str]:
    problems = []
    for folder in celeba_folders(name, sources):
        problem = celeba_problem(name, folder)
        if problem is None:
            return folder, f"folder {folder.name}"
        problems.append(problem)
    if problems:
        raise UserError(f"{name}: {'; '.join(problems)}")
    reason = "no folder with CelebA's files was given"
    if name == "celeba":
        try:
            return downloads.cached(cache / "celeba", downloads.torchvision_celeba), "torchvision's downloader"
        except downloads.Unavailable as error:
            reason += f"; torchvision's downloader: {error}"
    raise UserError(
        f"{name}: {reason}. Put {_REQUIRED} into one folder and give it as --source, in data_sources, "
        f"or in ${ENVIRONMENT}"
    )


def _lines(path: Path) -> list[list[str]]:
    text = read_text(path, "is not a text file", FETCH)
    return [line.split() for line in text.splitlines() if line.strip()]


def _names(path: Path, rows: list[list[str]]) -> None:
    """Raises UserError for an image that stands twice or is no plain file name: it would be read from elsewhere."""
    names = [row[0] for row in rows]
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise UserError(f"{path} is damaged: image {shown(twice)} stands twice; {FETCH}")
    for name in names:
        if leaves(name) or "/" in name or "\\" in name or not name.isprintable():
            raise UserError(f"{path} is damaged: {shown(name)} is no name of an image; {FETCH}")


def read_attribute(path: Path, attribute: str) -> dict[str, int]:
    """Returns image name -> 0 or 1 for one attribute of CelebA's attribute file (count, names, then -1/1 per image).

    Raises UserError if the attribute is unknown, or the file has fewer rows or columns than it announces.
    """
    lines = _lines(path)
    if len(lines) < 2 or attribute not in lines[1]:
        raise UserError(f"{path} has no attribute {attribute!r} on its second line; fetch CelebA's own file again")
    count, names, rows = lines[0][0], lines[1], lines[2:]
    column = names.index(attribute) + 1
    broken = next((row for row in rows if len(row) != len(names) + 1 or row[column] not in ("-1", "1")), None)
    if broken is not None or str(len(rows)) != count:
        where = f"row {broken[0]!r} is broken" if broken else f"{len(rows)} rows where {count} are announced"
        raise UserError(f"{path} is damaged or truncated: {where}; fetch it again")
    _names(path, rows)
    return {row[0]: int(row[column] == "1") for row in rows}


def read_partition(path: Path) -> dict[str, str]:
    """Returns image name -> "0" (train), "1" (valid) or "2" (test). Raises UserError naming a broken row."""
    rows = _lines(path)
    broken = next((row for row in rows if len(row) != 2 or row[1] not in PARTITIONS.values()), None)
    if broken is not None:
        raise UserError(f"{path} is damaged: row {' '.join(broken)!r} is not an image and 0, 1 or 2; fetch it again")
    _names(path, rows)
    return dict(rows)


@contextmanager
def opener(folder: Path) -> Iterator[Callable[[str], bytes]]:
    """Yields a function that returns the bytes of an image, from the unpacked folder or else from the zip."""
    unpacked = folder / "img_align_celeba"
    if unpacked.is_dir():
        yield lambda name: read_bytes(unpacked / name, "cannot be read", FETCH, MOST_BYTES)
        return
    path = folder / "img_align_celeba.zip"
    with reading(path, "is truncated or damaged", "fetch it again"), zipfile.ZipFile(path) as archive:
        check_directory(archive)
        yield lambda name: read_member(archive, f"img_align_celeba/{name}", MOST_BYTES)


def decode(names: list[str], read: Callable[[str], bytes], title: str) -> np.ndarray:
    """Returns uint8 [N, 3, 32, 32] of the named JPEGs. Raises UserError naming one that is missing or broken."""
    from PIL import Image

    images = np.empty((len(names), 3, SIDE, SIDE), np.uint8)
    for row, name in enumerate(tqdm(names, desc=title, unit="image", disable=None)):
        small = read_face(name, read, title).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        images[row] = np.asarray(small).transpose(2, 0, 1)
    return images


def read_face(name: str, read: Callable[[str], bytes], title: str) -> Image.Image:
    """Returns one face in RGB at its own size. Raises UserError, which `title` begins, if it is missing or broken."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(read(name)), formats=("JPEG", "PNG")) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"it has {image.width}x{image.height} pixels; CelebA's have 178x218")
            return image.convert("RGB")
    except Exception as error:
        raise UserError(f"{title}: image {name} is missing or damaged: {reason(error)}; fetch it again") from None
