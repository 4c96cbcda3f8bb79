"""Compares two sets of scores: what moved, what is missing, what is new; the exit code is what CI reads.

Exit code 0: no regression; 1: a regression, which includes a score of A that B lacks; 2: bad input, which includes a
side without scores.

Scores are matched by data set, method, epsilon, accounting, seed, metric and source (and by preset, where a side holds
several). Which way is worse depends on the metric: accuracies, IS, precision, recall and the share of distinct images
must not fall, FID and the spent epsilons must not rise. `train_seconds` is shown but never a regression, since it
belongs to the machine. The directions and the default tolerances are those of workflow/common/metrics.py. Where both
have several seeds of a run, tolerances follow from their spread, see evaluation/comparison/seeds.py. What another
network scored on each side is shown but never a regression, see evaluation/comparison/networks.py. With `--exact`
nothing may move, which is for presets that are `reproducible: true`.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

from evaluation.comparison import changes, networks, same_runs
from evaluation.comparison.formats import FORMATS, github
from evaluation.comparison.made_by import made_by
from evaluation.comparison.sides import Sides, has_several, in_common, read_both
from evaluation.comparison.summary import Report
from evaluation.comparison.tolerance import DEFAULT_TOLERANCES, Tolerance, given, setting
from workflow.common.errors import UserError, command
from workflow.common.options import Parser

SUMMARY = "GITHUB_STEP_SUMMARY"  # the file whose Markdown GitHub shows as a job's summary


def compared(
    sides: Sides, a: str, b: str, by_hand: dict[str, Tolerance], mean: bool, common: bool, exact: bool = False
) -> Report:
    """Compares both sides.

    Args:
        a, b: their names.
        by_hand: tolerances in place of the default ones, by metric.
        mean: whether the seeds of a run are one, compared by their means.
        common: whether what only one side has is passed over. Raises UserError if they have nothing in common.
        exact: whether nothing may move, in the six digits of the files; the others but `common` play no part then.
    """
    old, new, notes = dict(sides.old), dict(sides.new), list(sides.notes)
    others = set() if exact else networks.changed(old, new)
    notes += [*same_runs.told(old, new), *networks.told(others, set() if exact else networks.unknown(old, new))]
    if exact:
        limits = changes.no_limits(old, new)
        notes.append("compared exactly")
    elif mean:
        # Only here: loading it takes a second.
        from evaluation.comparison import seeds

        old_values, new_values = seeds.gathered(old), seeds.gathered(new)
        apart = networks.apart(old_values, others)
        limits, said = seeds.limits(old_values, new_values, DEFAULT_TOLERANCES, by_hand, apart)
        notes += [*seeds.uneven(old, new), *said]
        old, new = seeds.means(old_values), seeds.means(new_values)
    else:
        limits = changes.fixed_limits(old, new, DEFAULT_TOLERANCES | by_hand)
    limits = networks.marked(limits, networks.apart(old, others))
    if common:
        old, new, passed = in_common(old, new)
        notes.append(passed)
    return Report(a, b, old, new, changes.compare(old, new, limits, exact), notes, exact)


def add_arguments(parser: Parser) -> None:
    """Adds the options of the command."""
    defaults = ", ".join(f"{metric}={tolerance}" for metric, tolerance in DEFAULT_TOLERANCES.items())
    parser.description = "Compare two sets of scores. Exit code: 0 no regression, 1 regression, 2 bad input."
    parser.epilog = f"Default tolerances: {defaults}. A percentage is a share of A's value."
    parser.takes_several("--tolerance", r"\w+=[^/]*")
    side = "a scores.csv, a folder that holds one, or a folder of such folders, which are matched by name"
    parser.add_argument("a", type=Path, metavar="A", help=f"the reference: {side}")
    parser.add_argument("b", type=Path, metavar="B", help="the new scores, likewise")
    parser.add_argument(
        "--tolerance",
        type=setting,
        action="append",
        default=[],
        metavar="METRIC=VALUE",
        help="allowed move of a metric: an amount (g2r_cnn=0.03) or a share of A's value (is=5%%); may be repeated",
    )
    parser.add_argument("--common", action="store_true", help="pass over what only one side has")
    parser.add_argument(
        "--seeds",
        choices=("each", "mean"),
        help="each: seed by seed; mean: the means over seeds, by Welch's t-test at 5%% false discoveries over all "
        "scores; a --tolerance is then the least move that counts, A's spread judges a run with one seed in B, and a "
        "fixed tolerance one with one seed in A; default: mean where both have several seeds of a run",
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="nothing may move, in the files' six digits: for two runs of a preset that is reproducible: true",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="text",
        help="text (the default), md and github: at most 20 lines; json: everything, in one line; github: annotations, "
        f"and the Markdown appended to the file that ${SUMMARY} names, or printed if it is not set",
    )


def _append(markdown: str) -> None:
    # Other steps of a job append to it too.
    with Path(os.environ[SUMMARY]).open("a", encoding="utf-8") as file:
        file.write(markdown)


def _beside(options: argparse.Namespace) -> str:
    return f"--seeds {options.seeds}" if options.seeds else f"--tolerance of {', '.join(given(options.tolerance))}"


def run(options: argparse.Namespace) -> int:
    """Compares and prints; returns 1 where there are regressions. Raises UserError for bad input."""
    by_hand = given(options.tolerance)
    if options.exact and (by_hand or options.seeds):
        raise UserError(f"--exact goes with neither --tolerance nor --seeds, got {_beside(options)}; leave one out")
    sides = read_both(options.a, options.b)
    several = has_several(sides.old) and has_several(sides.new)
    mean = several if options.seeds is None else options.seeds == "mean"
    report = compared(sides, str(options.a), str(options.b), by_hand, mean, options.common, options.exact)
    report = replace(report, notes=[*made_by(options.a, options.b), *report.notes])
    if options.format == "github" and os.environ.get(SUMMARY):
        shown = github(report, _append)
    else:
        shown = FORMATS[options.format](report)
    print(shown, end="")
    return 1 if report.regressions else 0


@command
def main(argv: list[str] | None = None) -> int:
    """Runs `python -m evaluation.compare`."""
    parser = Parser(prog="python -m evaluation.compare")
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())
