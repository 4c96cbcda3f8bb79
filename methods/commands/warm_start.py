"""`python -m methods warm-start`: a private artifact that several runs start from; continues after a kill."""

from __future__ import annotations

import argparse
from pathlib import Path

from methods.commands.arguments import add_machine, add_seed, read_private, use_machine
from methods.core.release import PublicSpec
from methods.core.runs import warm_start
from methods.core.speed.precision import tell_if_widened
from workflow.common.files import json_or_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("--method", required=True, help="a method, see `python -m methods list`")
    parser.add_argument("--settings", required=True, help="what Method.warm_start returned, as JSON or a path")
    parser.add_argument("--card", required=True, help="card.json of the data set")
    parser.add_argument("--data", required=True, help="train.npz of the data set")
    add_seed(parser)
    parser.add_argument("--out", type=Path, required=True, help="a folder; done.json marks it complete")
    add_machine(parser)


def run(arguments: argparse.Namespace) -> None:
    """Makes the artifact. Raises UserError for a method without one, or data that are not the card's."""
    device = use_machine(arguments)
    card = json_or_path(arguments.card)
    public = PublicSpec.from_card(card)
    data = read_private(arguments.data, public)
    settings = json_or_path(arguments.settings)
    tell_if_widened(device, settings)
    warm_start.make(
        arguments.method, settings, public, data, arguments.seed, device, arguments.out,
        card["splits"]["train"].get("sha256"),
    )  # fmt: skip
