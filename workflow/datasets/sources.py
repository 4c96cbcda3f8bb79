"""Where raw files may lie, and the cheap answer to whether a data set can be had."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from workflow.common.errors import UserError, unknown

NAMES = ("celeba", "celeba10k", "digits", "fashion_mnist", "image_folder", "mnist")
CELEBA_SIZES = {"celeba": 202_599, "celeba10k": 10_000}
ENVIRONMENT = "DPAC_BENCH_DATA"


def check_name(name: str) -> str:
    """Returns `name`. Raises UserError listing the valid names if there is no such data set."""
    if name not in NAMES:
        raise unknown("dataset", name, NAMES)
    return name


def folders(given: Iterable[str | Path]) -> list[Path]:
    """Returns the folders to search: the given ones, then those of $DPAC_BENCH_DATA (separated as in $PATH).

    Raises UserError if a given folder does not exist: a misspelt path must not fall through to a download.
    """
    found = [Path(folder).expanduser() for folder in given]
    found += [Path(part).expanduser() for part in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if part]
    for folder in found:
        if not folder.is_dir():
            raise UserError(f"no such data folder: {folder}; mend --source, data_sources or ${ENVIRONMENT}")
    return found


def subfolders(given: Iterable[str | Path], names: Sequence[str]) -> list[Path]:
    """Returns the existing `folder/name` of each folder to search, and the folder itself last."""
    return [path for folder in folders(given) for path in (*(folder / name for name in names), folder) if path.is_dir()]


def celeba_folder(name: str, given: Iterable[str | Path]) -> Path | None:
    """Returns the first folder with aligned faces whose attribute file counts the images of `name`.

    A folder with faces but without an attribute or partition file is returned as well, if no better one
    is there, so that the loader can say which file is missing.
    """
    incomplete = None
    for folder in subfolders(given, (name, name.replace("celeba10k", "celeba-10k"), "celeba")):
        if not ((folder / "img_align_celeba.zip").is_file() or (folder / "img_align_celeba").is_dir()):
            continue
        count = attribute_count(folder / "list_attr_celeba.txt")
        if count == CELEBA_SIZES[name] and (folder / "list_eval_partition.txt").is_file():
            return folder
        incomplete = incomplete or folder
    return incomplete


def attribute_count(path: Path) -> int | None:
    """Returns the image count on the first line of a CelebA attribute file; None if the file is missing or broken."""
    try:
        with path.open(encoding="utf-8") as handle:
            return int(handle.readline())
    except (OSError, ValueError):
        return None


def available(name: str, sources: Iterable[str | Path] = ()) -> bool:
    """Returns whether the data stage can make `name` without asking for files, judged in milliseconds.

    CelebA needs its files in a folder, with as many images as the name promises; `image_folder` needs one folder.
    The others have a source of their own. Raises UserError for an unknown name or a folder that does not exist.
    """
    check_name(name)
    if name == "image_folder":
        return bool(folders(sources))
    if name not in CELEBA_SIZES:
        return True
    folder = celeba_folder(name, sources)
    return (
        folder is not None
        and attribute_count(folder / "list_attr_celeba.txt") == CELEBA_SIZES[name]
        and (folder / "list_eval_partition.txt").is_file()
    )
