"""The tidy table of scores: one row per value, read and written the same way by every stage that compares or shows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from workflow.common.contracts import ACCOUNTINGS, format_epsilon, parse_epsilon
from workflow.common.errors import UserError, unknown
from workflow.common.files import read_csv, write_csv
from workflow.common.metrics import ORDER

COLUMNS = ("preset", "dataset", "method", "epsilon", "accounting", "seed", "metric", "value", "source")
SOURCES = ("measured", "published")


@dataclass(frozen=True)
class Score:
    """One value: `seed` is None where none applies (published rows); `value` is finite, or inf for `eps_*` only."""

    preset: str
    dataset: str
    method: str
    epsilon: float
    accounting: str
    seed: int | None
    metric: str
    value: float
    source: str

    def __post_init__(self) -> None:
        for kind, value, valid in (
            ("accounting", self.accounting, ACCOUNTINGS),
            ("metric", self.metric, ORDER),
            ("source", self.source, SOURCES),
        ):
            if value not in valid:
                raise unknown(kind, value, valid)
        endless = self.metric.startswith("eps_") and self.value == math.inf
        if not (math.isfinite(self.value) or endless):
            raise UserError(f"{self.metric} of {self.method} on {self.dataset} is {self.value}, not a finite number")

    @property
    def order(self) -> tuple:
        """Sorts by preset, data set, method, epsilon, accounting, seed (none first), then metric as listed."""
        seed = -1 if self.seed is None else self.seed
        place = ORDER.index(self.metric)
        return self.preset, self.dataset, self.method, self.epsilon, self.accounting, seed, place, self.source


def format_value(value: float) -> str:
    """Returns a value with at most six significant digits, so that a diff of two files is readable."""
    return f"{value:.6g}"


def _cells(score: Score) -> list[str]:
    seed = "" if score.seed is None else str(score.seed)
    key = [score.preset, score.dataset, score.method, format_epsilon(score.epsilon), score.accounting, seed]
    return [*key, score.metric, format_value(score.value), score.source]


def write_scores(path: str | Path, scores: Iterable[Score]) -> None:
    """Writes scores as CSV, sorted, with a fixed number format: equal scores give equal bytes."""
    write_csv(path, COLUMNS, map(_cells, sorted(scores, key=lambda score: score.order)))


def _score(cells: dict[str, str]) -> Score:
    try:
        value = float(cells["value"])
    except ValueError:
        raise UserError(f"value must be a number, got {cells['value']!r}") from None
    if cells["seed"] and not cells["seed"].isdecimal():
        raise UserError(f"seed must be empty or a whole number, got {cells['seed']!r}")
    seed = int(cells["seed"]) if cells["seed"] else None
    return Score(**{**cells, "epsilon": parse_epsilon(cells["epsilon"]), "seed": seed, "value": value})


def read_scores(path: str | Path) -> list[Score]:
    """Reads a scores CSV.

    Raises:
        UserError: the file is missing, has other columns, or a line holds a bad value (the line is named).
    """
    rows = read_csv(path, COLUMNS, exact=True)
    scores = []
    for number, cells in enumerate(rows, start=2):
        try:
            scores.append(_score(cells))
        except UserError as error:
            raise UserError(f"{path} line {number}: {error}") from None
    return scores
