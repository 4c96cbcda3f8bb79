"""A private artifact that several runs start from, made once and continued after a kill."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from methods.core import registry
from methods.core.method import WARM_START_SOURCE, Context
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import NO_BUDGET, PublicSpec
from methods.core.runs import noise_key
from methods.core.runs.plan import Plan
from methods.core.speed.precision import BOTH, PRECISIONS, computes_in, together
from workflow.common.errors import UserError, shown
from workflow.common.files import clear_leftovers, read_json, sha256, write_json
from workflow.common.locks import LOCK, locked
from workflow.common.per_record import settled
from workflow.common.provenance import provenance
from workflow.common.readers.fields import fields, is_one_of
from workflow.common.readers.guard import reading

# Of each file the SHA-256, in done.json; those of earlier versions have no such key.
FILES = "files"
# What it was computed in, in done.json, and until then in a file of its own, which a kill leaves; earlier versions have
# neither.
COMPUTED_IN = "computed_in"
_NOTE = f"{COMPUTED_IN}.json"


def wanted(plan: Plan) -> dict[str, Any] | None:
    """Returns the settings of the warm start that a plan's run begins from, None where it needs none."""
    return plan.method_class.warm_start(plan.hyper)


def check_settings(plan: Plan) -> None:
    """Raises UserError for a plan whose warm start cannot be made."""
    if (settings := wanted(plan)) is not None:
        plan.method_class.check_warm_start(settings, plan.public)


def check(plan: Plan, folder: Path | None, data: PrivateData) -> None:
    """Raises UserError unless `folder` is the whole warm start that a plan's run on `data` begins from."""
    settings = wanted(plan)
    if settings is None:
        if folder is not None:
            raise UserError(f"{plan.method} starts from no warm start with these settings; leave out {folder}")
        return
    how = "make it by python -m methods warm-start"
    if folder is None:
        raise UserError(f"{plan.method} starts from a warm start with these settings and no folder was given; {how}")
    if not (folder / "done.json").exists():
        raise UserError(f"{folder} holds no whole warm start: it has no done.json; {how}")
    done = read_json(folder / "done.json")
    for name, asked in (("settings", settings), ("seed", plan.seed)):
        made = done.get(name) if isinstance(done, dict) else None
        if made != asked:
            raise UserError(f"{folder} is a warm start of other {name}, {shown(made)}, not {asked}; {how}")
    if done.get("records") != noise_key.of_warm_start(data):
        raise UserError(f"{folder} is a warm start of other training records than the run's; {how}")
    _check_files(folder, done.get(FILES, {}))
    computed_in(folder)


def _check_files(folder: Path, digests: Any) -> None:
    """Raises UserError unless all files of a warm start are what they were when it was done."""
    for name, digest in digests.items() if isinstance(digests, dict) else [("done.json", None)]:
        path = folder / name
        if not path.is_file() or sha256(path) != digest:
            what = "was changed or exchanged" if path.is_file() else "is gone"
            raise UserError(
                f"{path} {what} since the warm start was made: restore it, or remove {folder} and make it again by"
                " python -m methods warm-start, or by the same run"
            )


def computed_in(folder: Path | None) -> str:
    """Returns what all processes that made a whole warm start computed in; empty where there is none, or none says so.

    Raises UserError for a done.json that says what cannot be.
    """
    return "" if folder is None else _stated(folder / "done.json")


def _stated(path: Path) -> str:
    """Returns what a JSON file states that networks were computed in; empty where it is not there, or says nothing."""
    if not path.exists():
        return ""
    known = {COMPUTED_IN: is_one_of("", *PRECISIONS, BOTH)}
    with reading(path, "does not say what it was computed in", "remove its folder and make it again"):
        return fields({COMPUTED_IN: "", **read_json(path)}, known)[COMPUTED_IN]


