"""`python -m methods train`: trains one run under its ledger; continues where a killed run stopped."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from methods.commands.arguments import add_machine, add_secret_noise, read_plan, read_private, use_machine
from methods.core.accounting.calibration import COUNTS
from methods.core.runs.train import train
from workflow.common.durations import steps_in
from workflow.common.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("--plan", required=True, help="plan.json of the run")
    parser.add_argument("--data", required=True, help="train.npz of the data set")
    parser.add_argument("--warm-start", type=Path, help="folder of the warm-started critics, for methods that use one")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument(
        "--again", action="store_true",
        help="train a finished run once more, which charges the same records once more; says what that costs in all",
    )  # fmt: skip
    add_secret_noise(parser)
    add_machine(parser)


def run(arguments: argparse.Namespace) -> None:
    """Trains the run.

    Raises UserError for data that do not fit the plan, a folder that another plan began, or a finished run without
    --again.
    """
    device = use_machine(arguments)
    plan = read_plan(arguments.plan)
    if len(plan.costs) < len(COUNTS) and math.isfinite(plan.budget.epsilon):
        raise UserError(f"{arguments.plan} does not say what its run costs; make it by python -m methods plan")
    data = read_private(arguments.data, plan.public)
    record = train(
        plan, data, arguments.out, device, arguments.warm_start,
        secret_noise=arguments.secret_noise, again=arguments.again,
    )  # fmt: skip
    print(f"{plan.run}: {steps_in(record['steps_done'], record['train_seconds'])}", file=sys.stderr)
