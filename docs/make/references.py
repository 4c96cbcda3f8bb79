"""Committed references as pages show them: values over seeds, and Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from evaluation.intervals import half_width
from evaluation.scores import Score, read_scores
from workflow.common.chosen_on import brief
from workflow.common.errors import UserError
from workflow.common.files import read_object

Key = tuple[str, float, str]  # data set, epsilon, run
# Evaluation settings that add a score, or name a file's place, and move no other score.
_MOVE_NOTHING = {"best_on_test", "inception_weights"}


@dataclass(frozen=True)
class Reference:
    """A folder of measured scores, which method each of its runs trained, and how long its stages took.

    `seconds` are those of all jobs of a stage together, each on one core; `commits` counts runs by their code; `chosen`
    says on which images and by what a run's settings were chosen, `protocol` how its rows were scored.
    """

    name: str
    method_of: Mapping[str, str]
    scores: Sequence[Score]
    seconds: Mapping[str, float]
    commits: Mapping[str, int] = field(default_factory=dict)
    chosen: Mapping[str, str] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)

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
    runs = record["settings"]["runs"].items()
    methods, chosen = {run: one["method"] for run, one in runs}, {run: brief(one) for run, one in runs}
    scores = read_scores(folder / "scores.csv")
    protocol = {key: value for key, value in record["settings"]["protocol"].items() if key not in _MOVE_NOTHING}
    return Reference(folder.name, methods, scores, record["job_seconds"], record["runs_by_commit"], chosen, protocol)


def owners(references: Sequence[Reference]) -> dict[Key, Reference]:
    """Returns for each row the first reference that has it, so that none mixes runs of two."""
    found: dict[Key, Reference] = {}
    for reference in references:
        for s in reference.scores:
            found.setdefault((s.dataset, s.epsilon, s.method), reference)
    return found


def pooled(references: Sequence[Reference]) -> Reference:
    """Returns one reference of all rows, each from its owner; it has no stages of its own.

    Where the settings of a run were chosen is what the owner of its rows says, the first one of several: another's run
    of the same name may have other settings. Raises UserError for references whose rows were scored otherwise.
    """
    first = references[0]
    if other := [one.name for one in references if one.protocol != first.protocol]:
        raise UserError(
            f"{first.name} and {other[0]} were scored by other evaluation settings (`protocol` of provenance.json): no"
            " table sets their rows beside each other; name one of them"
        )
    owner = owners(references)
    scores = [s for one in references for s in one.scores if owner.get((s.dataset, s.epsilon, s.method)) is one]
    methods = {run: method for one in reversed(references) for run, method in one.method_of.items()}
    chosen = {run: one.chosen.get(run, "") for (*_, run), one in reversed(owner.items())}
    return Reference(", ".join(one.name for one in references), methods, scores, {}, chosen=chosen)


def with_interval(values: Sequence[float], digits: int) -> str:
    """Returns the mean ± half the width of its t interval and the number of seeds, or one value alone, or a dash."""
    reach = half_width(values)
    if reach is None:
        return number(fmean(values) if values else None, digits)
    return f"{fmean(values):.{digits}f} ± {reach:.{digits}f} ({len(values)})"


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(heads), ["---"] * len(heads), *map(list, rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
