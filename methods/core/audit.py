"""`python -m methods audit`: lower bounds on epsilon, found by attack, beside the upper bounds of both accountants."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from methods.core import account, audit_mechanism, audit_training
from methods.core.arguments import add_machine, context, json_argument, private_data, use_machine
from methods.core.audit_bounds import CONFIDENCE
from methods.core.audit_mechanism import Audit
from methods.core.plan import budget_of, make_plan
from methods.core.privacy import Budget, epsilon
from workflow.common.contracts import format_epsilon, parse_epsilon
from workflow.common.errors import UserError, command
from workflow.common.files import write_json, write_text

ATTACKS = ("mechanism", "non_finite", "training")
COLUMNS = (
    "run", "dataset", "epsilon", "accounting", "seed", "attack", "uses", "max_uses", "canaries", "confidence",
    "epsilon_lower", "eps_published", "eps_sound",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command: --plan files, or a method and the settings that `account` takes."""
    parser.add_argument("name", nargs="?", help="a method, in place of --plan; see `python -m methods list`")
    parser.add_argument("--plan", nargs="+", default=[], help="plan.json of runs; without privacy: passed over")
    parser.add_argument("--dataset", default="mnist", help=f"with a method: {', '.join(account.DATASETS)}")
    parser.add_argument("--records", type=int, help="with a method: training records, if other than the data set's")
    parser.add_argument("--epsilon", default="10", help="with a method: the budget (default 10)")
    parser.add_argument("--delta", type=float, default=1e-5, help="with a method: default 1e-5")
    parser.add_argument("--accounting", default="sound", help="with a method: published or sound (default)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="with a method: repeatable")
    parser.add_argument("--paper", action="store_true", help="with a method: start from the published settings")
    parser.add_argument("--attack", default="mechanism", choices=ATTACKS, help="default mechanism")
    parser.add_argument("--seconds", type=float, default=10.0, help="nominal work a plan (default 10)")
    parser.add_argument("--uses", type=int, help="most uses audited of each release (default: as many as pay)")
    parser.add_argument("--canaries", type=int, help="coins (default: what --seconds pays for; training 200)")
    parser.add_argument("--samples", type=int, default=2000, help="training attack: images drawn (default 2000)")
    parser.add_argument("--data", help="training attack: train.npz of the data set")
    parser.add_argument("--confidence", type=float, default=CONFIDENCE, help=f"default {CONFIDENCE}")
    parser.add_argument("--audit-seed", type=int, default=0, help="of coins, canaries, draws and noise (default 0)")
    parser.add_argument("--out", type=Path, help="file to write, .csv or .json (default: csv on stdout)")
    add_machine(parser)


def run(arguments: argparse.Namespace) -> None:
    """Audits every plan and writes one row each. Raises UserError for bad input, or where nothing can be audited."""
    _check(arguments)
    plans = [json_argument(path) for path in arguments.plan] or [_plan(arguments)]
    private = [plan for plan in plans if not math.isinf(parse_epsilon(plan["epsilon"]))]
    if not private:
        raise UserError("nothing to audit: no plan has a finite epsilon")
    device = use_machine(arguments)
    found: dict[Any, Audit] = {}
    rows = []
    for plan in private:
        known = context(plan, device)
        # The mechanism knows nothing of the run but its releases: equal ones, as of two data sets, are audited once.
        key = (known.releases, plan["delta"]) if arguments.attack != "training" else len(rows)
        if key not in found:
            print(f"auditing {plan['run']} on {plan['dataset']}", file=sys.stderr)
            found[key] = _attack(plan, arguments, device)
        rows.append(_row(plan, arguments.attack, found[key]))
    _write(rows, arguments.out)


def _check(arguments: argparse.Namespace) -> None:
    if bool(arguments.name) == bool(arguments.plan):
        raise UserError("give either --plan FILE ... or the name of a method")
    if not 0 < arguments.confidence < 1:
        raise UserError(f"--confidence must lie strictly between 0 and 1, got {arguments.confidence}")
    if not arguments.seconds > 0:
        raise UserError(f"--seconds must be positive, got {arguments.seconds}")
    for option in ("uses", "canaries", "samples"):
        value = getattr(arguments, option)
        if value is not None and value < 1:
            raise UserError(f"--{option} must be at least 1, got {value}")
    if (arguments.attack == "training") != bool(arguments.data):
        raise UserError("--attack training needs --data train.npz, and no other attack takes it")
    if arguments.out and arguments.out.suffix not in (".csv", ".json"):
        raise UserError(f"--out must end in .csv or .json, got {arguments.out}")


def _plan(arguments: argparse.Namespace) -> dict[str, Any]:
    public = account.public_facts(arguments)
    target = parse_epsilon(arguments.epsilon)
    published = account.published_settings(arguments.name, public.dataset, target) if arguments.paper else {}
    hyper = published | account.settings(arguments.set)
    budget = Budget(target, arguments.delta, arguments.accounting)
    return json.loads(json.dumps(make_plan(arguments.name, arguments.name, hyper, public, budget, seed=0)))


def _attack(plan: dict[str, Any], arguments: argparse.Namespace, device: Any) -> Audit:
    known = context(plan, device)
    if arguments.attack == "training":
        return audit_training.audit(
            plan, private_data(arguments.data, known.public), device, seed=arguments.audit_seed,
            canaries=arguments.canaries or audit_training.CANARIES, samples=arguments.samples,
            confidence=arguments.confidence,
        )  # fmt: skip
    return audit_mechanism.audit(
        known.releases, plan["delta"], seed=arguments.audit_seed, seconds=arguments.seconds, uses=arguments.uses,
        canaries=arguments.canaries, confidence=arguments.confidence, non_finite=arguments.attack == "non_finite",
    )  # fmt: skip


def _row(plan: dict[str, Any], attack: str, found: Audit) -> dict[str, Any]:
    budget = budget_of(plan)
    values = {
        **{name: plan[name] for name in ("run", "dataset", "accounting", "seed")},
        "epsilon": format_epsilon(budget.epsilon),
        "attack": attack,
        "uses": sum(release.max_uses for release in found.releases),
        "max_uses": sum(release["max_uses"] for release in plan["releases"]),
        "canaries": found.canaries,
        "confidence": found.confidence,
        "epsilon_lower": round(found.epsilon_lower, 4),
        **{f"eps_{count}": epsilon(found.releases, budget.delta, count) for count in ("published", "sound")},
    }
    return {name: values[name] for name in COLUMNS}


def _write(rows: Sequence[dict[str, Any]], out: Path | None) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    if out is None:
        print(text.getvalue(), end="")
    elif out.suffix == ".json":
        write_json(out, list(rows))
    else:
        write_text(out, text.getvalue())


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m methods.core.audit", description=__doc__)
    add_arguments(parser)
    run(parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())
