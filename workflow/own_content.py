"""Whether pictures have changed: a hash of their content, computed again only where a listing of the files differs."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from workflow.common.errors import UserError
from workflow.common.files import read_object, write_json
from workflow.common.own_set import OwnSet
from workflow.dataset_entries import PATHS, facts


def content(own: OwnSet, cache: Path) -> str:
    """Returns a hash of the pictures, their names and what labels them.

    `cache` as in `remembered`. Raises UserError where they cannot be read.
    """

    def content_hash() -> str:
        # Imported late: its libraries are for those alone who have pictures.
        from workflow.datasets.own import content_hash

        return content_hash(own)

    paths = [Path(os.path.expanduser(getattr(own, key))) for key in PATHS if getattr(own, key)]
    which = repr([sorted(facts(own).items()), [key for key in PATHS if getattr(own, key)]])
    return remembered(cache, which, paths, content_hash)


def check_made(card: Path, now: str) -> None:
    """Raises UserError if the data set of this card was made from pictures with another hash than `now`."""
    if not card.exists():
        return
    files = read_object(card, "a data set card").get("files")
    before = files.get("content") if isinstance(files, dict) else None
    if isinstance(before, str) and before != now:
        raise UserError(
            f"the images in {card.parent} were made from other pictures than those that the configuration names;"
            f" remove {card.parent} to make them again, or name the pictures they were made from"
        )


def remembered(cache: Path, which: str, paths: Iterable[Path], compute: Callable[[], str]) -> str:
    """Returns what `compute` returns of the files at and below `paths`, or what it returned last time.

    `cache` is a small JSON file of the last answer. It is good for as long as `which`, and all paths, sizes and times
    of the files, are what they were; any other file there is passed over.
    """
    digest = hashlib.sha256(f"{which}\0".encode())
    for path in paths:
        for line in _listing(path):
            digest.update(os.fsencode(f"{line}\0"))
    listing = digest.hexdigest()
    known = _known(cache)
    if known.get("listing") == listing and isinstance(known.get("content"), str):
        return known["content"]
    found = compute()
    with contextlib.suppress(UserError):  # A folder that may only be read: it takes longer, that is all.
        write_json(cache, {"listing": listing, "content": found})
    return found


def _known(cache: Path) -> dict[str, Any]:
    """Returns what the cache holds; nothing where it is damaged, as it can be made again."""
    try:
        return read_object(cache)
    except UserError:
        return {}


def _listing(path: Path) -> Iterator[str]:
    if not path.is_dir():
        yield _stamp(os.fspath(path))
        return
    seen: set[tuple[int, int]] = set()
    for folder, names, files in os.walk(path, followlinks=True):
        here = os.stat(folder)
        if (here.st_dev, here.st_ino) in seen:  # a link that leads back up
            names.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        names.sort()
        yield from (_stamp(os.path.join(folder, name)) for name in sorted(files))


def _stamp(path: str) -> str:
    try:
        found = os.stat(path)
    except OSError:
        return f"{path} gone"  # a link to nothing
    # With the file's number: two folders that change places change no time of the files in them.
    return f"{path} {found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
