"""`python -m methods list`, `describe`, `account`, `accounts`, `audit`, `run` and `join`: what there is and costs."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import get_type_hints

from methods.core import account, accounts, audit, registry, run
from workflow.common.contracts import format_epsilon
from workflow.common.errors import command


def describe(name: str) -> str:
    """Returns a method's summary, hyper-parameters with defaults and units, published settings and sources."""
    cls = registry.load(name)
    hints = get_type_hints(cls.Hyper)
    lines = [f"{name}: {(cls.__doc__ or '').strip().splitlines()[0]}", "", "hyper-parameters:"]
    for field in dataclasses.fields(cls.Hyper):
        text = field.metadata.get("help", "")
        lines.append(f"  {field.name} ({hints[field.name].__name__}, default {field.default}): {text}")
    lines += ["", "published settings (overrides of the defaults):"]
    for (dataset, epsilon), overrides in cls.PAPER.items():
        lines.append(f"  {dataset}, epsilon {format_epsilon(epsilon)}: {dict(overrides) or 'the defaults'}")
    if not cls.PAPER:
        lines.append("  none")
    return "\n".join([*lines, "", "sources:", *(f"  {source}" for source in cls.SOURCES)])


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m methods", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="one line per method")
    actions.add_parser("describe", help="everything about one method").add_argument("name")
    costs = actions.add_parser("account", help="epsilon of a setting and noise for a budget; reads no data")
    account.add_arguments(costs)
    published = actions.add_parser("accounts", help="what every published setting spends, as csv; reads no data")
    accounts.add_arguments(published)
    audit.add_arguments(
        actions.add_parser("audit", help="a lower bound on epsilon from attacks, beside the accountants' upper ones")
    )
    whole = actions.add_parser("run", help="train and sample one run without Snakemake, in slots of time if need be")
    run.add_arguments(whole)
    parts = actions.add_parser("join", help="samples.npz from the parts that `run` leaves")
    parts.add_argument("folder", type=Path, help="the run's folder")
    parts.add_argument("--out", type=Path, required=True, help="samples.npz")
    arguments = parser.parse_args(argv)
    if arguments.action == "run":
        run.run(arguments)
        return
    if arguments.action == "join":
        run.join(arguments.folder, arguments.out)
        return
    if arguments.action == "audit":
        audit.run(arguments)
        return
    if arguments.action == "account":
        print(account.report(arguments))
        return
    if arguments.action == "accounts":
        accounts.run(arguments)
        return
    if arguments.action == "describe":
        print(describe(arguments.name))
        return
    for name in registry.names():
        print(f"{name}: {(registry.load(name).__doc__ or '').strip().splitlines()[0]}")


if __name__ == "__main__":
    raise SystemExit(main())
