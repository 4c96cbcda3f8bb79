"""`python -m methods account NAME`: what a setting costs and what noise a budget needs, from public numbers alone."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from methods.commands.arguments import add_delta, add_settings, assignments, overrides, warn_of_budget
from methods.commands.describe import settings_of
from methods.core import registry
from methods.core.accounting.calibration import COUNTS, epsilon, fits
from methods.core.release import Budget, PublicSpec, Release
from methods.core.runs import prepared
from workflow.common.contracts import format_epsilon, parse_epsilon
from workflow.common.errors import UserError
from workflow.common.options import number, whole
from workflow.common.rounding import up

# Image shape, classes and training records of the data sets that the methods' authors used.
DATASETS = {
    "mnist": PublicSpec("mnist", (1, 28, 28), 10, 60_000),
    "fashion_mnist": PublicSpec("fashion_mnist", (1, 28, 28), 10, 60_000),
    "celeba": PublicSpec("celeba", (3, 32, 32), 2, 162_770),
}

# Below the options of `--help`.
epilog = settings_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("name", help="a method, see `python -m methods list`; with --preset, one of its rows")
    add_data(parser)
    parser.add_argument("--preset", help="take the settings of a preset's row, such as own's")
    parser.add_argument("--epsilon", default="10", help="budgets to find the noise for, as 10,1 (default 10)")
    add_delta(parser)
    parser.add_argument(
        "--noise", type=number("--noise", 0, 1e6), help="noise multiplier of every release: adds what that costs"
    )
    add_settings(parser)


def run(arguments: argparse.Namespace) -> None:
    """Prints the report."""
    print(report(arguments))


def report(arguments: argparse.Namespace) -> str:
    """Returns the command's text.

    Raises UserError for unknown names or settings, or a budget that no noise meets.
    """
    public = public_facts(arguments)
    budgets = [parse_epsilon(text, endless=False) for text in arguments.epsilon.split(",")]
    warn_of_budget(max(budgets), arguments.delta, public.num_train)
    method, settings = _settings(arguments, public.dataset, budgets[0])
    hp = registry.hyper(method, settings, public.num_train)
    targets = [Budget(epsilon, arguments.delta, count) for epsilon in budgets for count in COUNTS]
    plans = [(budget, registry.load(method).plan(hp, public, budget)) for budget in targets]
    lines = [f"{arguments.name} on {public.dataset}, {public.num_train} records, delta {arguments.delta:g}", ""]
    lines += [f"  {_described(release)}" for release in plans[0][1]]
    if arguments.noise is not None:
        fixed = tuple(dataclasses.replace(release, noise=arguments.noise) for release in plans[0][1])
        lines += ["", f"noise {arguments.noise:g} costs {_costs(fixed, arguments.delta)}"]
    lines += ["", *(_needed(budget, releases) for budget, releases in plans)]
    return "\n".join(lines)


def _settings(arguments: argparse.Namespace, dataset: str, epsilon: float) -> tuple[str, dict[str, Any]]:
    if arguments.preset is None:
        return arguments.name, overrides(arguments, arguments.name, dataset, epsilon)
    if arguments.paper:
        raise UserError("--paper and --preset are two sources of settings; give one")
    # On first use: a machine that only trains may lack what reads a preset.
    from methods.core.runs.configured import configured

    row = configured(arguments.name, dataset, arguments.preset, None, released=False)
    return row.method, {**row.settings(epsilon), **assignments(arguments.set)}


def add_data(parser: Any) -> None:
    """Adds --dataset and --records to a parser or a group of options."""
    parser.add_argument(
        "--dataset", default="mnist", help=f"{', '.join(DATASETS)} (default mnist); or a card.json, its folder, or the"
        " name of a set under results/*/data",
    )  # fmt: skip
    parser.add_argument("--records", type=whole("--records"), help="training records, if other than the data set's")


def public_facts(arguments: argparse.Namespace) -> PublicSpec:
    """Returns the data set that --dataset and --records describe. Raises UserError as `prepared.facts` does."""
    public = DATASETS.get(arguments.dataset) or prepared.facts(arguments.dataset, DATASETS)
    if arguments.records is None:
        return public
    return dataclasses.replace(public, num_train=arguments.records)


def _described(release: Release) -> str:
    unit = {
        "sum": "one sum", "votes": "one count of votes", "moments": "second moments by class",
        "function": f"{release.rows} rows",
    }[release.bounded]  # fmt: skip
    size = f"{release.answers} answers, each {unit}" if release.answers > 1 else unit
    drawn = {
        "all": "all records",
        "poisson": f"a Poisson batch of rate {release.rate:.4g}",
        "one_shard_of_k": f"one shard of {round(1 / release.rate)}",
    }[release.sampling]
    hidden = ", hidden state" if release.state == "hidden" else ""
    uses = f"{release.max_uses} use{'s' if release.max_uses > 1 else ''}"
    return f"{release.name}: {uses}, {size} of {drawn}, {release.adjacency}{hidden}"


def _costs(releases: Sequence[Release], delta: float) -> str:
    return ", ".join(f"epsilon {up(epsilon(releases, delta, count))} by the {count} count" for count in COUNTS)


def _needed(budget: Budget, releases: Sequence[Release]) -> str:
    noises = ", ".join(f"{release.noise:.4g}" for release in releases)
    target = f"epsilon {format_epsilon(budget.epsilon)} by the {budget.accounting} count"
    verb = "needs" if fits(releases, budget) else "is exceeded at the plan's"
    return f"{target} {verb} noise {noises}: {_costs(releases, budget.delta)}"
