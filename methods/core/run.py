"""`python -m methods run NAME`: plan, warm start, training and samples of one run in one command, without Snakemake.

For a machine that has a GPU, torch and the prepared data set, and perhaps is lent by the quarter of an hour: with
`--minutes` the command stops in time, and the same command again goes on. What it leaves outside `private/` is the
run's release: plan, ledger, log, generator, and samples in files below 16 MiB.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from methods.core import checkpoint, registry, warmstart
from methods.core.account import settings
from methods.core.arguments import add_machine, context, json_argument, private_data, public_spec, use_machine
from methods.core.plan import make_plan
from methods.core.privacy import Budget
from methods.core.private_data import PrivateData
from methods.core.sample import draw
from methods.core.train import train
from workflow.common.contracts import ACCOUNTINGS, load_images, parse_epsilon
from workflow.common.errors import UserError
from workflow.common.files import read_json, write_json, write_npz

# What a shell's caller is told by convention: try again later.
NOT_FINISHED = 75
_PART_BYTES = 15 * 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("name", help="a method, see `python -m methods list`")
    parser.add_argument("--data", type=Path, required=True, help="folder with the data set's card.json and train.npz")
    parser.add_argument("--epsilon", default="10", help="a number above 0, or inf (default 10)")
    parser.add_argument("--delta", type=float, default=1e-5, help="default 1e-5")
    parser.add_argument("--accounting", default="sound", help=f"{', '.join(ACCOUNTINGS)} (default sound)")
    parser.add_argument("--over-budget", action="store_true", help="train even if the plan costs more than epsilon")
    parser.add_argument("--paper", action="store_true", help="start from the published settings")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a hyper-parameter that differs; repeatable"
    )
    parser.add_argument("--run", help="name of the run (default: the method)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num", type=int, default=60_000, help="images to draw (default 60000)")
    parser.add_argument("--minutes", type=float, help="stop after so long, at exit code 75; the same call continues")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    add_machine(parser)


def run(arguments: argparse.Namespace) -> None:
    """Does whatever of the run is not done yet.

    Raises UserError for a setting that does not fit the data, the budget, or what the folder was begun with, and
    SystemExit with code 75 when time is up.
    """
    if arguments.num < 1:
        raise UserError(f"--num must be at least 1, got {arguments.num}")
    if arguments.minutes is not None and arguments.minutes <= 0:
        raise UserError(f"--minutes must be above 0, got {arguments.minutes:g}")
    device = use_machine(arguments)
    plan = _plan(arguments)
    data = private_data(arguments.data / "train.npz", context(plan, device).public)
    with _within(arguments.minutes, arguments.out):
        if not (arguments.out / "run.json").exists():
            warm = _warm_start(plan, arguments, data, device)
            train(plan, data, arguments.out, device, warm)
        _samples(plan, arguments, device)


def join(folder: Path, out: Path) -> None:
    """Writes samples.npz from the parts that `run` left in `folder`. Raises UserError if there are none."""
    paths = sorted(folder.glob("samples-*.npz"))
    if not paths:
        raise UserError(f"no samples-*.npz in {folder}; make them with python -m methods run")
    parts = [load_images(path) for path in paths]
    write_npz(
        out,
        images=np.concatenate([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
    )


def _plan(arguments: argparse.Namespace) -> dict[str, Any]:
    target = parse_epsilon(arguments.epsilon)
    budget = Budget(target, arguments.delta, arguments.accounting, arguments.over_budget)
    public = public_spec(json_argument(str(arguments.data / "card.json")))
    published = registry.paper_settings(arguments.name, public.dataset, target) if arguments.paper else {}
    hyper = {**published, **settings(arguments.set)}
    plan = make_plan(arguments.name, arguments.run or arguments.name, hyper, public, budget, arguments.seed)
    path = arguments.out / "plan.json"
    if not path.exists():
        write_json(path, plan)
    # As read back: JSON has no tuples.
    elif read_json(path) != json.loads(json.dumps(plan)):
        raise UserError(f"{arguments.out} was begun with other settings; use those, or another --out")
    return read_json(path)


def _warm_start(
    plan: dict[str, Any], arguments: argparse.Namespace, data: PrivateData, device: torch.device
) -> Path | None:
    wanted = registry.load(plan["method"]).warm_start(registry.hyper(plan["method"], plan["hyper"]))
    if wanted is None:
        return None
    folder = arguments.out / "private" / "critics"
    if not (folder / "done.json").exists():
        card = json_argument(str(arguments.data / "card.json"))
        warmstart.make(plan["method"], wanted, card, data, plan["seed"], device, folder)
    return folder


def _samples(plan: dict[str, Any], arguments: argparse.Namespace, device: torch.device) -> None:
    images, labels = draw(plan, checkpoint.load_generator(arguments.out), arguments.num, device)
    each = max(1, _PART_BYTES // images[0].size)
    for place, start in enumerate(range(0, len(images), each)):
        path, part = arguments.out / f"samples-{place:03d}.npz", slice(start, start + each)
        write_npz(path, images=images[part], labels=labels[part])


@contextmanager
def _within(minutes: float | None, folder: Path) -> Iterator[None]:
    """Lets training end at a step's end, with a checkpoint, when time is up; a warm start keeps its finished files."""
    if minutes is None:
        yield
        return

    def stop(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    timer = threading.Timer(60 * minutes, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    try:
        timer.start()
        yield
    except SystemExit as end:
        if end.code != 128 + signal.SIGTERM:
            raise
        print(f"not finished after {minutes:g} min: the same command goes on from {folder}", file=sys.stderr)
        raise SystemExit(NOT_FINISHED) from None
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)
