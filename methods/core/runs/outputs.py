"""The end of a run is one step: all outputs lie in private/end/, and the last of them, run.json, makes them count.

They are published from there, as often as need be. A kill in between costs nothing, nor does Snakemake, which deletes
the outputs of a job that it did not see end.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from methods.core.privacy import ledger_lines
from methods.core.privacy.ledger_lines import Position
from methods.core.runs import begun as begun_with
from methods.core.runs.begun import Begun, begun_path
from methods.core.runs.checkpoint import GENERATOR, checkpoint_path
from methods.core.runs.folder import LEDGER, LOG, RECORD, answers, end, is_begun, working_ledger
from methods.core.runs.plan import Plan
from workflow.common.files import atomic, read_json, sync_folder, write_json

# In this order: a folder with a run.json has the others.
_OUTPUTS = (GENERATOR, LOG, LEDGER, RECORD)
_ABOUT = "about.json"
_CORE = Path(__file__).resolve().parents[1]


def conclude(folder: Path, plan: Plan, begun: Begun, record: Mapping[str, Any], spent: Position) -> None:
    """Ends a run whose ledger is closed and whose other outputs are in `end`: nothing trains it a second time.

    Raises UserError where the ledger's file is not what was written up to `spent`, as after an editor saved over it.
    """
    ledger_lines.checked(working_ledger(folder), working_ledger(folder).read_bytes(), spent)
    with atomic(end(folder) / LEDGER) as temporary:
        shutil.copyfile(working_ledger(folder), temporary)
    write_json(end(folder) / _ABOUT, _about(plan, begun))
    write_json(end(folder) / RECORD, record)
    sync_folder(end(folder))


def has_ended(folder: Path) -> bool:
    """Returns whether all outputs of a run are there to be published, whether or not they are."""
    return (end(folder) / RECORD).exists()


def ended(folder: Path, plan: Plan, begun: Begun) -> dict[str, Any] | None:
    """Publishes what a run that has ended did not publish, or has lost since, and returns its run.json.

    None where no run has ended or nothing is lacking, and where `begun` would be another run than the finished one, in
    settings, records or code. Raises UserError, which names what differs, for another run than the one whose publishing
    was cut short.
    """
    if not has_ended(folder):
        return None
    if begun_path(folder).exists():
        begun_with.read(folder)[0].check(begun, folder)
    elif not is_begun(folder):
        if all((folder / name).exists() for name in _OUTPUTS) or read_json(end(folder) / _ABOUT) != _about(plan, begun):
            return None
        text = "is a finished run whose outputs are put back from its private/end/; nothing is trained or charged"
        print(f"notice: {folder} {text}", file=sys.stderr)
    publish(folder)
    return read_json(end(folder) / RECORD)


def publish(folder: Path) -> None:
    """Puts the outputs of a run that has ended into its folder, and removes what continuing it would need."""
    for name in _OUTPUTS:
        _put_back(folder, name)
    sync_folder(folder)
    sweep(folder)


def put_back_ledger(folder: Path) -> None:
    """Publishes the ledger of a run that has ended, where it is gone: what it spent is not to be forgotten."""
    if has_ended(folder) and not (folder / LEDGER).exists():
        _put_back(folder, LEDGER)


def sweep(folder: Path) -> None:
    """Removes what a finished run needs no more.

    What it was begun with goes last, since that says whose the rest is.
    """
    checkpoint_path(folder).unlink(missing_ok=True)
    answers(folder).clear()
    working_ledger(folder).unlink(missing_ok=True)
    begun_path(folder).unlink(missing_ok=True)


def forget(folder: Path) -> None:
    """Removes the outputs kept of a finished run, where another is to follow it."""
    (end(folder) / RECORD).unlink(missing_ok=True)
    if end(folder).exists():
        shutil.rmtree(end(folder))


def _put_back(folder: Path, name: str) -> None:
    with atomic(folder / name) as temporary:
        _copy(end(folder) / name, temporary)
        # As new as what Snakemake compares it with.
        os.utime(temporary)


def _copy(source: Path, target: Path) -> None:
    if source.name == GENERATOR:
        # Two names of one file, which takes its space once. What is small has a copy that no edit of the other reaches.
        with contextlib.suppress(OSError):
            target.unlink()
            os.link(source, target)
            return
    shutil.copyfile(source, target)


def _about(plan: Plan, begun: Begun) -> dict[str, str]:
    """Returns what a run's outputs follow from: its begin, and the code of its method and of all that methods share."""
    code = hashlib.sha256(Path(inspect.getfile(plan.method_class)).read_bytes())
    for path in sorted(_CORE.rglob("*.py")):
        code.update(path.read_bytes())
    return {"begun": begun.digest, "code": code.hexdigest()}
