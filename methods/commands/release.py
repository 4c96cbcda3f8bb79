"""`python -m methods release RUN`: a private synthetic set in one folder that may be given away.

The noise comes from a key of the operating system that is written nowhere. Until the folder is whole, the run lives in
OUT.private, where the same command continues after a kill; it is removed at the end. What was spent on the pictures
stays with their owner, in spent.jsonl beside the data.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from methods.commands.arguments import (
    add_delta,
    add_machine,
    add_num,
    assignments,
    largest_delta,
    read_private_parts,
    use_machine,
)
from methods.core.privacy.private_data import PrivateData
from methods.core.release import Budget, PublicSpec, emptiness
from methods.core.released.workplace import Begun, Workplace
from methods.core.released.writer import check_names, write
from methods.core.runs import generator, outputs, spent, warm_start
from methods.core.runs.configured import SOUND, Configured, configured
from methods.core.runs.plan import Plan
from methods.core.runs.rehearsal import rehearse
from methods.core.runs.sample import draw
from methods.core.runs.train import train
from workflow.common.contracts import parse_epsilon
from workflow.common.errors import UserError
from workflow.common.files import cannot_write, read_json
from workflow.common.rounding import up


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("name", metavar="RUN", help="a row of the preset, such as dp_gauss")
    parser.add_argument("--data", type=Path, required=True, help="folder that `python -m workflow.datasets` made")
    parser.add_argument("--out", type=Path, required=True, help="the folder to give away; must not exist yet")
    parser.add_argument("--epsilon", help="privacy budget by the sound count (default: the row's, 10 in preset own)")
    add_delta(parser, None, "default: the preset's, or less: below 1 / records")
    parser.add_argument("--preset", default="own", help="whose row it is (default own)")
    parser.add_argument("--configfile", type=Path, help="a configuration of your own, in place of --preset")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a hyper-parameter that differs; repeatable"
    )
    add_num(parser, "images to draw (default: as many as there are records)")
    parser.add_argument("--parquet", action="store_true", help="also as Parquet, for Hugging Face `datasets`")
    add_machine(parser)


def run(arguments: argparse.Namespace) -> None:
    """Trains, samples and writes the folder; does whatever of it is not done yet.

    Raises UserError, before anything is charged, for a folder that exists, unknown names or settings, records that do
    not fit their card, a budget that protects nobody, or what does not agree with the release begun in OUT.private.
    """
    device = use_machine(arguments)
    place = Workplace(_out(arguments))
    card = _card(arguments.data)
    row = configured(arguments.name, card["dataset"], arguments.preset, arguments.configfile)
    if place.out.exists() and not place.folder.exists():
        raise _taken(place.out)
    with place.held():
        if place.is_published():
            # A kill may have come between the two steps, before the name was on disk, or while the folder was removed.
            place.settle()
            if (before := place.begun()) is not None:
                spent.mark_published(arguments.data, before.id)
            place.remove()
            moved = "" if place.out.exists() else ", and it has been moved away; call again for another release"
            print(f"{place.out} is whole: an earlier call made it{moved}")
            return
        if place.out.exists() or place.out.is_symlink():
            raise _taken(place.out)
        public, digest, data = _records(arguments.data, card)
        begun = _begun(arguments, row, public, digest, place, device)
        _say_empty(begun.plan)
        spent.record(arguments.data, _entry(begun, arguments))
        _say_deduced(card)
        try:
            _make(begun.plan, arguments, card, data, digest, place, device)
            spent.mark_published(arguments.data, begun.id)
            place.remove()
        except OSError as error:
            raise cannot_write(error.filename or place.folder, error) from None
    _tell(begun.plan, arguments, card)


def _out(arguments: argparse.Namespace) -> Path:
    # Made absolute without following links: `.` and a slash at the end have no name of their own.
    out = Path(os.path.abspath(arguments.out))
    if not out.name or len(os.fsencode(out.name)) > 200 or "\0" in out.name:
        raise UserError(f"--out must name a folder to make, in at most 200 bytes; got {str(arguments.out)!r}")
    if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(arguments.data)):
        raise UserError(f"--out {arguments.out} lies in {arguments.data}, whose files are private; choose another")
    return out


def _taken(out: Path) -> UserError:
    if not out.exists():
        return UserError(f"{out} is a link to {os.readlink(out)}, which is not there; remove it or choose another")
    return UserError(f"{out} exists; a release is not written over: choose an --out that does not exist yet")


def _card(data: Path) -> dict[str, Any]:
    """Returns the data set's card. Raises UserError where there is none, or its names are not those of its classes."""
    if not (data / "card.json").is_file():
        raise UserError(
            f"{data} holds no card.json; --data is a folder that `python -m workflow.datasets NAME --folder PICTURES"
            " --out DIR` makes"
        )
    card = read_json(data / "card.json")
    public = PublicSpec.from_card(card)
    check_names(public, card.get("class_names"), data / "card.json")
    if not isinstance(card["splits"]["train"].get("sha256"), str):
        raise UserError(f"{data / 'card.json'} has no sha256 of its records; make the data again")
    return card


