"""A private artifact that several runs start from, made once and continued after a kill."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from methods.core import registry
from methods.core.method import Context
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import NO_BUDGET, PublicSpec
from methods.core.runs.plan import Plan
from workflow.common.errors import UserError
from workflow.common.files import read_json, write_json
from workflow.common.per_record import settled
from workflow.common.provenance import provenance


def wanted(plan: Plan) -> dict[str, Any] | None:
    """Returns the settings of the warm start that a plan's run begins from, None where it needs none."""
    return plan.method_class.warm_start(plan.hyper)


def prepared(plan: Plan, data: PrivateData, device: torch.device, run: Path, data_digest: str | None) -> Path | None:
    """Returns the folder of a plan's warm start under `run`/private, made if need be; None where it needs none."""
    settings = wanted(plan)
    if settings is None:
        return None
    folder = run / "private" / "critics"
    if not (folder / "done.json").exists():
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
    begun from another one is discarded. Raises UserError for a method without a warm start.
    """
    settings = {name: settled(value, public.num_train) for name, value in settings.items()}
    _discard_others(out, {"settings": settings, "seed": seed, "train": data_digest})
    started = time.monotonic()
    # An empty plan: nothing of this step may leave it, so every read is internal.
    path = out / "ledger.jsonl"
    with Ledger.open(path, (), NO_BUDGET, resume=path.exists()) as ledger:
        context = Context(public, (), seed, device)
        registry.load(method).make_warm_start(settings, context, data, ledger, out)
    done = {"settings": settings, "seed": seed, "seconds": round(time.monotonic() - started, 3)}
    write_json(out / "done.json", {**done, "provenance": provenance()})


def _discard_others(out: Path, source: dict[str, Any]) -> None:
    """Empties the folder of what was begun from other data or settings, and notes what this one is made from.

    Raises UserError for a folder of other files: they are not this command's to remove.
    """
    note = out / "source.json"
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is no folder; give an empty or a new one")
    if out.is_dir() and not note.exists() and (foreign := _foreign(out)):
        raise UserError(f"{out} holds {foreign}, which no warm start has left there; give an empty or a new folder")
    if out.exists() and (not note.exists() or read_json(note) != source):
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    write_json(note, source)


def _foreign(folder: Path) -> str:
    """Returns the name of some entry of a folder, empty if there is none but what atomic writes leave when killed."""
    return min((path.name for path in folder.iterdir() if not path.name.startswith(".")), default="")
