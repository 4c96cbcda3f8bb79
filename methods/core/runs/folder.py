"""The folder of a run: its files' names, whether a run is in progress there, and the hold on it of one process."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from methods.core.privacy.answers import Answers
from methods.core.runs.begun import begun_path
from methods.core.runs.checkpoint import checkpoint_path
from workflow.common.files import clear_leftovers
from workflow.common.locks import locked

LEDGER, RECORD, LOG = "ledger.jsonl", "run.json", "log.csv"
GENERATOR = "generator.safetensors"
_KEPT = re.compile(r"ledger-(\d+)\.jsonl")


def working_ledger(folder: Path) -> Path:
    """Returns where a run in progress keeps its ledger."""
    return folder / "private" / LEDGER


def answers(folder: Path, repeatable: bool = False, run: str = "") -> Answers:
    """Returns where the run of the name `run`, in progress, keeps the answers that no checkpoint holds yet."""
    return Answers(folder / "private" / "answers", repeatable, run)


def kept_ledgers(folder: Path) -> dict[int, Path]:
    """Returns the ledgers of the runs that a folder held before its last one, by their numbers, from 1."""
    matches = ((_KEPT.fullmatch(path.name), path) for path in folder.glob("ledger-*.jsonl"))
    return {int(match[1]): path for match, path in matches if match}


def ledgers_digest(folder: Path) -> str:
    """Returns the SHA-256 of the ledgers of the runs that a folder held before its last one, in hexadecimal."""
    kept = kept_ledgers(folder)
    each = (hashlib.sha256(kept[number].read_bytes()).hexdigest() for number in sorted(kept))
    return hashlib.sha256("/".join(each).encode()).hexdigest()


def end(folder: Path) -> Path:
    """Returns where a run that ends gathers its outputs."""
    return folder / "private" / "end"


def is_begun(folder: Path) -> bool:
    """Returns whether a run is in progress: it may have charged, or it has ended and is not yet published whole."""
    # What a kill of an earlier version left of a finished run is not in progress.
    stored = checkpoint_path(folder).exists() and not (folder / LEDGER).exists()
    return begun_path(folder).exists() or stored or _has_charges(working_ledger(folder))


def is_complete(folder: Path) -> bool:
    """Returns whether a folder holds a whole run, and none is in progress there."""
    return (folder / RECORD).exists() and not is_begun(folder)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds a run's folder against a second process, and removes what killed ones were writing there.

    Raises UserError where it is held, cannot be made, or cannot be locked.
    """
    private = folder / "private"
    with locked(private, folder):
        for place in (folder, private, end(folder)):
            clear_leftovers(place)
        yield


def _has_charges(ledger: Path) -> bool:
    """Returns whether anything follows a ledger's first line, which is there before what the run was begun with."""
    return ledger.exists() and bool(ledger.read_bytes().partition(b"\n")[2])
