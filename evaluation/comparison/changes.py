"""What moved between two tables of scores, what is missing and what is new."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from evaluation.comparison.tolerance import Tolerance
from evaluation.scores import format_value
from workflow.common.contracts import format_epsilon
from workflow.common.metrics import METRICS

# In the order in which they are told. `different` is what an exact comparison finds, whichever way it went; `missing` a
# score that must not go, `no longer` one that belongs to the machine; `unclear` has moved by the test of its own seeds,
# but so have some of many by chance.
KINDS = ("different", "regression", "missing", "improvement", "unclear", "moved", "no longer", "new")
REGRESSIONS = ("different", "regression", "missing")


class Run(NamedTuple):
    """Whose scores they are; `preset` is empty where each side holds one, `seed` None for published rows and means."""

    preset: str
    dataset: str
    method: str
    epsilon: float
    accounting: str
    seed: int | None
    source: str

    def __str__(self) -> str:
        parts = [self.preset, self.dataset, self.method, f"eps {format_epsilon(self.epsilon)}", self.accounting]
        parts.append("" if self.seed is None else f"seed {self.seed}")
        parts.append("" if self.source == "measured" else self.source)
        return " ".join(part for part in parts if part)


class Row(NamedTuple):
    """What a value is of: one metric of one run."""

    run: Run
    metric: str

    def __str__(self) -> str:
        return f"{self.run} {self.metric}"


@dataclass(frozen=True)
class Limit:
    """How far one score may move, in its metric's unit.

    Attributes:
        words: the limit as a person reads it.
        chance: the probability of such a move where nothing has changed, of a test of its seeds; None where the limit
            is a fixed tolerance.
        regresses: whether a larger move for the worse is a regression, where the metric has any.
    """

    amount: float
    words: str
    chance: float | None = None
    regresses: bool = True

    def exceeded(self, old: float, new: float) -> bool:
        """Whether the move from `old` to `new` is larger than allowed; equal values, also inf, never are."""
        if old == new:
            return False
        # A last-digit allowance: the files hold six significant digits.
        return abs(new - old) > self.amount * (1 + 1e-9) + 1e-12


@dataclass(frozen=True)
class Change:
    """One score that is not as before: `kind` is one of KINDS; `old` or `new` is None where that side lacks it."""

    kind: str
    row: Row
    old: float | None
    new: float | None
    limit: Limit | None = None

    @property
    def is_regression(self) -> bool:
        return self.kind in REGRESSIONS

    @property
    def excess(self) -> float:
        """How many times the allowed move it is; 0 where a side lacks it."""
        if self.old is None or self.new is None or self.limit is None:
            return 0.0
        return abs(self.new - self.old) / self.limit.amount if self.limit.amount else math.inf

    @property
    def move(self) -> str:
        """The move in words, such as "g2r_cnn: 0.8 -> 0.7 (tolerance 0.02)"."""
        old, new = ("absent" if value is None else format_value(value) for value in (self.old, self.new))
        return f"{self.row.metric}: {old} -> {new}{f' (tolerance {self.limit.words})' if self.limit else ''}"


def fixed_limits(
    old: Mapping[Row, float], new: Mapping[Row, float], tolerances: Mapping[str, Tolerance]
) -> dict[Row, Limit]:
    """Returns the fixed tolerance, one a metric, of each score that both sides have."""
    return {
        row: Limit(tolerances[row.metric].of(value), str(tolerances[row.metric]))
        for row, value in old.items()
        if row in new
    }


def no_limits(old: Mapping[Row, float], new: Mapping[Row, float]) -> dict[Row, Limit]:
    """Returns limits that allow no move at all within the files' six digits, of each score that both sides have."""
    return {row: Limit(0.0, "none") for row in old if row in new}


def compare(
    old: Mapping[Row, float], new: Mapping[Row, float], limits: Mapping[Row, Limit], exact: bool = False
) -> list[Change]:
    """Returns what moved beyond its limit, what is missing and what is new: by kind, the farthest beyond first.

    `limits` has one for each row that both sides have. With `exact` a score that has become better is not as it should
    be either.
    """
    changes = [Change("new", row, None, new[row]) for row in new.keys() - old.keys()]
    for row, value in old.items():
        if row not in new:
            changes.append(Change("missing" if METRICS[row.metric].regresses else "no longer", row, value, None))
        elif kind := _kind(row.metric, value, new[row], limits[row], exact):
            changes.append(Change(kind, row, value, new[row], limits[row]))
    return sorted(changes, key=lambda change: (KINDS.index(change.kind), -change.excess, str(change.row)))


def _kind(metric: str, old: float, new: float, limit: Limit, exact: bool) -> str:
    if limit.exceeded(old, new):
        if not (METRICS[metric].regresses and limit.regresses):
            return "moved"
        if exact:
            return "different"
        return "improvement" if (new > old) == METRICS[metric].higher_is_better else "regression"
    return "unclear" if limit.chance is not None else ""
