"""Where a release is trained until its folder is whole: its owner's alone, and one process's at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from methods.core.runs.folder import is_begun
from methods.core.runs.plan import Plan
from workflow.common.errors import UserError
from workflow.common.files import cannot_write, read_object, sync_folder, sync_whole, write_json, write_text
from workflow.common.locks import not_locked
from workflow.common.readers.fields import fields, is_hex, is_object, is_text
from workflow.common.readers.guard import reason

SUFFIX = ".private"
_ID = 16
BEGUN, CHARGING, WHOLE, LOCK, PARTIAL = "begun.json", "charging", "whole", "lock", "partial"
_OURS = re.compile(
    rf"{BEGUN}|{CHARGING}|{WHOLE}|{LOCK}|{PARTIAL}|private|run\.json|log\.csv|ledger(-\d+)?\.jsonl|generator\.safetensors"
)


@dataclass(frozen=True)
class Begun:
    """What a release was begun with: its own name in the owner's record, the records' hash, and the plan."""

    id: str
    train: str
    plan: Plan


class Workplace:
    """The folder OUT.private beside the folder OUT that will be given away."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out.with_name(out.name + SUFFIX)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folder if need be, closes it to others, and holds it against a second process.

        Raises UserError where it cannot be made, holds what no release left there, is in use, or cannot be locked.
        """
        self._make()
        with (self.folder / LOCK).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise not_locked(error, self.folder / LOCK, self.folder) from None
            # Another process may have ended, and removed this file, between the two lines above.
            if not self._is_lock(lock.fileno()):
                raise not_locked(BlockingIOError(errno.EWOULDBLOCK, ""), self.folder / LOCK, self.folder)
            try:
                yield
            finally:
                self._remove_if_bare()

    def _is_lock(self, handle: int) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(handle), os.stat(self.folder / LOCK))
        return False

    def begun(self) -> Begun | None:
        """Returns what the release in this folder was begun with, None if none was."""
        path = self.folder / BEGUN
        if not path.exists():
            return None
        content = read_object(path, "begun.json")
        try:
            fields(content, {"id": is_hex(_ID), "train": is_text, "plan": is_object})
            return Begun(content["id"], content["train"], Plan.stored(content["plan"], path))
        except ValueError as error:
            message = f"{path} does not say what was begun ({reason(error)}); choose another --out"
            raise UserError(message) from None

    def begin(self, plan: Plan, train: str) -> Begun:
        """Notes, in one file, what a release begins with, and returns it."""
        begun = Begun(secrets.token_hex(_ID // 2), train, plan)
        write_json(self.folder / BEGUN, {"id": begun.id, "train": train, "plan": plan.to_dict()})
        return begun

    def note_charging(self) -> None:
        """Notes that the run in this folder begins to charge: from now on it cannot be begun a second time here."""
        write_text(self.folder / CHARGING, "")

    def check_run(self) -> None:
        """Raises UserError where the run of the release may have charged, and has since been taken out."""
        if (self.folder / CHARGING).exists() and not is_begun(self.folder):
            raise UserError(
                f"{self.folder} holds a release whose run is gone, and what it charged stays spent: restore"
                f" {self.folder / 'private'}, or remove {self.folder} and call again, which charges another release"
            )

    def partial(self) -> Path:
        """Returns an empty folder to write the release into."""
        (self.folder / WHOLE).unlink(missing_ok=True)
        partial = self.folder / PARTIAL
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir()
        return partial

    def publish(self) -> None:
        """Gives the written folder its name, on disk when this returns: what could make it again is removed then.

        Raises UserError where something has taken that name meanwhile.
        """
        sync_whole(self.folder / PARTIAL)
        write_text(self.folder / WHOLE, "")
        try:
            os.rename(self.folder / PARTIAL, self.out)
        except OSError as error:
            raise UserError(
                f"{self.out} cannot be made ({error.strerror}): move what is there away and call the same command"
                " again; nothing is trained or charged a second time"
            ) from None
        self.settle()

    def settle(self) -> None:
        """Returns when the name of a published release is on disk. Raises UserError where it cannot be."""
        sync_folder(self.out.parent)

    def is_published(self) -> bool:
        """Returns whether a release was made here and given its name: only this folder is still to be removed."""
        return (self.folder / WHOLE).exists() and not (self.folder / PARTIAL).exists()

    def remove(self) -> None:
        """Removes the folder. The mark goes last: while it stands, nothing here is taken for a release to continue."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in (WHOLE, LOCK):
                path.unlink()
        for name in (WHOLE, LOCK):
            (self.folder / name).unlink(missing_ok=True)
        # Not empty where another process has just come to wait; it finds the release whole.
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _remove_if_bare(self) -> None:
        if self.folder.is_dir() and [path.name for path in self.folder.iterdir()] == [LOCK]:
            self.remove()

    def _make(self) -> None:
        folder = self.folder
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            if folder.is_symlink() or not folder.is_dir():
                raise UserError(f"{folder}, where the release is trained, must be a folder; choose another --out")
            self._check_left()
            folder.chmod(0o700)
        except OSError as error:
            raise cannot_write(folder, error) from None

    def _check_left(self) -> None:
        """Raises UserError where the folder holds anything that no release has left there."""
        names = {path.name for path in self.folder.iterdir()}
        # What atomic writes leave when they are killed begins with a dot.
        foreign = sorted(name for name in names if not (name.startswith(".") or _OURS.fullmatch(name)))
        # To open a pipe is to wait for its other end.
        foreign += sorted(path.name for path in self.folder.iterdir() if path.is_fifo())
        if not foreign and not names & {BEGUN, WHOLE}:
            # A release says what it begins with before it does anything else.
            foreign = sorted(name for name in names - {LOCK} if not name.startswith("."))
        if foreign:
            raise UserError(f"{self.folder}, where the release is trained, holds {foreign[0]}; choose another --out")
