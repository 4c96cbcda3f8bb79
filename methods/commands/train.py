"""`python -m methods train`: trains one run under its ledger; continues where a killed run stopped."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from methods.commands.arguments import add_machine, read_plan, read_private, use_machine
from methods.core.runs.train import train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("--plan", required=True, help="plan.json of the run")
    parser.add_argument("--data", required=True, help="train.npz of the data set")
    parser.add_argument("--warm-start", type=Path, help="folder of the warm-started critics, for methods that use one")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    add_machine(parser)


def run(arguments: argparse.Namespace) -> None:
    """Trains the run. Raises UserError for data that do not fit the plan, or a folder that another plan began."""
    device = use_machine(arguments)
    plan = read_plan(arguments.plan)
    data = read_private(arguments.data, plan.public)
    record = train(plan, data, arguments.out, device, arguments.warm_start)
    print(f"{plan.run}: {record['steps_done']} steps in {record['train_seconds']:.0f} s", file=sys.stderr)
