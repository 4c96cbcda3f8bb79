"""The hold of one process on a folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from workflow.common.errors import UserError
from workflow.common.files import cannot_write

# The file that is locked. It is there while a process is at work, and after one that was killed.
LOCK = "lock"
_TAKEN = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}


@contextlib.contextmanager
def locked(folder: Path, name: Path | None = None) -> Iterator[None]:
    """Holds a folder, made if need be, against a second process by a lock on its file LOCK.

    `name` is what an error calls it, by default the folder. Raises UserError where another process holds it, where it
    cannot be written in, and where the file system has no locks: two processes would then charge beside each other.
    """
    handle = None
    # A holder may end, and remove its file, between the opening and the lock.
    while handle is None:
        handle = _taken(folder, name or folder)
    try:
        yield
    finally:
        try:
            # Before the lock is given back, so that the file of the next one stays.
            with contextlib.suppress(OSError):
                (folder / LOCK).unlink()
        finally:
            os.close(handle)


def not_locked(error: OSError, file: Path, name: Path) -> UserError:
    """Returns what to say where `file` could not be locked: another process holds `name`, or there are no locks."""
    if error.errno in _TAKEN:
        return UserError(f"{name} is in use by another process; wait for it to end")
    return UserError(
        f"cannot lock {file} ({error.strerror}), and without locks a second process could charge the same records"
        " beside this one; use a folder on a file system with locks, such as a local disk"
    )


def _opened(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # NFS gives locks of one process alone only to what is open for writing.
        return os.open(folder / LOCK, os.O_WRONLY | os.O_CREAT, 0o666)
    except OSError as error:
        raise cannot_write(folder, error) from None


def _taken(folder: Path, name: Path) -> int | None:
    """Returns a handle that holds a folder's lock, None where the locked file is the folder's no more."""
    handle, own = _opened(folder), False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(FileNotFoundError):
            own = os.path.samestat(os.fstat(handle), os.stat(folder / LOCK))
    except OSError as error:
        raise not_locked(error, folder / LOCK, name) from None
    finally:
        if not own:
            os.close(handle)
    return handle if own else None
