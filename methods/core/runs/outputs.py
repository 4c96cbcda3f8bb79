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
from methods.core.runs import generator
from methods.core.runs.begun import Begun, begun_path
from methods.core.runs.checkpoint import checkpoint_path
from methods.core.runs.folder import (
    GENERATOR,
    LEDGER,
    LOG,
    RECORD,
    answers,
    end,
    held,
    is_begun,
    is_complete,
    kept_ledgers,
    working_ledger,
)
from methods.core.runs.plan import Plan
from workflow.common.errors import UserError
from workflow.common.files import atomic, read_json, read_object, sync_folder, write_json
from workflow.common.live import live_path
from workflow.common.readers.fields import fields, is_number
from workflow.common.readers.fields import is_whole as is_whole_number
from workflow.common.readers.guard import reason

# In this order: a folder with a run.json has the others.
_OUTPUTS = (GENERATOR, LOG, LEDGER, RECORD)
_ABOUT = "about.json"
# What callers tell of a record.
_RECORD = {"steps_done": is_whole_number(), "steps_planned": is_whole_number(), "train_seconds": is_number}
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
    was cut short, and for a private/end that is another run's than the folder's.
    """
    if not has_ended(folder):
        return None
    if begun_path(folder).exists():
        before = begun_with.read(folder)[0]
        before.check(begun, folder)
        _check_own(folder, before.run)
    elif is_begun(folder):
        # What is in progress has lost what it was begun with; it is not to be taken for what has ended.
        return None
    else:
        about, wanted = _read_about(folder), _about(plan, begun)
        if not lacks(folder) or any(about.get(name) != value for name, value in wanted.items() if name != "run"):
            return None
        _say_put_back(folder)
    publish(folder)
    return _record(folder)


def restore(folder: Path, plan: Plan) -> None:
    """Publishes what the folder's run of `plan` has lost since it ended, or what a kill left to be published.

    It also removes what a finished run needs no more. A folder where nothing is to be done is not written to, and one
    whose run has not ended, or is another plan's, is left alone. Raises UserError where a process is at work there, or
    private/end is another run's than the folder's.
    """
    if not _is_restorable(folder):
        return
    # Another process may do it meanwhile.
    with held(folder):
        if is_begun(folder):
            _restore_begun(folder, plan)
        elif has_ended(folder) and lacks(folder):
            if _read_about(folder).get("plan") == plan.digest:
                _say_put_back(folder)
                publish(folder)
        elif is_complete(folder):
            sweep(folder)


def _restore_begun(folder: Path, plan: Plan) -> None:
    # Where nothing says which run is in progress, what has ended may be another.
    if has_ended(folder) and begun_path(folder).exists():
        before = begun_with.read(folder)[0]
        if before.plan.digest == plan.digest:
            _check_own(folder, before.run)
            publish(folder)


def is_whole(folder: Path) -> bool:
    """Returns whether a folder holds a whole run. Raises UserError for a finished one that has lost outputs for good.

    Those that can be put back are to have been: see `restore`.
    """
    if not is_complete(folder):
        return False
    if gone := lacks(folder):
        raise UserError(
            f"{folder} is a finished run without its {' and '.join(gone)}, and private/end/ has no such file of this"
            " run: restore it, or use another folder"
        )
    return True


def lacks(folder: Path) -> list[str]:
    """Returns which outputs of a run are not in its folder, or not whole: a ledger that was cut shows too little."""
    return [name for name in _OUTPUTS if not (folder / name).exists() or (name == LEDGER and _is_cut(folder))]


def publish(folder: Path) -> None:
    """Puts the outputs of a run that has ended into its folder, and removes what continuing it would need.

    Raises UserError, and changes nothing, unless all of them are there, and belong to the ledger in the folder and to
    each other.
    """
    if gone := [name for name in _OUTPUTS if not (end(folder) / name).is_file()]:
        raise UserError(f"{end(folder)} lacks {gone[0]}: restore it, or remove that folder and call again")
    _check_place(folder)
    if not generator.is_own(end(folder)):
        raise UserError(
            f"{end(folder) / GENERATOR} is not the generator that the {RECORD} beside it tells of: restore it, or"
            f" remove {end(folder)} and call again"
        )
    # A ledger that was cut is put back; one that says anything else is another run's.
    if (folder / LEDGER).exists() and not _begins_with(end(folder) / LEDGER, folder / LEDGER):
        raise _foreign(folder)
    for name in _OUTPUTS:
        _put_back(folder, name)
    sync_folder(folder)
    sweep(folder)


def put_back_ledger(folder: Path) -> None:
    """Publishes the ledger of a run that has ended, where it is gone or was cut: what it spent is not to be forgotten.

    Raises UserError where what is kept is another run's, or ledgers of earlier runs are gone.
    """
    if not has_ended(folder):
        return
    _check_place(folder)
    whole = end(folder) / LEDGER
    if not whole.is_file():
        return
    if (folder / LEDGER).exists() and not _begins_with(whole, folder / LEDGER):
        raise UserError(
            f"{folder / LEDGER} is not the ledger that the run which ended there left in {end(folder)}: remove it, and"
            " that one is put back"
        )
    if not (folder / LEDGER).exists() or _is_cut(folder):
        _put_back(folder, LEDGER)


def sweep(folder: Path) -> None:
    """Removes what a finished run needs no more.

    What it was begun with goes last, since that says whose the rest is.
    """
    checkpoint_path(folder).unlink(missing_ok=True)
    answers(folder).clear()
    working_ledger(folder).unlink(missing_ok=True)
    live_path(folder).unlink(missing_ok=True)
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
    return {"begun": begun.digest, "run": begun.run, "plan": plan.digest, "code": code.hexdigest()}


def _read_about(folder: Path) -> dict[str, Any]:
    path = end(folder) / _ABOUT
    return read_object(path, "what a run's outputs follow from") if path.exists() else {}


def _check_own(folder: Path, run: str) -> None:
    """Raises UserError unless what lies in private/end is of the run in progress: another spent something else."""
    if _read_about(folder).get("run") != run:
        raise _foreign(folder)


def _check_place(folder: Path) -> None:
    """Raises UserError unless private/end holds what came after the earlier runs that the folder knows of."""
    earlier, kept = _record(folder).get("earlier_runs", 0), len(kept_ledgers(folder))
    if kept < earlier:
        raise UserError(
            f"{folder} has the ledgers of {kept} earlier runs, and {end(folder)} is of one that came after {earlier}:"
            " restore ledger-1.jsonl and so on, which say what was spent, or use another folder"
        )
    if kept > earlier:
        raise _foreign(folder)


def _foreign(folder: Path) -> UserError:
    return UserError(
        f"{end(folder)} is of another run than the one in {folder}, such as an older copy that was put back: remove"
        f" {end(folder)} and call again"
    )


def _record(folder: Path) -> dict[str, Any]:
    """Returns the record of a run that has ended. Raises UserError for a file that is none."""
    path = end(folder) / RECORD
    content = read_json(path)
    try:
        fields(content, _RECORD)
        fields({"earlier_runs": 0, **content}, {"earlier_runs": is_whole_number()})
    except ValueError as error:
        mend = f"restore it, or remove {path.parent} and call again"
        raise UserError(f"{path} is no record of a run ({reason(error)}); {mend}") from None
    return content


def _is_cut(folder: Path) -> bool:
    """Returns whether a folder's ledger is the beginning of the one that is kept of the same run."""
    whole, published = end(folder) / LEDGER, folder / LEDGER
    if not (whole.is_file() and published.is_file()):
        return False
    return published.stat().st_size < whole.stat().st_size and _begins_with(whole, published)


def _begins_with(path: Path, other: Path) -> bool:
    return path.read_bytes().startswith(other.read_bytes())


def _is_restorable(folder: Path) -> bool:
    if has_ended(folder) and (is_begun(folder) or lacks(folder)):
        return True
    left = (checkpoint_path(folder), working_ledger(folder), folder / "private" / "answers")
    return is_complete(folder) and any(path.exists() for path in left)


def _say_put_back(folder: Path) -> None:
    text = "is a finished run whose outputs are put back from its private/end/; nothing is trained or charged"
    print(f"notice: {folder} {text}", file=sys.stderr)
