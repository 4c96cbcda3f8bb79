"""`python -m methods release RUN`: a private synthetic set in one folder that may be given away.

The noise comes from a key of the operating system that is written nowhere. Until the folder is whole, the run lives in
OUT.private, where the same command continues after a kill; it is removed at the end. What was spent on the pictures
stays with their owner, in spent.jsonl beside the data.
"""

from __future__ import annotations

import argparse
import math
import os
import secrets
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

from methods.commands.arguments import add_machine, assignments, read_plan, read_private, use_machine
from methods.core.release import Budget, PublicSpec
from methods.core.released.writer import write
from methods.core.runs import checkpoint, finished, spent, warm_start
from methods.core.runs.configured import SOUND, configured
from methods.core.runs.plan import Plan
from methods.core.runs.sample import draw
from methods.core.runs.train import train
from workflow.common.contracts import parse_epsilon
from workflow.common.errors import UserError
from workflow.common.files import read_json, write_json
from workflow.common.options import whole

DELTA = 1e-5
BEGUN = "begun.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("name", metavar="RUN", help="a row of the preset, such as dp_merf")
    parser.add_argument("--data", type=Path, required=True, help="folder that `python -m workflow.datasets` made")
    parser.add_argument("--out", type=Path, required=True, help="the folder to give away; must not exist yet")
    parser.add_argument("--epsilon", default="10", help="privacy budget by the sound count (default 10)")
    parser.add_argument("--delta", type=float, help="default 1e-5, or less: below 1 / records")
    parser.add_argument("--preset", default="own", help="whose row it is (default own)")
    parser.add_argument("--configfile", type=Path, help="a configuration of your own, in place of --preset")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a hyper-parameter that differs; repeatable"
    )
    parser.add_argument("--num", type=whole("--num"), help="images to draw (default: as many as there are records)")
    parser.add_argument("--parquet", action="store_true", help="also as Parquet, for Hugging Face `datasets`")
    add_machine(parser)


def run(arguments: argparse.Namespace) -> None:
    """Trains, samples and writes the folder; does whatever of it is not done yet.

    Raises UserError, before anything is charged, for a folder that exists, unknown names or settings, a budget that
    protects nobody, or what does not agree with the release begun in OUT.private.
    """
    device, out = use_machine(arguments), arguments.out
    work = out.with_name(f"{out.name}.private")
    _check_new(out, work)
    card = read_json(arguments.data / "card.json")
    plan = _plan(arguments, PublicSpec.from_card(card), work)
    data = read_private(arguments.data / "train.npz", plan.public)
    _begin(plan, arguments, card["splits"]["train"].get("sha256"), work)
    if not finished.is_complete(work):
        critics = warm_start.prepared(plan, data, device, work, card["splits"]["train"].get("sha256"))
        train(plan, data, work, device, critics, secret_noise=True)
    _write(plan, arguments, card["class_names"], work, device)
    _remove(work)
    releases = spent.entries(arguments.data)
    print(
        f"{out} may be given away: {plan.method}, epsilon {plan.costs[SOUND]:.4g} by the sound count at delta"
        f" {plan.budget.delta:g}; its DATASHEET.md says what that promises\n"
        f"{plan.public.dataset}: release {len(releases)} of these pictures, which have spent {spent.total(releases)}"
        f" in all by basic composition ({arguments.data / spent.FILE})"
    )


def _check_new(out: Path, work: Path) -> None:
    if out.exists() or out.is_symlink():
        if work.exists() and finished.is_complete(work):
            # Killed between the last two steps: the release is whole.
            _remove(work)
        raise UserError(f"{out} exists; a release is not written over: choose another --out, or remove it")
    if not out.name:
        raise UserError(f"--out must name a folder to make, got {str(out)!r}")


def _plan(arguments: argparse.Namespace, public: PublicSpec, work: Path) -> Plan:
    """Returns the plan that the command asks for; its seed is the operating system's, or that of the run begun."""
    row = configured(arguments.name, public.dataset, arguments.preset, arguments.configfile)
    hyper = {**row.hyper[public.dataset], **assignments(arguments.set)}
    begun = read_plan(work / "plan.json") if (work / BEGUN).exists() else None
    seed = begun.seed if begun else secrets.randbits(63)
    plan = Plan.make(row.method, arguments.name, hyper, public, _budget(arguments, public.num_train), seed)
    if begun and begun != plan:
        raise UserError(
            f"{work} holds a release begun with other settings or data; continue with those, or choose another --out"
            " (what it has charged stays spent)"
        )
    return plan


def _budget(arguments: argparse.Namespace, records: int) -> Budget:
    epsilon = parse_epsilon(arguments.epsilon)
    if math.isinf(epsilon):
        raise UserError("--epsilon inf protects nobody: a release needs a finite one, such as 10 or 1")
    below = 10.0 ** (math.ceil(-math.log10(records)) - 1)
    delta = min(DELTA, below) if arguments.delta is None else arguments.delta
    if delta * records >= 1:
        raise UserError(
            f"--delta {delta:g} is not below 1 / records = {1 / records:g}: it would allow giving one picture away"
            f" whole; use --delta {below:g}"
        )
    return Budget(epsilon, delta, SOUND)


def _begin(plan: Plan, arguments: argparse.Namespace, digest: str | None, work: Path) -> None:
    """Makes the working folder and records the release beside the data, before the first charge and once."""
    path = work / BEGUN
    if path.exists():
        begun = read_json(path)
        if begun["train"] != digest:
            raise UserError(
                f"{work} holds a release begun on other pictures than {arguments.data} has now; choose another --out"
            )
        print(f"continuing the release begun in {work}", file=sys.stderr)
    else:
        _make_private(work)
        begun = {"id": secrets.token_hex(8), "train": digest}
        write_json(work / "plan.json", plan.to_dict())
        write_json(path, begun)
    entry = {
        "id": begun["id"],
        "date": datetime.now(UTC).date().isoformat(),
        "run": plan.run,
        "method": plan.method,
        "epsilon": plan.costs[SOUND],
        "delta": plan.budget.delta,
        "adjacency": sorted({release.adjacency for release in plan.releases}),
        "out": str(arguments.out),
    }
    spent.record(arguments.data, entry)


def _make_private(work: Path) -> None:
    try:
        work.mkdir(mode=0o700, parents=True, exist_ok=True)
        others = sorted(path.name for path in work.iterdir() if path.name != "plan.json")
    except OSError as error:
        raise UserError(f"cannot make {work}, where the release is trained: {error.strerror}") from None
    if others:
        raise UserError(f"{work}, where the release would be trained, holds {others[0]}; choose another --out")


def _write(plan: Plan, arguments: argparse.Namespace, names: list[str], work: Path, device: torch.device) -> None:
    """Writes the folder among the private files and gives it its own name when it is whole."""
    classes = plan.public.num_classes
    count = arguments.num or math.ceil(plan.public.num_train / classes) * classes
    state = checkpoint.load_generator(work)
    images, labels = draw(plan, state, count, device)
    partial = work / "partial"
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir()
    write(partial, plan, names, images, labels, state, parquet=arguments.parquet)
    os.rename(partial, arguments.out)


def _remove(work: Path) -> None:
    """Removes the working folder; the run's record, which says that it is finished, goes last."""
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != finished.RECORD:
            path.unlink()
    shutil.rmtree(work)