def prepared(plan: Plan, data: PrivateData, device: torch.device, run: Path, data_digest: str | None) -> Path | None:
    """Returns the folder of a plan's warm start under `run`/private, made if need be; None where it needs none."""
    settings = wanted(plan)
    if settings is None:
        return None
    folder = run / "private" / "critics"
    source = _source(settings, plan.public, plan.seed, data, data_digest)
    # Begun from other records, it would carry these into a run that charges the new ones.
    if not (folder / "done.json").exists() or read_json(folder / WARM_START_SOURCE) != source:
        make(plan.method, settings, plan.public, data, plan.seed, device, folder, data_digest)
    return folder


def make(
    method: str,
    settings: Mapping[str, Any],
    public: PublicSpec,
    data: PrivateData,
    seed: int,
    device: torch.device,
    out: Path,
    data_digest: str | None = None,
) -> None:
    """Writes the artifact of `Method.warm_start` and, last, done.json into `out`; what is there already is kept.

    `settings` may hold numbers that follow the data (see PerRecord). `data_digest` names the training file: what was
    begun from another one is discarded. Raises UserError, before that, for settings that cannot be, a method without a
    warm start, and a folder in which another process works.
    """
    source = _source(settings, public, seed, data, data_digest)
    settings = source["settings"]
    registry.load(method).check_warm_start(settings, public)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is no folder; give an empty or a new one")
    # Before anything is discarded: a process that works on other records would go on beside this one.
    with locked(out):
        _discard_others(out, source)
        started = time.monotonic()
        # An empty plan: nothing of this step may leave it, so every read is internal.
        path = out / "ledger.jsonl"
        begun = path.exists()
        with Ledger.open(path, (), NO_BUDGET, resume=begun) as ledger:
            context = Context(public, (), seed, device)
            # What an earlier version began has no note, and nobody knows what its part was computed in.
            with _noted(out, "" if begun and not (out / _NOTE).exists() else computes_in(device, settings)):
                registry.load(method).make_warm_start(settings, context, data, ledger, out)
        seconds = round(time.monotonic() - started, 3)
        files = {path.name: sha256(path) for path in _files(out)}
        done = {"settings": settings, "seed": seed, "records": source["records"], FILES: files}
        done |= {"seconds": seconds, **({COMPUTED_IN: computed} if (computed := _stated(out / _NOTE)) else {})}
        write_json(out / "done.json", {**done, "provenance": provenance()})


def _files(out: Path) -> list[Path]:
    return sorted(out.glob("*.safetensors"))


@contextlib.contextmanager
def _noted(out: Path, computes: str) -> Iterator[None]:
    """Notes in a warm start's folder that this process computes in `computes` a part of what is made in the block.

    Before that, as a kill may come; of a process that found all files there, what they were computed in before stays.
    """
    note, files = out / _NOTE, _files(out)
    before = _stated(note)
    if now := together(before, computes):
        write_json(note, {COMPUTED_IN: now})
    yield
    # None is ever written anew.
    if now != before and files == _files(out):
        write_json(note, {COMPUTED_IN: before})


def _source(
    settings: Mapping[str, Any], public: PublicSpec, seed: int, data: PrivateData, train: str | None
) -> dict[str, Any]:
    """Returns what a warm start is made from, as its folder notes it."""
    return {
        "settings": {name: settled(value, public.num_train) for name, value in settings.items()},
        "seed": seed,
        "train": train,
        "records": noise_key.of_warm_start(data),
    }


def _discard_others(out: Path, source: dict[str, Any]) -> None:
    """Empties the folder of what was begun from other data or settings, and notes what this one is made from.

    Raises UserError for a folder of other things.
    """
    note = out / WARM_START_SOURCE
    clear_leftovers(out)
    there = [path for path in out.iterdir() if path.name != LOCK]
    if there and not note.exists():
        raise UserError(f"{out} holds {there[0].name}, which no warm start left there; choose another folder")
    if there and read_json(note) != source:
        # The note stays until it is written anew: without it nothing here would be known for what it is.
        for path in there:
            if path.is_dir():
                shutil.rmtree(path)
            elif path != note:
                path.unlink()
    write_json(note, source)
