"""Whether pictures have changed: a hash of their content, computed again only where a listing of the files differs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workflow.common.errors import UserError
from workflow.common.files import read_object, write_json
from workflow.common.own_set import OwnSet
from workflow.dataset_entries import PATHS, facts


def content(own: OwnSet, cache: Path) -> str:
    """Returns a hash of the pictures, their names and what labels them.

    `cache` is a small JSON file of the last answer. It is good for as long as all paths, sizes and times of the files
    are what they were, so unchanged pictures are not read again. Raises UserError where they cannot be read.
    """
    listing = _digest(own)
    known = _kept(cache)
    if known.get("listing") != listing or not isinstance(known.get("content"), str):
        # Imported late: its libraries are for those alone who have pictures.
        from workflow.datasets.own import content_hash

        known = {"listing": listing, "content": content_hash(own)}
        write_json(cache, known)
    return known["content"]


def _kept(cache: Path) -> dict[str, Any]:
    """Returns what the cache holds; nothing where it is damaged, as it can be made again."""
    try:
        return read_object(cache)
    except UserError:
        return {}


def _digest(own: OwnSet) -> str:
    """Returns a hash of every file's path, size and times, and of what says which files count."""
    digest = hashlib.sha256(repr(sorted(facts(own).items())).encode())
    for key in PATHS:
        for line in _listing(Path(os.path.expanduser(getattr(own, key)))) if getattr(own, key) else ():
            digest.update(os.fsencode(f"{key}\0{line}\0"))
    return digest.hexdigest()


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
    return f"{path} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
