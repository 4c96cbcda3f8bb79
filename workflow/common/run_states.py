"""How far the runs under a folder are, told from their files alone: whoever made them may be gone, or at work."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

# Unlike those of Path they answer no where a folder is closed to the user, or a name is none that a file may have.
from os.path import isdir, isfile
from pathlib import Path
from typing import Any

from workflow.common.contracts import RUN_PATTERN, RunFolder, format_epsilon
from workflow.common.durations import describe, steps_in
from workflow.common.errors import UserError
from workflow.common.live import FAILED, STOPPED, TRAINING, Live, hear
from workflow.common.readers.fields import fields, is_number, is_text, is_whole
from workflow.common.readers.json_text import read_json

WAITING, PLANNED, TRAINED, SAMPLED, SCORED = "waiting", "planned", "trained", "sampled", "scored"
STATES = (WAITING, PLANNED, TRAINING, STOPPED, TRAINED, SAMPLED, SCORED, FAILED)
GRAPH = "logs/graph.json"  # below results/<preset>: what the last call of Snakemake told of itself
CALL = "IMAGE_BENCH_CALL"  # in the environment of every step of such a call, with a value of the call's own
_RULES = ("plan", "train", "external", "sample", "fidelity", "utility")
_ERRORS = ("error: ", "Traceback ", "MemoryError", "Killed")


@dataclass(frozen=True)
class RunState:
    """A run: its name under the folder watched, its state (one of STATES), and what there is to say of it."""

    name: str
    state: str
    words: str = ""


def roots(folder: Path) -> list[Path]:
    """Returns the folders under `folder`, itself included, that hold the runs of a graph, as results/quick does."""
    return [one for one in (folder, *sorted(folder.glob("*"))) if isdir(one / "runs") or isfile(one / GRAPH)]


def loose_runs(folder: Path) -> list[Path]:
    """Returns the folders of runs that no graph made, `folder` itself or those right in it."""
    return [one for one in (folder, *sorted(folder.glob("*"))) if _is_made(one)]


def graph_runs(root: Path) -> list[Path]:
    """Returns the run folders of results/<preset>: those there are, and those that the last call is still to make."""
    anything = RUN_PATTERN.format(dataset="*", run="*", epsilon="*", seed="*")
    there = {path for path in root.glob(anything) if _is_made(path)}
    to_make = filter(_is_run, _told(root).get("runs", []))
    return sorted(there | {root / Path(*Path(told).parts[-5:]) for told in to_make})


def own_call(root: Path) -> dict[str, Any]:
    """Returns what the call of Snakemake that this process is a step of told of its beginning; empty where none did.

    Keys: `begun`, seconds of the clock; `steps`, those that it was to make, of `all_steps` that its graph has.
    """
    kinds = {"name": is_text, "begun": is_number, "steps": is_whole(), "all_steps": is_whole()}
    with contextlib.suppress(UserError, ValueError, KeyError, TypeError):
        told = fields(read_json(root / GRAPH)["call"], kinds)
        return told if told["name"] == os.environ.get(CALL) else {}
    return {}


def name_of(run: Path) -> str:
    """Returns a run's name for people: "mnist dpac eps10 seed0", or that of a folder that no graph made."""
    try:
        return " ".join(RunFolder.parse(run).path.parts[-4:])
    except UserError:
        return run.resolve().name


def call_line(root: Path, now: float) -> str:
    """Returns the line of the call of Snakemake that is at work in `root`, or that ended last; empty without one."""
    told = _told(root)
    if not told:
        return ""
    old = now - told["updated"]
    # A call at work says something each minute.
    gone = old > 90 and told["line"].startswith("progress")
    return told["line"] + (f" (said {describe(old)} ago)" if gone else "")


def state_of(run: Path, name: str, now: float) -> RunState:
    """Returns how far a run is; `now` in seconds since 1970."""
    if (error := _failure(run)) is not None:
        return RunState(name, FAILED, error)
    if not _is_made(run):
        return RunState(name, WAITING)
    if isfile(run / "fidelity.json") and isfile(run / "utility.json"):
        return RunState(name, SCORED, _trained(run))
    if isfile(run / "samples.npz") or isfile(run / "samples.json"):
        return RunState(name, SAMPLED, _trained(run))
    if isfile(run / "run.json"):
        return RunState(name, TRAINED, _trained(run))
    live = hear(run)
    if live is None:
        return RunState(name, PLANNED)
    return RunState(name, *_live(live, _line(run, live), now))


def _live(live: Live, line: str, now: float) -> tuple[str, str]:
    if live.is_alive(now):
        return TRAINING, line
    if live.state == FAILED:
        return FAILED, live.reason
    place = "" if live.checkpoint is None else f" from its checkpoint after step {live.checkpoint}"
    return STOPPED, f"step {live.step} of {live.steps}; the same command continues{place}"


def _line(run: Path, live: Live) -> str:
    with contextlib.suppress(UserError, KeyError, TypeError, ValueError):
        plan = read_json(run / "plan.json")
        return live.line(float(plan["epsilon"]), str(plan["accounting"]))
    return live.line(math.inf, "none")


def _trained(run: Path) -> str:
    with contextlib.suppress(UserError, ValueError):
        record = read_json(run / "run.json")
        fields(record, {"steps_done": is_number, "train_seconds": is_number})
        return steps_in(record["steps_done"], record["train_seconds"])
    return ""


def _failure(run: Path) -> str | None:
    """Returns the last line of a failed job's log, where what the job was to make is not there."""
    try:
        folder = RunFolder.parse(run)
    except UserError:
        return None
    made = {"train": "run.json", "external": "run.json", "sample": "samples.npz"}
    for rule in _RULES:
        if isfile(run / made.get(rule, f"{rule}.json")):
            continue
        log = folder.root / "logs" / rule / f"{_log_name(folder)}.log"
        if error := _error(log):
            return f"{rule}: {error}"
    return None


def _log_name(folder: RunFolder) -> str:
    return f"{folder.dataset}-{folder.run}-eps{format_epsilon(folder.epsilon)}-seed{folder.seed}"


def _error(log: Path) -> str | None:
    lines = list(_last_lines(log))
    if not any(line.startswith(_ERRORS) for line in lines):
        return None
    return lines[-1]


def _last_lines(log: Path, size: int = 4096) -> Iterator[str]:
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - size))
        yield from (line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip())


def _is_made(run: Path) -> bool:
    # Samples that were made elsewhere have a record and no plan.
    return isfile(run / "plan.json") or isfile(run / "run.json")


def _is_run(told: object) -> bool:
    """Returns whether what stands among a call's runs is the folder of one."""
    with contextlib.suppress(UserError, ValueError):
        return is_text(told) and RunFolder.parse(told).path.parts[-5:] == Path(told).parts[-5:]
    return False


def _told(root: Path) -> dict:
    with contextlib.suppress(UserError, ValueError):
        kinds = {"runs": lambda value: isinstance(value, list), "line": is_text, "updated": is_number}
        return fields(read_json(root / GRAPH), kinds) if isfile(root / GRAPH) else {}
    return {}