def _records(folder: Path, card: dict[str, Any]) -> tuple[PublicSpec, str, PrivateData]:
    """Returns the public facts, the hash and the records that are released: those of the card's splits in `_splits`."""
    public = PublicSpec.from_card(card)
    splits = {name: card["splits"][name] for name in _splits(card, folder / "card.json")}
    counts = {folder / f"{name}.npz": split["count"] for name, split in splits.items()}
    digest = "+".join(split["sha256"] for split in splits.values())
    public = dataclasses.replace(public, num_train=sum(counts.values()))
    return public, digest, read_private_parts(counts, public)


def _splits(card: dict[str, Any], where: Path) -> tuple[str, ...]:
    """Returns the splits that a release is made from: train, and test unless the owner himself set that one apart.

    Which pictures are drawn for a test split follows from how many each class has: with one picture more, less or in
    another class, others would be trained on, and the promise, which is for one, would not cover them.
    """
    if {"deduced", "test_split"} <= card.keys() and not isinstance(card.get("test_drawn"), bool):
        raise UserError(f"{where} does not say whether its test split was drawn (test_drawn); make the data again")
    if not card.get("test_drawn"):
        return ("train",)
    test = card["splits"].get("test")
    if not (isinstance(test, dict) and type(test.get("count")) is int and isinstance(test.get("sha256"), str)):
        raise UserError(f"{where} has no count and sha256 of its test split; make the data again")
    return ("train", "test")


def _say_deduced(card: dict[str, Any]) -> None:
    if card.get("deduced"):
        print(
            f"notice: {' and '.join(card['deduced'])} of the images were deduced from these pictures and are given away"
            " with them; to keep that from telling of them, state them (--size, --mode) when the data are made",
            file=sys.stderr,
        )


def _say_empty(plan: Plan) -> None:
    if why := emptiness(plan.costs[SOUND], plan.budget.delta):
        print(
            f"notice: epsilon {up(plan.costs[SOUND])} promises next to nothing: {why}; to protect the pictures, stop"
            " this and choose another --out with a smaller --epsilon, such as 10 or 1",
            file=sys.stderr,
        )


def _begun(
    arguments: argparse.Namespace, row: Configured, public: PublicSpec, digest: str, place: Workplace,
    device: torch.device,
) -> Begun:  # fmt: skip
    """Returns the release begun before, or begins one with the plan that the command asks for.

    Raises UserError, and begins none, for a plan whose run cannot work.
    """
    before = place.begun()
    budget = _budget(arguments, row, public.num_train)
    hyper = {**row.settings(budget.epsilon), **assignments(arguments.set)}
    # The first seed is the operating system's, so that no two releases share weights or draws.
    seed = before.plan.seed if before else secrets.randbits(63)
    plan = Plan.make(row.method, arguments.name, hyper, public, budget, seed)
    if before is None:
        warm_start.check_settings(plan)
        rehearse(plan, device)
        return place.begin(plan, digest)
    if before.plan != plan or before.train != digest:
        what = "settings" if before.plan != plan else "pictures"
        raise UserError(
            f"{place.folder} holds a release begun with other {what}; continue with those, or choose another --out"
            " (what it has charged stays spent)"
        )
    print(f"continuing the release begun in {place.folder}", file=sys.stderr)
    return before


