"""`python -m methods audit`: lower bounds on epsilon, found by attack, next to the upper bounds of both counts."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from methods.commands.account import add_data, public_facts
from methods.commands.arguments import (
    MOST_IMAGES,
    add_budget,
    add_machine,
    add_seed,
    add_settings,
    budget_of,
    overrides,
    read_plan,
    read_private,
    use_machine,
)
from methods.commands.describe import settings_of
from methods.core.accounting.calibration import COUNTS, epsilon
from methods.core.audit import mechanism, whole_run
from methods.core.audit.bounds import CONFIDENCE
from methods.core.audit.mechanism import Audit
from methods.core.runs.plan import Plan
from workflow.common.at_file import AtFile
from workflow.common.contracts import format_epsilon
from workflow.common.errors import UserError
from workflow.common.files import csv_text, write_json, write_text
from workflow.common.options import number, whole
from workflow.common.rounding import up

ATTACKS = ("mechanism", "non_finite", "training")
COLUMNS = (
    "run", "dataset", "epsilon", "accounting", "seed", "attack", "uses", "max_uses", "canaries", "confidence",
    "epsilon_lower", "eps_published", "eps_sound",
)  # fmt: skip

# Below the options of `--help`.
epilog = settings_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command: --plan files, or a method and the settings that `account` takes."""
    parser.add_argument("name", nargs="?", help="a method, in place of --plan; see `python -m methods list`")
    parser.add_argument("--plan", nargs="+", default=[], action=AtFile,
                        help="plan.json of runs, or @FILE that lists them; without privacy: passed over")  # fmt: skip
    group = parser.add_argument_group("with a method, in place of --plan")
    add_data(group)
    add_budget(group)
    add_settings(group)
    parser.add_argument("--attack", default="mechanism", choices=ATTACKS, help="default mechanism")
    parser.add_argument(
        "--seconds",
        type=number("--seconds", 0, 1e6, open_low=True),
        default=10.0,
        help="nominal work a plan (default 10)",
    )
    parser.add_argument(
        "--uses", type=whole("--uses"), help="most uses audited of each release (default: as many as pay)"
    )
    parser.add_argument(
        "--canaries", type=whole("--canaries", 1, 10**7), help="coins (default: what --seconds pays for; training 200)"
    )
    parser.add_argument(
        "--samples", type=whole("--samples", 1, MOST_IMAGES), default=2000,
        help="training attack: images drawn (default 2000)",
    )  # fmt: skip
    parser.add_argument("--data", help="training attack: train.npz of the data set")
    confidence = number("--confidence", 0, 1, open_low=True)
    parser.add_argument("--confidence", type=confidence, default=CONFIDENCE, help=f"default {CONFIDENCE}")
    add_seed(parser, "--audit-seed", "of coins, canaries, draws and noise (default 0)")
    parser.add_argument("--out", type=Path, help="file to write, .csv or .json (default: csv on stdout)")
    add_machine(parser)


def run(arguments: argparse.Namespace) -> None:
    """Audits every plan and writes one row each; says on stderr where a lower bound exceeds a count.

    Raises UserError for bad input, or where nothing can be audited.
    """
    _check(arguments)
    plans = [read_plan(path) for path in arguments.plan] or [_plan(arguments)]
    private = [plan for plan in plans if not math.isinf(plan.budget.epsilon)]
    if not private:
        raise UserError("nothing to audit: no plan has a finite epsilon")
    device = use_machine(arguments)
    audits: dict[Any, Audit] = {}
    rows = []
    for plan in private:
        # The mechanism knows nothing of the run but its releases: equal ones, as of two data sets, are audited once.
        key = (plan.releases, plan.budget.delta) if arguments.attack != "training" else len(rows)
        if key not in audits:
            print(f"auditing {plan.run} on {plan.public.dataset}", file=sys.stderr)
            audits[key] = _attack(plan, arguments, device)
        rows.append(_row(plan, arguments.attack, audits[key]))
        _tell_of_excess(rows[-1])
    _write(rows, arguments.out)


def _check(arguments: argparse.Namespace) -> None:
    if bool(arguments.name) == bool(arguments.plan):
        raise UserError("give either --plan FILE ... or the name of a method")
    if not 0 < arguments.confidence < 1:
        raise UserError(f"--confidence must lie strictly between 0 and 1, got {arguments.confidence}")
    if (arguments.attack == "training") != bool(arguments.data):
        raise UserError("--attack training needs --data train.npz, and no other attack takes it")
    if arguments.out and arguments.out.suffix not in (".csv", ".json"):
        raise UserError(f"--out must end in .csv or .json, got {arguments.out}")


def _plan(arguments: argparse.Namespace) -> Plan:
    public, budget, name = public_facts(arguments), budget_of(arguments), arguments.name
    hyper = overrides(arguments, name, public.dataset, budget.epsilon)
    return Plan.make(name, name, hyper, public, budget, seed=0)


def _attack(plan: Plan, arguments: argparse.Namespace, device: torch.device) -> Audit:
    if arguments.attack == "training":
        return whole_run.audit(
            plan, read_private(arguments.data, plan.public), device, seed=arguments.audit_seed,
            canaries=arguments.canaries or whole_run.CANARIES, samples=arguments.samples,
            confidence=arguments.confidence,
        )  # fmt: skip
    return mechanism.audit(
        plan.releases, plan.budget.delta, seed=arguments.audit_seed, seconds=arguments.seconds, uses=arguments.uses,
        canaries=arguments.canaries, confidence=arguments.confidence, non_finite=arguments.attack == "non_finite",
    )  # fmt: skip


def _row(plan: Plan, attack: str, audit: Audit) -> dict[str, Any]:
    values = {
        "run": plan.run,
        "dataset": plan.public.dataset,
        "epsilon": format_epsilon(plan.budget.epsilon),
        "accounting": plan.budget.accounting,
        "seed": plan.seed,
        "attack": attack,
        "uses": sum(release.max_uses for release in audit.releases),
        "max_uses": sum(release.max_uses for release in plan.releases),
        "canaries": audit.canaries,
        "confidence": audit.confidence,
        # A bound from below is not to be rounded up.
        "epsilon_lower": math.floor(audit.epsilon_lower * 10_000) / 10_000,
        **{f"eps_{count}": epsilon(audit.releases, plan.budget.delta, count) for count in COUNTS},
    }
    return {name: values[name] for name in COLUMNS}


def _tell_of_excess(row: dict[str, Any]) -> None:
    for count in COUNTS:
        if row["epsilon_lower"] > row[f"eps_{count}"]:
            print(
                f"{row['run']} on {row['dataset']}: epsilon_lower {row['epsilon_lower']:g} exceeds eps_{count}"
                f" {up(row[f'eps_{count}'], 'g')}; at confidence {row['confidence']:g}, that count is wrong, or the"
                " code is",
                file=sys.stderr,
            )


def _write(rows: Sequence[dict[str, Any]], out: Path | None) -> None:
    if out is None:
        print(csv_text(COLUMNS, rows), end="")
    elif out.suffix == ".json":
        write_json(out, list(rows))
    else:
        write_text(out, csv_text(COLUMNS, rows))
