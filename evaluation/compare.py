"""Compares two scores.csv files: what moved, what is missing, what is new; the exit code is what CI reads.

Exit code 0: no regression; 1: a regression, which includes a score of A that B lacks; 2: bad input.

Scores are matched by data set, method, epsilon, accounting, seed, metric and source (and by preset, where a file
holds several). Which way is worse depends on the metric: accuracies, IS, precision, recall and the share of distinct
images must not fall, FID and the spent epsilons must not rise. `train_seconds` is shown but never a regression, since
it belongs to the machine. The directions and the default tolerances are those of workflow/common/metrics.py.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from evaluation.scores import Score, format_value, read_scores
from workflow.common.contracts import format_epsilon
from workflow.common.errors import UserError, command, unknown
from workflow.common.metrics import METRICS
from workflow.common.options import Parser
from workflow.common.readers.numbers import parse_number


@dataclass(frozen=True)
class Tolerance:
    """How far a value may move: an absolute amount, or a share of the reference value."""

    amount: float
    relative: bool = False

    @classmethod
    def parse(cls, text: str) -> Tolerance:
        """Reads "0.02" (absolute) or "5%" (of the reference value). Raises UserError for anything else."""
        relative = text.endswith("%")
        try:
            amount = parse_number(text.removesuffix("%")) / (100 if relative else 1)
        except ValueError:
            amount = math.nan
        if not 0 <= amount < math.inf:
            raise UserError(f"a tolerance must be a number of at least 0, or a percentage such as 5%; got {text!r}")
        return cls(amount, relative)

    def exceeded(self, old: float, new: float) -> bool:
        """Whether the move from `old` to `new` is larger than allowed; equal values, also inf, never are."""
        if old == new:
            return False
        # A last-digit allowance: the files hold six significant digits.
        return abs(new - old) > (self.amount * abs(old) if self.relative else self.amount) * (1 + 1e-9) + 1e-12

    def __str__(self) -> str:
        return f"{self.amount * 100:g}%" if self.relative else f"{self.amount:g}"


DEFAULT_TOLERANCES = {name: Tolerance.parse(metric.tolerance) for name, metric in METRICS.items()}

Key = tuple


@dataclass(frozen=True)
class Change:
    """One line of the comparison: `kind` is regression, missing, improvement, moved, no longer or new."""

    kind: str
    key: Key
    old: float | None
    new: float | None
    tolerance: Tolerance | None = None

    @property
    def is_regression(self) -> bool:
        return self.kind in ("regression", "missing")

    def __str__(self) -> str:
        preset, dataset, method, epsilon, accounting, seed, metric, source = self.key
        where = [preset, dataset, method, f"eps {format_epsilon(epsilon)}", accounting]
        where += [f"seed {seed}" if seed is not None else "", source if source != "measured" else "", metric]
        old, new = ("absent" if value is None else format_value(value) for value in (self.old, self.new))
        limit = f" (tolerance {self.tolerance})" if self.tolerance else ""
        return f"{self.kind:<12} {' '.join(part for part in where if part)}: {old} -> {new}{limit}"


def _table(path: Path, scores: Iterable[Score], with_preset: bool) -> dict[Key, float]:
    table: dict[Key, float] = {}
    for s in scores:
        preset = s.preset if with_preset else ""
        key = (preset, s.dataset, s.method, s.epsilon, s.accounting, s.seed, s.metric, s.source)
        if key in table:
            raise UserError(f"{path}: two values for {' '.join(str(part) for part in key if part not in ('', None))}")
        table[key] = s.value
    return table


def _kind(metric: str, old: float, new: float) -> str:
    if not METRICS[metric].regresses:
        return "moved"
    return "improvement" if (new > old) == METRICS[metric].higher_is_better else "regression"


def compare(old: Mapping[Key, float], new: Mapping[Key, float], tolerances: Mapping[str, Tolerance]) -> list[Change]:
    """Returns what moved beyond its tolerance, what is missing and what is new, regressions first."""
    changes = [Change("new", key, None, new[key]) for key in new.keys() - old.keys()]
    for key, value in old.items():
        metric = key[6]
        if key not in new:
            kind = "missing" if METRICS[metric].regresses else "no longer"
            changes.append(Change(kind, key, value, None))
        elif tolerances[metric].exceeded(value, new[key]):
            changes.append(Change(_kind(metric, value, new[key]), key, value, new[key], tolerances[metric]))
    return sorted(changes, key=lambda change: (not change.is_regression, change.kind, str(change)))


def _tolerances(settings: Iterable[str]) -> dict[str, Tolerance]:
    given: dict[str, Tolerance] = {}
    for setting in settings:
        metric, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"--tolerance takes metric=value, got {setting!r}")
        if metric not in METRICS:
            raise unknown("metric in --tolerance", metric, METRICS)
        if metric in given:
            raise UserError(f"--tolerance gives {metric} twice, the second time as {setting!r}; remove one")
        given[metric] = Tolerance.parse(value)
    return DEFAULT_TOLERANCES | given


def _read_both(a: Path, b: Path) -> tuple[dict[Key, float], dict[Key, float]]:
    old, new = read_scores(a), read_scores(b)
    if not old:
        raise UserError(f"{a} holds no scores: there is nothing to compare with")
    presets = [{score.preset for score in scores if score.source == "measured"} for scores in (old, new)]
    several = any(len(names) > 1 for names in presets)
    if not several and all(presets) and presets[0] != presets[1]:
        print(f"note: preset {min(presets[0])} is compared with preset {min(presets[1])}")
    return _table(a, old, several), _table(b, new, several)


def _parser() -> argparse.ArgumentParser:
    defaults = ", ".join(f"{metric}={tolerance}" for metric, tolerance in DEFAULT_TOLERANCES.items())
    parser = Parser(
        prog="python -m evaluation.compare",
        description="Compare two scores.csv. Exit code: 0 no regression, 1 regression, 2 bad input.",
        epilog=f"Default tolerances: {defaults}. A percentage is a share of A's value.",
    )
    parser.add_argument("a", type=Path, metavar="A.csv", help="the reference")
    parser.add_argument("b", type=Path, metavar="B.csv", help="the new scores")
    parser.add_argument(
        "--tolerance",
        nargs="+",
        action="extend",
        default=[],
        metavar="METRIC=VALUE",
        help="allowed move of a metric: an amount (g2r_cnn=0.03) or a percentage of A's value (is=5%%)",
    )
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    """Runs `python -m evaluation.compare`."""
    options = _parser().parse_args(argv)
    tolerances = _tolerances(options.tolerance)
    old, new = _read_both(options.a, options.b)
    changes = compare(old, new, tolerances)
    for change in changes:
        print(change)
    regressions = sum(change.is_regression for change in changes)
    count = "no regression" if not regressions else f"{regressions} regression{'s' if regressions > 1 else ''}"
    print(f"{count}; {len(old.keys() & new.keys())} scores compared, {len(new.keys() - old.keys())} new")
    return 1 if regressions else 0


if __name__ == "__main__":
    raise SystemExit(main())
