"""A data set of pictures that need protection: its folder is its owner's alone, whatever the umask."""

from __future__ import annotations

import contextlib
import stat
import sys
from pathlib import Path

from workflow.common.files import cannot_write, is_leftover

FILES = ("train.npz", "test.npz", "card.json")
# What `release` keeps beside them.
_OURS = {*FILES, "spent.jsonl"}


def close(folder: Path) -> None:
    """Makes a folder that nobody but its owner may enter; one that holds other things as well keeps its mode.

    Raises UserError where it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder / FILES[0], error) from None
    # A disk that keeps no modes may refuse; `say_if_open` looks at what came of it.
    with contextlib.suppress(OSError):
        if _holds_nothing_else(folder):
            folder.chmod(0o700)


def say_if_open(folder: Path) -> None:
    """Says on stderr, in one line, where others may enter the folder of a data set or read its files all the same."""
    paths = [folder / name for name in FILES] + [folder] * _holds_nothing_else(folder)
    if any(stat.S_IMODE(path.stat().st_mode) & 0o077 for path in paths):
        print(
            f"notice: {folder} cannot be closed to other users of this machine: its file system does not keep modes;"
            " make the data on a disk that does, or see that nobody else can reach this one",
            file=sys.stderr,
        )


def _holds_nothing_else(folder: Path) -> bool:
    # Such as a folder that many share: to close it would lock them out. With the sticky bit it is one while empty too.
    with contextlib.suppress(OSError):
        shared = folder.stat().st_mode & stat.S_ISVTX
        return not shared and all(path.name in _OURS or is_leftover(path) for path in folder.iterdir())
    return False
