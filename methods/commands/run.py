"""`python -m methods run NAME`: plan, warm start, training and samples of one run in one command, without Snakemake.

For a machine that has a GPU, torch and the prepared data set, and perhaps is lent by the quarter of an hour: with
`--minutes` the command stops in time, and the same command again continues. What it leaves outside `private/` is the
run's release: plan, ledger, log, generator, and samples in files below 16 MiB, which samples.json lists.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from methods.commands.arguments import (
    add_budget,
    add_machine,
    add_num,
    add_run,
    add_secret_noise,
    add_seed,
    add_settings,
    budget_of,
    overrides,
    read_plan,
    read_private,
    read_public,
    use_machine,
    warn_of_budget,
)
from methods.commands.describe import settings_of
from methods.core.runs import begun, finished, generator, outputs, parts, warm_start
from methods.core.runs.folder import held
from methods.core.runs.plan import Plan
from methods.core.runs.sample import draw
from methods.core.runs.train import train
from workflow.common import process
from workflow.common.contracts import LabelledImages
from workflow.common.errors import UserError
from workflow.common.files import read_json, write_json
from workflow.common.options import number
from workflow.common.rounding import up

# What a shell's caller is told by convention: try again later.
NOT_FINISHED = 75
_PLAN = "plan.json"
_PART_BYTES = 15 * 2**20
# Ten years, far below what a timer of the C library takes.
_MOST_MINUTES = 5_256_000

# Below the options of `--help`.
epilog = settings_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    minutes = number("--minutes", 0, _MOST_MINUTES, open_low=True)
    parser.add_argument("name", help="a method, see `python -m methods list`")
    parser.add_argument("--data", type=Path, required=True, help="folder with the data set's card.json and train.npz")
    add_budget(parser)
    add_settings(parser)
    add_run(parser)
    add_seed(parser)
    add_num(parser, "images to draw (default 60000)", 60_000)
    stops = "stop after so long, at the end of a step, with exit code 75; the same call continues"
    parser.add_argument("--minutes", type=minutes, help=stops)
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    add_secret_noise(parser)
    add_machine(parser)


def run(arguments: argparse.Namespace) -> None:
    """Does whatever of the run is not done yet.

    Raises UserError for a setting that does not fit the data, the budget, or what the folder was begun with, and
    SystemExit with code 75 when time is up.
    """
    device = use_machine(arguments)
    plan = _plan(arguments)
    data = read_private(arguments.data / "train.npz", plan.public)
    _begin(arguments.out, plan)
    outputs.restore(arguments.out, plan)
    if outputs.is_whole(arguments.out):
        finished.check_record(arguments.out)
        # However long that takes: they are drawn as a whole, and the next call would be no further.
        _samples(plan, arguments, device)
    else:
        with _within(arguments.minutes, arguments.out) as stop_anywhere:
            digest = read_json(arguments.data / "card.json")["splits"]["train"].get("sha256")
            critics = warm_start.prepared(plan, data, device, arguments.out, digest)
            train(plan, data, arguments.out, device, critics, secret_noise=arguments.secret_noise)
            stop_anywhere()
            _samples(plan, arguments, device)
    spent = ", ".join(f"epsilon {up(cost)} by the {count} count" for count, cost in plan.costs.items()) or "no privacy"
    print(f"{arguments.out}: trained with {spent}; {arguments.num} images, which `join` puts into one file")


def _plan(arguments: argparse.Namespace) -> Plan:
    if not (arguments.data / "card.json").is_file():
        raise UserError(
            f"{arguments.data} holds no card.json; --data is a folder that `python -m workflow.datasets NAME --out DIR`"
            " makes"
        )
    budget, public = budget_of(arguments), read_public(arguments.data / "card.json")
    if arguments.out.resolve() == arguments.data.resolve():
        raise UserError(f"--out {arguments.out} is the folder of the data; choose another")
    hyper = overrides(arguments, arguments.name, public.dataset, budget.epsilon)
    plan = Plan.make(arguments.name, arguments.run or arguments.name, hyper, public, budget, arguments.seed)
    if plan.costs:
        warn_of_budget(budget.epsilon, budget.delta, public.num_train)
    _check_begun(arguments.out, plan)
    return plan


def _begin(folder: Path, plan: Plan) -> None:
    """Writes the plan into a folder that has none. Raises UserError where the folder was begun with another one."""
    if not (folder / _PLAN).exists():
        with held(folder):
            # Another call may have begun the folder meanwhile.
            if not (folder / _PLAN).exists():
                write_json(folder / _PLAN, plan.to_dict())
    _check_begun(folder, plan)


def _check_begun(folder: Path, plan: Plan) -> None:
    if (folder / _PLAN).exists():
        begun.check_plan(read_plan(folder / _PLAN), plan, folder)


def _samples(plan: Plan, arguments: argparse.Namespace, device: torch.device) -> None:
    if parts.is_whole(arguments.out, plan, arguments.num):
        return
    # Parts of two calls of different numbers would be no set.
    with held(arguments.out):
        samples = LabelledImages(*draw(plan, generator.load(arguments.out), arguments.num, device))
        parts.write(arguments.out, plan, samples, max(1, _PART_BYTES // samples.images[0].size))


@contextmanager
def _within(minutes: float | None, folder: Path) -> Iterator[Callable[[], None]]:
    """Ends a block when time is up: at the end of a step, and once what it yields was called, anywhere.

    The time is that of the command, whose imports and preparations may have taken a part of it before the block.
    However short the time, a step of warm start or training is done and kept, so that every call gets on. A SIGTERM
    from elsewhere ends the block in the same way, but with its own exit code. Time that is up when all is done is not.
    """
    if minutes is None:
        yield lambda: None
        return
    is_up = threading.Event()

    def time_is_up(process_id: int, number: int) -> None:
        is_up.set()
        os.kill(process_id, number)

    def stop(number: int, _: Any) -> None:
        raise process.Stopped(number, "")

    with _heard(signal.SIGTERM), process.Signals(signal.SIGTERM) as signals:

        def stop_anywhere() -> None:
            signal.signal(signal.SIGTERM, stop)
            signals.stop("")

        left = max(0.0, 60 * minutes - process.seconds_so_far())
        timer = threading.Timer(left, time_is_up, (os.getpid(), signal.SIGTERM))
        timer.daemon = True
        timer.start()
        try:
            yield stop_anywhere
        except SystemExit as end:
            if not is_up.is_set() or end.code != 128 + signal.SIGTERM:
                raise
            kept = getattr(end, "kept", "") or f"the same command continues from {folder}"
            print(f"not finished after {minutes:g} min: {kept}", file=sys.stderr)
            raise SystemExit(NOT_FINISHED) from None
        finally:
            # Its signal may be under way; elsewhere it would end the process.
            signal.signal(signal.SIGTERM, signals.note)
            timer.cancel()
            timer.join()
            if is_up.is_set():
                signals.received = 0


@contextmanager
def _heard(number: int) -> Iterator[None]:
    """Lets a signal that is ignored, as below a shell's `trap '' TERM`, come through in a block."""
    if signal.getsignal(number) is not signal.SIG_IGN:
        yield
        return
    signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(number, signal.SIG_IGN)
