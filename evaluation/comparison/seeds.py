"""Runs of several seeds compared by their means: how far a mean may move follows from the seeds' spread."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from scipy import stats

from evaluation.comparison.changes import Limit, Row, Run
from evaluation.comparison.summary import counted, listed, told_runs
from evaluation.comparison.tolerance import Tolerance
from workflow.common.metrics import METRICS

LEVEL = 0.05
# scores.csv holds six significant digits.
ROUNDING = 1e-5
SEED_GROUPS = 3  # that the line of uneven seeds tells

Values = Mapping[Row, Sequence[float]]


def gathered(scores: Mapping[Row, float]) -> dict[Row, list[float]]:
    """Returns one row for all seeds of a run, with a value for each seed."""
    found: dict[Row, list[float]] = {}
    for row, value in scores.items():
        found.setdefault(Row(row.run._replace(seed=None), row.metric), []).append(value)
    return found


def uneven(old: Iterable[Row], new: Iterable[Row]) -> list[str]:
    """Returns a line that says which runs have which other seeds on each side, if any; the rows are of single seeds.

    Runs that one side lacks altogether are left out: they are missing or new.
    """
    of_a, of_b = _seeds(old), _seeds(new)
    groups: dict[tuple, list[Run]] = {}
    for run in of_a.keys() & of_b.keys():
        if of_a[run] != of_b[run]:
            groups.setdefault((tuple(sorted(of_a[run])), tuple(sorted(of_b[run]))), []).append(run)
    told = [
        f"A has seeds {listed(a)}; B has {listed(b)}: {told_runs(counted(len(runs), 'run'), runs)}"
        for (a, b), runs in sorted(groups.items())
    ]
    more = [f"{len(told) - SEED_GROUPS} other differences of seeds"] if len(told) > SEED_GROUPS else []
    return ["; ".join([*told[:SEED_GROUPS], *more])] if told else []


def _seeds(rows: Iterable[Row]) -> dict[Run, set[int]]:
    found: dict[Run, set[int]] = {}
    for row in rows:
        if row.run.seed is not None:
            found.setdefault(row.run._replace(seed=None), set()).add(row.run.seed)
    return found


def means(values: Values) -> dict[Row, float]:
    """Returns the mean over the seeds of each row."""
    return {row: statistics.fmean(of_seeds) for row, of_seeds in values.items()}


def limits(
    old: Values, new: Values, defaults: Mapping[str, Tolerance], given: Mapping[str, Tolerance],
    apart: Collection[Row] = (),
) -> tuple[dict[Row, Limit], list[str]]:  # fmt: skip
    """Returns how far the mean of each row that both sides have may move, and in words how many rows were judged how.

    What is tested: that the mean over seeds is the same on both sides, by Welch's t-test, two-sided, so neither side's
    spread need be the other's. The level is 5% of false discoveries over all rows tested (Benjamini and Hochberg 1995):
    where nothing has changed, the whole comparison reports a move in at most about one of twenty, however many rows it
    holds. The tolerance of a row is half the confidence interval of its difference at the level that this leaves to
    one row. A row that has moved at 5% by itself, but not at that level, has its `chance` and counts as unclear; the
    others' is None.

    Tested are scores of quality with two seeds or more in A. Where B has one, its spread is taken to be A's: the test
    is then Student's, whose only degrees of freedom are A's. By a fixed tolerance, of the means, are judged: a row with
    one seed in A or no spread on both sides; the privacy spent, which the spread of seeds shall not excuse;
    what belongs to the machine; and what is `apart`, which would count among the moves that seeds tell.

    Args:
        old, new: one value per seed.
        defaults: the fixed tolerances.
        given: those that the caller set: for its metrics a move must exceed this as well as the seeds' spread.
        apart: rows that another network scored on each side.
    """
    both = [row for row in old if row in new]
    tested = [row for row in both if row not in apart and _testable(row, old[row], new[row])]
    fixed = dict(defaults) | dict(given)
    found = {row: Limit(fixed[row.metric].of(statistics.fmean(old[row])), str(fixed[row.metric])) for row in both}
    found |= _tested_limits(tested, old, new, given)
    return found, _notes(both, tested, old, new, apart)


def _testable(row: Row, old: Sequence[float], new: Sequence[float]) -> bool:
    enough = len(old) > 1 and all(map(math.isfinite, [*old, *new]))
    return enough and METRICS[row.metric].arrow and (len(set(old)) > 1 or len(set(new)) > 1)


def _tested_limits(tested: Sequence[Row], old: Values, new: Values, given: Mapping[str, Tolerance]) -> dict[Row, Limit]:
    if not tested:
        return {}
    with warnings.catch_warnings():
        # Of a side whose seeds all agree; the other side's spread decides then.
        warnings.simplefilter("ignore", RuntimeWarning)
        tests = [stats.ttest_ind(new[row], old[row], equal_var=len(new[row]) == 1) for row in tested]
    chances = np.array([test.pvalue for test in tests])
    moved = int((stats.false_discovery_control(chances) <= LEVEL).sum())
    # Those found are exactly the rows whose own chance is at most this.
    level = LEVEL * max(moved, 1) / len(tested)
    found = {}
    for row, test, chance in zip(tested, tests, chances.tolist(), strict=True):
        low, high = test.confidence_interval(1 - level)
        reference = statistics.fmean(old[row])
        least = max(given[row.metric].of(reference) if row.metric in given else 0.0, ROUNDING * abs(reference))
        amount = max((high - low) / 2, least)
        unclear = chance <= LEVEL and Limit(least, "").exceeded(reference, statistics.fmean(new[row]))
        words = f"{amount:.3g} by {len(old[row])} and {len(new[row])} seeds"
        found[row] = Limit(amount, words, chance if unclear else None)
    return found


def _notes(
    both: Sequence[Row], tested: Sequence[Row], old: Values, new: Values, apart: Collection[Row]
) -> list[str]:  # fmt: skip
    single = sum(min(len(old[row]), len(new[row])) < 2 for row in set(both) - set(tested) - set(apart))
    by_a = sum(len(new[row]) == 1 for row in tested)
    fewer = sum(len(new[row]) < len(old[row]) for row in both)
    notes = [f"means over seeds: {len(tested)} of {len(both)} scores tested by Welch's t, 5% false discoveries in all"]
    if by_a:
        notes.append(f"{by_a} have one seed in B and are judged by A's spread")
    if single:
        notes.append(f"{single} have one seed on a side and are judged by the fixed tolerance")
    if fewer:
        notes.append(f"{fewer} have fewer seeds in B than in A")
    return notes
