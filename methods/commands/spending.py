"""`python -m methods spending`: the privacy that runs spend over their course, by both counts, from their plans."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from methods.commands.arguments import read_plan
from methods.core.accounting.along import along
from methods.core.runs.plan import Plan
from workflow.common.at_file import AtFile
from workflow.common.contracts import format_epsilon
from workflow.common.files import csv_text, write_text

COLUMNS = ("dataset", "run", "epsilon", "accounting", "seed", "charges", "eps_published", "eps_sound")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("--plan", nargs="+", required=True, action=AtFile,
                        help="plan.json of runs, or @FILE that lists them; without privacy: passed over")  # fmt: skip
    parser.add_argument("--out", type=Path, help="csv to write; without it, the csv goes to stdout")


def run(arguments: argparse.Namespace) -> None:
    """Writes some 20 lines for each plan; reads no data. Raises UserError for a file that is no plan."""
    plans = [read_plan(path) for path in arguments.plan]
    rows = [row for plan in plans if math.isfinite(plan.budget.epsilon) for row in _rows(plan)]
    text = csv_text(COLUMNS, rows)
    if arguments.out is None:
        sys.stdout.write(text)
    else:
        write_text(arguments.out, text)


def _rows(plan: Plan) -> list[list[str]]:
    budget = plan.budget
    who = [plan.public.dataset, plan.run, format_epsilon(budget.epsilon), budget.accounting, str(plan.seed)]
    points = along(plan.releases, budget.delta, (plan.costs["published"], plan.costs["sound"]))
    return [[*who, str(charges), *(f"{value:.6g}" for value in spent)] for charges, *spent in points]
