"""What a shipped data set is made from: a hash of the raw files at hand, read again where their listing differs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from workflow import datasets, own_content
from workflow.common.files import sha256
from workflow.common.own_set import OwnSet
from workflow.datasets import sources
from workflow.datasets.chunks import in_chunks

LISTS = ("list_attr_celeba.txt", "list_eval_partition.txt")


def content(name: str, given: Sequence[str], cache: Path) -> str:
    """Returns a hash of the files that data set `name` is made from, the same wherever they lie.

    `given` are the folders to search before those of the environment; `cache` is a small JSON file of the last answer.
    Raises UserError for a folder that does not exist, or holds damaged files.
    """
    if name == "image_folder":
        return own_content.content(OwnSet(folder=str(sources.folders(given)[0])), cache)
    if name in sources.CELEBA_SIZES:
        datasets.check(name, given)
        found = [folder for folder in sources.celeba_folders(name, given) if not sources.celeba_problem(name, folder)]
        if not found:
            return "fetched"
        folder = found[0]
        return own_content.remembered(cache, f"{name} {LISTS}", _celeba(folder), lambda: _celeba_hash(folder))
    return own_content.remembered(cache, name, _near(name, given), lambda: _published(name, given))


def _celeba(folder: Path) -> list[Path]:
    pictures = folder / "img_align_celeba"
    return [pictures if pictures.is_dir() else folder / "img_align_celeba.zip", *(folder / name for name in LISTS)]


def _celeba_hash(folder: Path) -> str:
    # Imported late, as all loaders.
    from workflow.datasets.celeba import read_partition

    pictures, *lists = _celeba(folder)
    # Pictures that no list names are not read.
    named = sorted(read_partition(folder / LISTS[1])) if pictures.is_dir() else []
    paths = [*lists, *(path for name in named if (path := pictures / name).is_file())] if named else [*lists, pictures]
    content = hashlib.sha256()

    def digests(part: slice) -> list[str]:
        return [f"{path.name} {sha256(path)}\n" for path in paths[part]]

    for part in in_chunks(len(paths), digests, "content"):
        content.update("".join(part).encode())
    return content.hexdigest()


def _near(name: str, given: Iterable[str]) -> list[Path]:
    """Returns the IDX files that may be read for a data set, where folders of them are given."""
    from workflow.datasets.mnist import FAMILIES, VALIDATION_SUFFIX

    family = FAMILIES.get(name.removesuffix(VALIDATION_SUFFIX))
    places = sources.subfolders(given, family.folder_names) if family else []
    return [path for place in places for path in sorted(place.glob("*-ubyte*")) if path.is_file()]


def _published(name: str, given: Sequence[str]) -> str:
    # Every source of these has the same bytes: others are refused.
    datasets.check(name, given)
    return "published"

