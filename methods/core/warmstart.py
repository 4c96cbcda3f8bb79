"""`python -m methods.core.warmstart`: makes a private artifact that several runs start from; continues after a kill."""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from methods.core import registry
from methods.core.arguments import add_machine, json_argument, private_data, public_spec, use_machine
from methods.core.method import Context
from methods.core.privacy import Budget, Ledger
from methods.core.private_data import PrivateData
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


def make(
    method: str,
    settings: dict[str, Any],
    card: dict[str, Any],
    data: PrivateData,
    seed: int,
    device: torch.device,
    out: Path,
) -> None:
    """Writes the artifact of `Method.warm_start` and, last, done.json into `out`; what is there already is kept.

    `card` is the data set's. Raises UserError for a method without a warm start.
    """
    source = {"settings": settings, "seed": seed, "train": card["splits"]["train"].get("sha256")}
    _discard_others(out, source)
    started = time.monotonic()
    # An empty plan: nothing of this step may leave it, so every read is internal.
    path = out / "ledger.jsonl"
    with Ledger.open(path, (), Budget(float("inf"), 0.5, "none"), resume=path.exists()) as ledger:
        context = Context(public_spec(card), (), seed, device)
        registry.load(method).make_warm_start(settings, context, data, ledger, out)
    done = {"settings": settings, "seed": seed, "seconds": round(time.monotonic() - started, 3)}
    write_json(out / "done.json", {**done, "provenance": provenance()})


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
    data = private_data(arguments.data, public_spec(card))
    settings = json_argument(arguments.settings)
    make(arguments.method, settings, card, data, arguments.seed, device, arguments.out)


if __name__ == "__main__":
    raise SystemExit(main())
