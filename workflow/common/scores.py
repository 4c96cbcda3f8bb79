"""The tidy table of scores: one row per value, read and written the same way by every stage that compares or shows."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from workflow.common.contracts import ACCOUNTINGS, METRICS, SCORE_COLUMNS, SOURCES, format_epsilon, parse_epsilon
from workflow.common.errors import UserError, unknown
from workflow.common.files import write_text

HIGHER_IS_BETTER = {
    "is": True, "fid_inception": False, "fid_classifier": False, "precision": True, "recall": True,
    "g2r_mlp": True, "g2r_cnn": True, "r2g_mlp": True, "r2g_cnn": True, "distinct_fraction": True,
    "eps_published": False, "eps_sound": False, "train_seconds": False,
}  # fmt: skip


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
            ("metric", self.metric, METRICS),
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
        place = METRICS.index(self.metric)
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
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(SCORE_COLUMNS)
    writer.writerows(_cells(score) for score in sorted(scores, key=lambda score: score.order))
    write_text(path, text.getvalue())


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
    try:
        with Path(path).open(newline="", encoding="utf-8") as handle:
            lines = list(csv.reader(handle))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if not lines or tuple(lines[0]) != SCORE_COLUMNS:
        found = ",".join(lines[0]) if lines else "an empty file"
        raise UserError(f"{path}: the first line must be {','.join(SCORE_COLUMNS)}; found {found}")
    scores = []
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(SCORE_COLUMNS):
            raise UserError(f"{path} line {number}: {len(line)} cells instead of {len(SCORE_COLUMNS)}")
        try:
            scores.append(_score(dict(zip(SCORE_COLUMNS, line, strict=True))))
        except UserError as error:
            raise UserError(f"{path} line {number}: {error}") from None
    return scores
