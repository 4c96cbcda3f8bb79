"""Where raw files may lie, and the cheap answer to whether a data set can be had."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from workflow.common.errors import UserError, unknown

NAMES = (
    "celeba", "celeba10k", "digits", "fashion_mnist", "fashion_mnist_val", "image_folder", "mnist", "mnist_val",
)  # fmt: skip
CELEBA_SIZES = {"celeba": 202_599, "celeba10k": 10_000}
ENVIRONMENT = "DPAC_BENCH_DATA"


def check_name(name: str) -> str:
    """Returns `name`. Raises UserError listing the valid names if there is no such data set."""
    if name not in NAMES:
        raise unknown("dataset", name, NAMES, hint="for pictures of your own give --folder")
    return name


def folders(given: Iterable[str | Path]) -> list[Path]:
    """Returns the folders to search: the given ones, then those of $DPAC_BENCH_DATA (separated as in $PATH).

    Raises UserError if a given folder does not exist: a misspelt path must not fall through to a download.
    """
    folders = [Path(os.path.expanduser(folder)) for folder in given]
    folders += [Path(os.path.expanduser(part)) for part in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if part]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"no such data folder: {folder}; fix --source, data_sources or ${ENVIRONMENT}")
    return folders


def subfolders(given: Iterable[str | Path], names: Iterable[str]) -> list[Path]:
    """Returns the existing `folder/name` of each folder to search, and the folder itself last."""
    return [path for folder in folders(given) for path in (*(folder / name for name in names), folder) if path.is_dir()]


def celeba_folders(name: str, given: Iterable[str | Path]) -> list[Path]:
    """Returns the folders that hold aligned faces, as a zip or unpacked, whatever else they lack."""
    candidates = subfolders(given, dict.fromkeys((name, "celeba", "celeba-10k")))
    return [
        folder for folder in candidates
        if (folder / "img_align_celeba.zip").is_file() or (folder / "img_align_celeba").is_dir()
    ]  # fmt: skip


def celeba_defect(folder: Path) -> str | None:
    """Returns what a folder with faces lacks to be any CelebA, in words, or None; reads one line of one file."""
    for required in ("list_attr_celeba.txt", "list_eval_partition.txt"):
        if not (folder / required).is_file():
            return f"{folder} has the faces but no {required}; put CelebA's {required} next to them"
    if _announced(folder) is None:
        return f"{folder}/list_attr_celeba.txt does not begin with its number of images; fetch CelebA's own file again"
    return None


def _announced(folder: Path) -> int | None:
    """Returns the number of images that the first line of the attributes states, None if it states none."""
    with (folder / "list_attr_celeba.txt").open("rb") as handle:
        line = handle.readline(20).strip()
    return int(line) if line.isdigit() else None


def celeba_problem(name: str, folder: Path) -> str | None:
    """Returns what a folder with faces lacks to be data set `name`, in words, or None."""
    if defect := celeba_defect(folder):
        return defect
    count = _announced(folder)
    if count != CELEBA_SIZES[name]:
        other = next((known for known, size in CELEBA_SIZES.items() if size == count), None)
        advice = f"name it {other}" if other else f"only these are known: {CELEBA_SIZES}; for others use --folder"
        return f"{folder} lists {count} images, but {name} has {CELEBA_SIZES[name]}; {advice}"
    return None


def available(name: str, sources: Iterable[str | Path] = ()) -> bool:
    """Returns whether the data stage can make `name` from what is at hand, judged in milliseconds.

    CelebA needs its files in a folder, with as many images as the name promises (its download is slow and often
    refused, so it does not count here); `image_folder` needs a given folder. The others bring their own source.
    Raises UserError for an unknown name or a folder that does not exist.
    """
    check_name(name)
    if name == "image_folder":
        return bool(folders(sources))
    folders(sources)
    if name not in CELEBA_SIZES:
        return True
    return any(celeba_problem(name, folder) is None for folder in celeba_folders(name, sources))
