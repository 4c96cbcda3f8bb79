"""The tidy table of scores: one row per value, read and written the same way by every stage that compares or shows."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from workflow.common.contracts import ACCOUNTINGS, CLAIMED, format_epsilon, parse_epsilon
from workflow.common.errors import UserError, unknown
from workflow.common.files import read_lines, write_csv
from workflow.common.metrics import METRICS, ORDER
from workflow.common.readers.numbers import parse_number

COLUMNS = ("preset", "dataset", "method", "epsilon", "accounting", "seed", "metric", "value", "source")
SOURCES = ("measured", "published")


@dataclass(frozen=True)
class Score:
    """One value: `seed` is None where none applies (published rows); `value` lies in its metric's range.

    Raises UserError for an unknown accounting, metric or source, and for a name or number that cannot be.
    """

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
            ("accounting", self.accounting, (*ACCOUNTINGS, CLAIMED)),
            ("metric", self.metric, ORDER),
            ("source", self.source, SOURCES),
        ):
            if value not in valid:
                raise unknown(kind, value, valid)
        for kind in ("preset", "dataset", "method"):
            check_name(kind, getattr(self, kind))
        known, what = METRICS[self.metric], f"{self.metric} of {self.method} on {self.dataset} is {self.value}"
        endless = self.value == math.inf and known.high == math.inf
        if not (math.isfinite(self.value) or endless):
            raise UserError(f"{what}, not a finite number; measure it again")
        if not known.low <= self.value <= known.high:
            raise UserError(f"{what}; it must lie between {max(known.low, 0.0):g} and {known.high:g}: measure it again")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise UserError(f"seed must be from 0 to 2^63 - 1, got {self.seed}")

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
    """Writes scores as CSV, sorted, with a fixed number format: equal scores give equal bytes.

    Raises UserError for an epsilon that a count gave to a run whose own is a claim.
    """
    write_csv(path, COLUMNS, [_cells(_uncounted(score)) for score in sorted(scores, key=lambda score: score.order)])


def _uncounted(score: Score) -> Score:
    if score.accounting == CLAIMED and score.metric.startswith("eps_"):
        raise UserError(
            f"{score.method} on {score.dataset} has {score.metric}, and its accounting is {CLAIMED}: no count of the"
            " suite has seen such a run; remove it, or name the accounting that made it"
        )
    return score


def _score(cells: dict[str, str]) -> Score:
    try:
        value = parse_number(cells["value"], endless=True)
    except ValueError:
        raise UserError(f"value must be a number, got {cells['value'][:80]!r}") from None
    if cells["seed"] and not re.fullmatch("[0-9]{1,19}", cells["seed"]):
        raise UserError(f"seed must be empty or a whole number, got {cells['seed'][:80]!r}")
    seed, epsilon = int(cells["seed"]) if cells["seed"] else None, parse_epsilon(cells["epsilon"])
    # As folders are named: whoever compares texts would take another form for another budget or seed.
    for key, right in (("epsilon", format_epsilon(epsilon)), ("seed", "" if seed is None else str(seed))):
        if cells[key] != right:
            raise UserError(f"{key} {cells[key][:80]} must be written {right}")
    return _uncounted(Score(**{**cells, "epsilon": epsilon, "seed": seed, "value": value}))


def read_scores(path: str | Path) -> list[Score]:
    """Reads a scores CSV.

    Raises:
        UserError: the file is missing, has other columns, a line holds a bad value (the line is named), or two lines
            give the same value.
    """
    found: dict[tuple, Score] = {}
    for number, cells in read_lines(path, COLUMNS, exact=True).items():
        try:
            score = _score(cells)
        except UserError as error:
            raise UserError(f"{path} line {number}: {error}") from None
        if score.order in found:
            raise UserError(f"{path} line {number}: {_twice(found[score.order], score)}")
        found[score.order] = score
    return list(found.values())


def _twice(first: Score, second: Score) -> str:
    """Returns the words for a second value of one row: of two runs, as where files were put together by hand."""
    seed = "" if first.seed is None else f", seed {first.seed}"
    row = f"{first.method} on {first.dataset} at epsilon {format_epsilon(first.epsilon)} ({first.accounting}){seed}"
    both = f"{format_value(first.value)} and {format_value(second.value)}"
    return f"two values for {first.metric} of {row}: {both}; remove one, or give the scores of one run at a time"


def measured(path: str | Path, purpose: str) -> list[Score]:
    """Returns the measured scores of a CSV. Raises UserError as `read_scores`, or if there are none to `purpose`."""
    scores = [score for score in read_scores(path) if score.source == "measured"]
    if not scores:
        raise UserError(f"{path} holds no measured scores: there is nothing to {purpose}")
    return scores


def check_presets(scores: Iterable[Score]) -> None:
    """Raises UserError where a run was measured under two presets: a table would take these for seeds of one run."""
    presets: dict[tuple, str] = {}
    for s in (s for s in scores if s.source == "measured"):
        first = presets.setdefault((s.dataset, s.method, s.epsilon, s.accounting), s.preset)
        if first != s.preset:
            raise UserError(
                f"{s.method} on {s.dataset} at epsilon {format_epsilon(s.epsilon)} was measured under the presets"
                f" {first} and {s.preset}, which one table would take for seeds of one run; give the scores of one"
            )


def check_name(kind: str, name: str) -> None:
    """Raises UserError unless the name of a preset, data set or method is printable text of at most 200 characters."""
    if not isinstance(name, str) or not name or name != name.strip() or not name.isprintable() or len(name) > 200:
        raise UserError(f"{kind} must be a printable name of 1 to 200 characters, got {str(name)[:80]!r}")
