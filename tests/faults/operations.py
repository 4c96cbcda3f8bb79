"""Sees every write, fsync, rename and removal of files below a folder, and lets the process fail at any of them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_RENAMES = ("os.rename", "os.link", "os.symlink")
_OTHERS = ("os.remove", "os.mkdir", "os.rmdir", "os.truncate")
_METHODS = ("write", "writelines", "truncate")


class Operations:
    """Counts the file operations of this process below `folder`, and calls `at` before the `point`-th, from 0.

    An operation is an open for writing, a write, an fsync, a rename or link, a removal, a new folder, or a cut.
    Python's own writes are seen one by one; of a library's in C++ only what Python does with their file before and
    after. With `lasting`, `at` is called before all later operations too. Once installed it stays for the process's
    life: use it in a child.
    """

    def __init__(
        self, folder: Path, point: int | None = None, at: Callable[[str], None] | None = None, lasting: bool = False
    ) -> None:
        self.count, self.kinds = 0, []
        self._folder, self._point, self._at, self._lasting = os.path.realpath(folder) + os.sep, point, at, lasting
        self._fsync, self.synced = os.fsync, {}

    def install(self) -> None:
        """Starts to watch."""
        sys.addaudithook(self._audit)
        os.fsync = self._synced
        sys.setprofile(self._profile)

    def stop(self) -> None:
        """Stops to watch; nothing fails any more."""
        sys.setprofile(None)
        os.fsync = self._fsync
        self._folder = "\0"

    def _below(self, path: Any) -> str | None:
        if isinstance(path, int):
            try:
                path = os.readlink(f"/proc/self/fd/{path}")
            except OSError:
                return None
        try:
            text = os.path.abspath(os.fsdecode(path))
        except TypeError:
            return None
        return text if text.startswith(self._folder) else None

    def _audit(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, mode, flags = arguments
            if (flags or 0) & _WRITING or (isinstance(mode, str) and set(mode) & set("wax+")):
                self._reached("open", path)
        elif event in _RENAMES:
            self._reached(event.removeprefix("os."), arguments[1])
        elif event in _OTHERS:
            self._reached(event.removeprefix("os."), arguments[0])

    def _synced(self, handle: int) -> None:
        self._reached("fsync", handle)
        self._fsync(handle)
        if path := self._below(handle):
            self.synced[path] = os.fstat(handle).st_size

    def _profile(self, frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call" and getattr(function, "__name__", "") in _METHODS:
            # Set again by the caller of Python code alone: an exception from here takes the profile function away.
            self._reached("write", getattr(function.__self__, "name", None))

    def _reached(self, kind: str, path: Any) -> None:
        if path is None or not (where := self._below(path)):
            return
        number, self.count = self.count, self.count + 1
        self.kinds.append(kind)
        if self._point is None or number < self._point or (number > self._point and not self._lasting):
            return
        try:
            self._at(where)
        finally:
            if kind == "write":
                sys.setprofile(self._profile)


def die(_: str) -> None:
    """Ends the process as a power button would: no clean-up, no buffer written."""
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def failing(number: int) -> Callable[[str], None]:
    """Returns what raises the operating system's error `number`, such as errno.ENOSPC."""

    def fail(path: str) -> None:
        raise OSError(number, os.strerror(number), path)

    return fail
