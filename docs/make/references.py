"""Committed references as pages show them: values over seeds, and Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from evaluation.scores import Score, read_scores
from workflow.common.files import read_object

Key = tuple[str, float, str]  # data set, epsilon, run


@dataclass(frozen=True)
class Reference:
    """A folder of measured scores, which method each of its runs trained, and how long its stages took.

    `seconds` are those of all jobs of a stage together, each on one core.
    """

    name: str
    method_of: Mapping[str, str]
    scores: Sequence[Score]
    seconds: Mapping[str, float]

    def keys(self, method: str) -> list[Key]:
        """Returns the runs of a method: by data set, from the largest epsilon on, then by name."""
        found = {(s.dataset, s.epsilon, s.method) for s in self.scores if self.method_of.get(s.method) == method}
        return sorted(found, key=lambda key: (key[0], -key[1], key[2]))

    def values(self, key: Key, metric: str) -> list[float]:
        """Returns one value a seed."""
        return [s.value for s in self.scores if (s.dataset, s.epsilon, s.method) == key and s.metric == metric]


def read_reference(folder: Path) -> Reference:
    """Returns a folder of results/reference. Raises UserError for a file that is missing or damaged."""
    record: dict[str, Any] = read_object(folder / "provenance.json", "provenance.json")
    methods = {run: settings["method"] for run, settings in record["settings"]["runs"].items()}
    return Reference(folder.name, methods, read_scores(folder / "scores.csv"), record["job_seconds"])


def ranged(values: Sequence[float], digits: int) -> str:
    if len(values) < 2:
        return number(values[0] if values else None, digits)
    return f"{fmean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(heads), ["---"] * len(heads), *map(list, rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
