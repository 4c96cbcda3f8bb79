"""`python -m methods plan`: everything a run will release and what that costs, before any data is read."""

from __future__ import annotations

import argparse

from methods.commands.arguments import add_budget, add_run, add_seed, budget_of, read_public, warn_of_budget
from methods.core import registry
from methods.core.runs.plan import Plan
from workflow.common.contracts import format_epsilon
from workflow.common.files import json_or_path, write_json
from workflow.common.rounding import up


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("--method", required=True, help="a method, see `python -m methods list`")
    add_run(parser)
    parser.add_argument("--hyper", default="{}", help="hyper-parameters as JSON or the path of a JSON file")
    parser.add_argument("--paper", action="store_true", help="start from the published settings for the data set")
    parser.add_argument("--card", required=True, help="card.json of the data set")
    add_budget(parser, epsilon=None)
    add_seed(parser, help="root seed of the run (default 0)")
    parser.add_argument("--out", required=True, help="plan.json to write")


def run(arguments: argparse.Namespace) -> None:
    """Writes the plan and prints what it costs. Raises UserError as `Plan.make` does."""
    budget, public = budget_of(arguments), read_public(arguments.card)
    method = arguments.method
    published = registry.paper_settings(method, public.dataset, budget.epsilon) if arguments.paper else {}
    hyper = published | json_or_path(arguments.hyper, "--hyper")
    plan = Plan.make(method, arguments.run or method, hyper, public, budget, arguments.seed)
    write_json(arguments.out, plan.to_dict())
    if plan.costs:
        warn_of_budget(budget.epsilon, budget.delta, public.num_train)
    costs = ", ".join(f"eps_{count} {up(cost, '.4f')}" for count, cost in plan.costs.items())
    about = f"{plan.run} on {public.dataset}: epsilon {format_epsilon(budget.epsilon)}"
    print(f"{about} ({costs})" if costs else about)
