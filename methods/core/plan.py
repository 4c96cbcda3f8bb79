"""`python -m methods.core.plan`: everything a run will release and what that costs, before any data is read."""

from __future__ import annotations

import argparse
import dataclasses
import math
from typing import Any

from methods.core import registry
from methods.core.arguments import json_argument, public_spec
from methods.core.privacy import Budget, PublicSpec, check_plan, epsilon
from workflow.common.contracts import ACCOUNTINGS, format_epsilon, parse_epsilon
from workflow.common.errors import command
from workflow.common.files import write_json


def make_plan(
    method: str, run: str, hyper: dict[str, Any], public: PublicSpec, budget: Budget, seed: int
) -> dict[str, Any]:
    """Returns plan.json's content: settings, public facts, budget, releases and both counts of their cost.

    Raises UserError for unknown names or settings, or a plan that does not fit the budget and may not exceed it.
    """
    hp = registry.hyper(method, hyper)
    releases = registry.load(method).plan(hp, public, budget)
    check_plan(releases, budget)
    plan = {
        "run": run,
        "method": method,
        "dataset": public.dataset,
        "seed": seed,
        "epsilon": "inf" if math.isinf(budget.epsilon) else budget.epsilon,
        "delta": budget.delta,
        "accounting": budget.accounting,
        "hyper": dataclasses.asdict(hp),
        "public": dataclasses.asdict(public),
        "releases": [release.to_dict() for release in releases],
    }
    if not math.isinf(budget.epsilon):
        plan |= {f"eps_{count}": epsilon(releases, budget.delta, count) for count in ("published", "sound")}
    # Written only where it is true: the plan's digest keys the noise, and other runs' noise stays as it was.
    if budget.over_budget:
        plan["over_budget"] = True
    return plan


def budget_of(plan: dict[str, Any]) -> Budget:
    """Returns the budget that plan.json records."""
    return Budget(parse_epsilon(plan["epsilon"]), plan["delta"], plan["accounting"], plan.get("over_budget", False))


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m methods.core.plan", description=__doc__)
    parser.add_argument("--method", required=True)
    parser.add_argument("--run", help="name of the run (default: the method)")
    parser.add_argument("--hyper", default="{}", help="hyper-parameters as JSON or the path of a JSON file")
    parser.add_argument("--paper", action="store_true", help="start from the published settings")
    parser.add_argument("--card", required=True, help="card.json of the data set")
    parser.add_argument("--epsilon", required=True, help="a number above 0, or inf")
    parser.add_argument("--delta", type=float, default=1e-5)
    parser.add_argument("--accounting", default="sound", help=", ".join(ACCOUNTINGS))
    parser.add_argument("--over-budget", action="store_true", help="plan the run even if it costs more than epsilon")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args(argv)
    target = parse_epsilon(arguments.epsilon)
    budget = Budget(target, arguments.delta, arguments.accounting, arguments.over_budget)
    public = public_spec(json_argument(arguments.card))
    published = registry.paper_settings(arguments.method, public.dataset, target) if arguments.paper else {}
    hyper = {**published, **json_argument(arguments.hyper)}
    plan = make_plan(arguments.method, arguments.run or arguments.method, hyper, public, budget, arguments.seed)
    write_json(arguments.out, plan)
    counts = ", ".join(f"{name} {plan[name]:.4f}" for name in ("eps_published", "eps_sound") if name in plan)
    print(f"{plan['run']} on {public.dataset}: epsilon {format_epsilon(target)}" + (f" ({counts})" if counts else ""))


if __name__ == "__main__":
    raise SystemExit(main())
