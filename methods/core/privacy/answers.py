"""Answers of releases that have few uses, kept until a checkpoint holds what came of them.

Where a kill between two checkpoints would lose too much of a release, or as many checkpoints as it takes would cost too
much time, the noisy answer is in a file, and the ledger says so, before the method sees it. A run that continues is
then given that same answer, which is post-processing. A charge that has no such line was never answered to anybody. Of
a run whose noise is secret, file and line are on disk by then, for log.csv tells of an answer before any checkpoint
does, and a machine that goes down may keep that row and lose the line; of another, the same answer would be made again.

A file names its run, release and use in its digest. Any other file that lies there, such as one of another run, is
passed over and not refused: then a use that was answered stays spent, as if the file were gone, and one that was not is
answered for the first time, so neither gets a second answer. A file of this run for a use that the ledger does not show
is refused: the ledger was cut, or a copy of the folder went further, and the use would get another answer elsewhere.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from methods.core.privacy.grant import Keep
from methods.core.release import Release
from workflow.common.errors import UserError
from workflow.common.files import cannot_write, sync_folder

# Answers of releases of more uses are not kept: a checkpoint at each of so many parts of them costs less.
FEW, PARTS = 1000, 25
_DIGITS = 16


def unsaved(release: Release) -> int:
    """Returns how many uses of a release may at most be lost in a kill; 0 where each answer is kept."""
    return release.max_uses // PARTS if release.max_uses > FEW else 0


class Answers:
    """The answers kept in `folder`, one file a use.

    `repeatable` says that the run's noise and draws follow from its key, so that a use which was charged and never
    answered would be answered the same. Without it, files are on disk before their answers are seen. `run` is the run's
    name, which no other has. `size` counts the bytes that this process has kept and not cleared.
    """

    def __init__(self, folder: Path, repeatable: bool, run: str = "") -> None:
        self._folder = folder
        self.repeatable = repeatable
        self._run = run
        self._passed_over: set[Path] = set()
        self._answered: dict[tuple[str, int], str] = {}
        self.size = 0

    def recall(self, records: Iterable[Mapping[str, Any] | None]) -> None:
        """Notes which uses the records of a ledger call answered."""
        kept = [record for record in records if record and "answered" in record]
        self._answered = {(record["answered"], record["use"]): record["digest"] for record in kept}

    def check_charged(self, releases: Iterable[Release], spent: Mapping[str, int]) -> None:
        """Raises UserError where an answer of this run is kept whose use a ledger that shows `spent` never charged.

        Each answer is charged on disk before there is one, so the ledger has lost lines, or the file is a copy's.
        """
        for release in releases:
            for path in sorted(self._folder.glob(f"{_digest(release.name.encode())}-*.npy")):
                use = path.stem.partition("-")[2]
                if use.isdecimal() and int(use) > spent[release.name] and self._stored(release, int(use)) is not None:
                    raise UserError(
                        f"{path} is the answer of a use {use} of {release.name} that the ledger never charged: the"
                        " ledger was cut, or a copy of this run's folder went further; restore the ledger that belongs"
                        " to it"
                    )

    def may_grant_again(self, release: Release, use: int) -> bool:
        """Returns whether a use that a killed process charged can be answered without being answered twice.

        Where the ledger calls it answered, only with the answer that is kept. Else nobody has seen an answer, and there
        may be a first one: for a run that is not repeatable, unless records are drawn, since a new draw could depend on
        why the process ended, such as memory; of fresh noise no kill knows.
        """
        stored, digest = self._stored(release, use), self._answered.get((release.name, use))
        if digest is not None:
            return stored is not None and stored[1] == digest
        return stored is not None or self.repeatable or release.sampling == "all"

    def keep(self, release: Release, use: int, note: Callable[[dict[str, Any]], None], charged: bool = False) -> Keep:
        """Returns what gives the answer of a use that is kept, and else keeps the one that it makes.

        Either is in its file, and the ledger has a `note` of it, before the caller sees it. Only a use that an earlier
        process `charged` can have a kept one. Its giver raises UserError for one of another shape than is asked for.
        """

        def kept(shape: Sequence[int], make: Callable[[], torch.Tensor]) -> torch.Tensor:
            if not charged and self._path(release, use).exists():
                self._pass_over(self._path(release, use), "of a use that was never charged")
            stored = self._stored(release, use) if charged else None
            if stored is not None and stored[0].shape != torch.Size(shape):
                raise UserError(
                    f"{self._path(release, use)} holds an answer {list(stored[0].shape)} where {list(shape)} is asked"
                    " for; restore that file, or remove it, and its use stays spent"
                )
            answer, digest = stored or self._store(release, use, make())
            if (release.name, use) not in self._answered:
                note({"answered": release.name, "use": use, "digest": digest})
                self._answered[release.name, use] = digest
            return answer

        return kept

    def clear(self, granted: Mapping[str, int] | None = None) -> None:
        """Removes the answers of each release up to its last use `granted`, of which a checkpoint holds what came.

        Those of later uses are still to be given again. All go without `granted`: a run has ended.
        """
        self.size = 0
        if granted is None:
            # Removing a pipe as a folder would wait for a writer.
            if self._folder.is_dir() or not self._folder.exists():
                shutil.rmtree(self._folder, ignore_errors=not self._folder.exists())
            else:
                self._folder.unlink()
            return
        last = {_digest(name.encode()): use for name, use in granted.items()}
        for path in self._folder.glob("*-*.*"):
            release, _, use = path.stem.partition("-")
            if use.isdigit() and int(use) <= last.get(release, 0):
                path.unlink()

    def _store(self, release: Release, use: int, answer: torch.Tensor) -> tuple[torch.Tensor, str]:
        text = io.BytesIO()
        # NumPy has no bfloat16; a grant gives answers in the precision that was asked for.
        np.save(text, (answer if answer.dtype == torch.float64 else answer.float()).detach().cpu().numpy())
        path, content = self._path(release, use), text.getvalue()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # Waited for where it cannot be made again; else the digest tells what a machine that goes down lost of it.
            whole = path.with_suffix(".new")
            with whole.open("wb") as file:
                file.writelines((self._bound(release, use, content), content))
                if not self.repeatable:
                    file.flush()
                    os.fsync(file.fileno())
            whole.replace(path)
            if not self.repeatable:
                for folder in (self._folder, self._folder.parent):
                    sync_folder(folder)
        except OSError as error:
            raise cannot_write(path, error) from None
        self.size += len(content)
        return answer, _digest(content)

    def _stored(self, release: Release, use: int) -> tuple[torch.Tensor, str] | None:
        try:
            content = self._path(release, use).read_bytes()
        except OSError:
            return None
        bound, text = content[:_DIGITS], content[_DIGITS:]
        answer = _answer(text) if bound == self._bound(release, use, text) else None
        if answer is None:
            self._pass_over(self._path(release, use), "damaged, or of another run or use")
            return None
        return answer, _digest(text)

    def _bound(self, release: Release, use: int, content: bytes) -> bytes:
        """Returns what an answer's file begins with: a digest of it, of its run, and of the use it is of."""
        return _digest(json.dumps([self._run, release.name, use]).encode() + b"\n" + content).encode()

    def _pass_over(self, path: Path, what: str) -> None:
        if path not in self._passed_over:
            self._passed_over.add(path)
            print(f"notice: the kept answer {path} is {what}; it is passed over", file=sys.stderr)

    def _path(self, release: Release, use: int) -> Path:
        # A release's name may hold anything.
        return self._folder / f"{_digest(release.name.encode())}-{use}.npy"


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:_DIGITS]


def _answer(text: bytes) -> torch.Tensor | None:
    """Returns the answer in an .npy, None where that is not what these bytes are."""
    try:
        values = np.load(io.BytesIO(text), allow_pickle=False)
        return torch.from_numpy(values) if values.dtype in (np.float32, np.float64) else None
    except Exception:
        # Whatever a broken header makes the library stumble over.
        return None
