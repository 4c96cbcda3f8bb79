"""`python -m methods describe NAME`: everything about one method."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from methods.commands.list import summary
from methods.core import registry
from workflow.common import settings
from workflow.common.contracts import format_epsilon
from workflow.common.departures import EVALUATION
from workflow.common.per_record import HELP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the method's name."""
    parser.add_argument("name", help="a method, see `python -m methods list`")


def run(arguments: argparse.Namespace) -> None:
    """Prints the text. Raises UserError for an unknown method, naming the nearest one."""
    print(describe(arguments.name))


def settings_of(argv: Sequence[str]) -> str:
    """Returns the settings, with their ranges, of the method that a command line names first; else how to see them.

    It is what `run NAME --help` says below the options. Raises UserError for a method that cannot be loaded.
    """
    if not argv or argv[0] not in registry.names():
        return "NAME --help shows the method's settings for --set too, with their ranges"
    lines = [f"  {line}" for line in settings.describe(registry.load(argv[0]).Hyper)]
    return "\n".join([f"settings of {argv[0]} for --set KEY=VALUE:", *lines, f"  {HELP}"])


def describe(name: str) -> str:
    """Returns a method's summary, hyper-parameters with defaults, ranges and units, published settings and sources.

    The sources are those of its training, each departure from them included, and then those of the evaluation.
    """
    cls = registry.load(name)
    lines = [f"{name}: {summary(name)}", "", "hyper-parameters:"]
    lines += [f"  {line}" for line in settings.describe(cls.Hyper)]
    lines += [f"  {HELP}"]
    lines += ["", "published settings (overrides of the defaults):"]
    for (dataset, epsilon), overrides in cls.PAPER.items():
        lines.append(f"  {dataset}, epsilon {format_epsilon(epsilon)}: {dict(overrides) or 'the defaults'}")
    if not cls.PAPER:
        lines.append("  none")
    parts = {"sources": cls.SOURCES, "evaluation, of every method alike (python -m evaluation.protocol)": EVALUATION}
    for heading, sources in parts.items():
        lines += ["", f"{heading}:", *(f"  {source}" for source in sources)]
    return "\n".join(lines)