def _budget(arguments: argparse.Namespace, row: Configured, records: int) -> Budget:
    if arguments.epsilon is None and len(row.epsilons) != 1:
        raise UserError(f"run {arguments.name} has {len(row.epsilons)} budgets; choose one by --epsilon")
    epsilon = row.epsilons[0] if arguments.epsilon is None else parse_epsilon(arguments.epsilon, endless=False)
    if math.isinf(epsilon):
        raise UserError("--epsilon inf protects nobody: a release needs a finite one, such as 10 or 1")
    below = largest_delta(records)
    delta = min(row.delta, below) if arguments.delta is None else arguments.delta
    if delta * records >= 1:
        raise UserError(
            f"--delta {delta:g} is not below 1 / records = {1 / records:g}: it would allow giving one picture away"
            f" whole; use --delta {below:g}"
        )
    return Budget(epsilon, delta, SOUND)


def _entry(begun: Begun, arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns what the owner's record says of a release."""
    return {
        "id": begun.id,
        "date": datetime.now(UTC).date().isoformat(),
        "run": begun.plan.run,
        "method": begun.plan.method,
        "epsilon": begun.plan.costs[SOUND],
        "delta": begun.plan.budget.delta,
        "records": begun.plan.public.num_train,
        "adjacency": sorted({release.adjacency for release in begun.plan.releases}),
        "out": str(arguments.out),
    }


def _make(
    plan: Plan, arguments: argparse.Namespace, card: dict[str, Any], data: PrivateData, digest: str, place: Workplace,
    device: torch.device,
) -> None:  # fmt: skip
    """Trains where that is not done, draws the images, and publishes the folder."""
    outputs.restore(place.folder, plan)
    if not outputs.is_whole(place.folder):
        place.check_run()
        critics = warm_start.prepared(plan, data, device, place.folder, digest)
        train(plan, data, place.folder, device, critics, secret_noise=True, begins_to_charge=place.note_charging)
    classes = plan.public.num_classes
    count = arguments.num or math.ceil(plan.public.num_train / classes) * classes
    state = generator.load(place.folder)
    images, labels = draw(plan, state, count, device)
    names, deduced = card["class_names"], card.get("deduced", ())
    write(place.partial(), plan, names, images, labels, state, parquet=arguments.parquet, deduced=deduced)
    place.publish()


def _tell(plan: Plan, arguments: argparse.Namespace, card: dict[str, Any]) -> None:
    releases = spent.entries(arguments.data)
    print(
        f"{arguments.out} may be given away: {plan.method}, epsilon {up(plan.costs[SOUND])} by the sound count at delta"
        f" {plan.budget.delta:g}; look at its contact_sheet.png, and read its DATASHEET.md\n"
        f"release {len(releases)} from {arguments.data}, which has spent in all, by basic composition,"
        f" {spent.total(releases)} ({arguments.data / spent.FILE}; releases of the same pictures from another"
        " folder add to it)"
    )
    _say_earlier(card, releases)


def _say_earlier(card: dict[str, Any], releases: list[dict[str, Any]]) -> None:
    """Says on stderr where a sum holds epsilons that are none for the pictures."""
    # While a release was made from what a draw had left, its number of records was not written down.
    earlier = sum("records" not in one for one in releases)
    if card.get("test_drawn") and earlier:
        print(
            f"notice: {earlier} of these {len(releases)} releases were made by an earlier version, from what the draw"
            " of a test split had left: their epsilons are for that split and not for the pictures, of which they may"
            " have spent more (docs/privacy.md, \"Which records\")",
            file=sys.stderr,
        )
