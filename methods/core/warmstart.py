"""`python -m methods.core.warmstart`: makes a private artifact that several runs start from; continues after a kill."""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

from methods.core import registry
from methods.core.arguments import add_machine, json_argument, private_data, public_spec, use_machine
from methods.core.method import Context
from methods.core.privacy import Budget, Ledger
from workflow.common.errors import command
from workflow.common.files import read_json, write_json
from workflow.common.provenance import provenance


def _discard_others(out: Path, source: dict[str, Any]) -> None:
    """Empties the folder of what was begun from other data or settings, and notes what this one is made from."""
    note = out / "source.json"
    if out.exists() and (not note.exists() or read_json(note) != source):
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    write_json(note, source)


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m methods.core.warmstart", description=__doc__)
    parser.add_argument("--method", required=True)
    parser.add_argument("--settings", required=True, help="what Method.warm_start returned, as JSON or a path")
    parser.add_argument("--card", required=True, help="card.json of the data set")
    parser.add_argument("--data", required=True, help="train.npz of the data set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="a folder; done.json marks it complete")
    add_machine(parser)
    arguments = parser.parse_args(argv)
    device = use_machine(arguments)
    card = json_argument(arguments.card)
    public = public_spec(card)
    settings = json_argument(arguments.settings)
    data = private_data(arguments.data, public)
    source = {"settings": settings, "seed": arguments.seed, "train": card["splits"]["train"].get("sha256")}
    _discard_others(arguments.out, source)
    started = time.monotonic()
    # An empty plan: nothing of this step may leave it, so every read is internal.
    path = arguments.out / "ledger.jsonl"
    with Ledger.open(path, (), Budget(float("inf"), 0.5, "none"), resume=path.exists()) as ledger:
        registry.load(arguments.method).make_warm_start(
            settings, Context(public, (), arguments.seed, device), data, ledger, arguments.out
        )
    done = {"settings": settings, "seed": arguments.seed, "seconds": round(time.monotonic() - started, 3)}
    write_json(arguments.out / "done.json", {**done, "provenance": provenance()})


if __name__ == "__main__":
    raise SystemExit(main())
