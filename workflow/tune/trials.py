"""trials.csv: what each trial of equal tuning scored on one data set and budget, and what that took."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from workflow.common.contracts import format_epsilon, parse_epsilon
from workflow.common.errors import UserError, unknown
from workflow.common.files import read_lines, write_csv
from workflow.common.readers.csv_text import read_cells
from workflow.common.readers.guard import reason
from workflow.common.readers.json_text import parse_json
from workflow.common.readers.numbers import parse_number

MAKER = "python -m workflow.tune search"
# A run that took longer than the preset allows has no score, nor have settings that the method refuses together.
SCORED, OVER_TIME, REFUSED = "scored", "over time", "refused"
OUTCOMES = (SCORED, OVER_TIME, REFUSED)

Cell = tuple[str, float]  # data set, epsilon


@dataclass(frozen=True)
class Result:
    """A trial on one data set and budget.

    Attributes:
        run: the row of the preset.
        trial: 0 has the settings before the search; later ones are drawn.
        settings: what the trial overrides of the method's hyper-parameters, complete.
        seed: of the training and of the score's classifier.
        score: gen2real accuracy of the CNN, trained on samples and tested on held-out images; None unless scored.
        seconds: of one core, for plan, warm start, training, samples and score.
        time_factor: how many of these are one second of the preset's, as its user said of the machine.
    """

    run: str
    method: str
    trial: int
    settings: Mapping[str, Any]
    dataset: str
    epsilon: float
    seed: int
    outcome: str
    score: float | None
    seconds: float
    commit: str
    processor: str
    time_factor: float = 1.0

    @property
    def preset_seconds(self) -> float:
        """Its seconds as they count: those that it would have taken where the preset's were measured."""
        return self.seconds / self.time_factor

    @property
    def cell(self) -> Cell:
        """Its data set and budget."""
        return self.dataset, self.epsilon

    @property
    def key(self) -> tuple[str, int, Cell, int]:
        """What no two results share."""
        return self.run, self.trial, self.cell, self.seed


COLUMNS = tuple(field.name for field in fields(Result))
# Of files that are older than the last column: all of their machines counted as the preset's.
_OLDER = COLUMNS[:-1]


def write(path: Path, results: Iterable[Result]) -> None:
    """Writes results, by row and trial."""
    ordered = sorted(results, key=lambda one: (one.run, one.trial, one.dataset, -one.epsilon, one.seed))
    write_csv(path, COLUMNS, [_cells(one) for one in ordered])


def _cells(one: Result) -> list[Any]:
    cells = dict(zip(COLUMNS, astuple(one), strict=True))
    cells["settings"] = json.dumps(one.settings, sort_keys=True)
    cells["epsilon"] = format_epsilon(one.epsilon)
    cells["score"] = "" if one.score is None else f"{one.score:.6g}"
    cells["seconds"] = f"{one.seconds:.1f}"
    cells["time_factor"] = exact(one.time_factor)
    return list(cells.values())


def exact(factor: float) -> str:
    """Returns the shortest text of a time factor that reads as the same one: a search goes on with no other."""
    return repr(float(factor)).removesuffix(".0")


def read(path: Path) -> list[Result]:
    """Returns the results of a file. Raises UserError for one that is missing or damaged."""
    found = []
    # The header alone tells: of an older file all lines may have been taken out.
    header = [cells for _, cells in read_cells(path, f"it is written by {MAKER}")[:1]]
    columns = _OLDER if header == [list(_OLDER)] else COLUMNS
    for number, cells in read_lines(path, columns, MAKER, exact=True).items():
        try:
            found.append(_result(cells))
        except (ValueError, UserError) as error:
            raise UserError(f"{path} line {number}: {reason(error)}; mend or remove the line") from None
    return merged([found], str(path))


def merged(parts: Iterable[Sequence[Result]], where: str = "the trials") -> list[Result]:
    """Returns the results of several machines.

    Raises UserError where two differ on one trial, data set and budget, or a trial has several settings: its mean
    score would be none of theirs.
    """
    found: dict[Any, Result] = {}
    settings: dict[Any, Mapping[str, Any]] = {}
    for one in (one for part in parts for one in part):
        if settings.setdefault((one.run, one.trial, one.seed), one.settings) != one.settings:
            raise UserError(
                f"{where}: trial {one.trial} of {one.run}, seed {one.seed}, has other settings on {one.dataset} at"
                f" epsilon {format_epsilon(one.epsilon)}; keep the results of one preset and search space"
            )
        if found.setdefault(one.key, one) != one:
            raise UserError(
                f"{where}: two different results of trial {one.trial} of {one.run} on {one.dataset} at epsilon"
                f" {format_epsilon(one.epsilon)}, seed {one.seed}; keep one"
            )
    return list(found.values())


def _result(cells: Mapping[str, str]) -> Result:
    settings = parse_json(cells["settings"])
    if not isinstance(settings, dict):
        raise ValueError(f"settings must be a mapping in braces, got {cells['settings'][:60]}")
    if cells["outcome"] not in OUTCOMES:
        raise unknown("outcome", cells["outcome"], OUTCOMES)
    score = parse_number(cells["score"]) if cells["outcome"] == SCORED else None
    if score is not None and not 0 <= score <= 1:
        raise ValueError(f"score must be from 0 to 1, got {cells['score']}")
    seconds = parse_number(cells["seconds"])
    if not seconds >= 0:
        raise ValueError(f"seconds must be 0 or more, got {cells['seconds']}")
    factor = parse_number(cells.get("time_factor", "1"))
    if not factor > 0:
        raise ValueError(f"time_factor must be above 0, got {cells['time_factor']}")
    trial, seed = int(cells["trial"]), int(cells["seed"])
    if trial < 0 or seed < 0:
        raise ValueError(f"trial and seed must be 0 or more, got {trial} and {seed}")
    return Result(
        cells["run"], cells["method"], trial, settings, cells["dataset"], parse_epsilon(cells["epsilon"]), seed,
        cells["outcome"], score, seconds, cells["commit"], cells["processor"], factor,
    )  # fmt: skip
