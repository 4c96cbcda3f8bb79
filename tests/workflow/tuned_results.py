"""A row of preset quick that is tuned, and results of its trials, for tests of equal tuning."""

from __future__ import annotations

from workflow.tune import rows
from workflow.tune.rows import Row
from workflow.tune.trials import OVER_TIME, SCORED, Result

CONFIG = rows.load("quick")
CELLS = (("mnist_val", 10.0), ("mnist_val", 1.0), ("fashion_mnist_val", 10.0), ("fashion_mnist_val", 1.0))


def row(name: str = "dp_gauss") -> Row:
    (found,) = rows.rows(CONFIG, [name])
    return found


def result(trial: int, cell=CELLS[0], score: float | None = 0.5, run: str = "dp_gauss", **others) -> Result:
    facts = {"settings": {"splits": trial}, "outcome": SCORED if score is not None else OVER_TIME, "seconds": 30.0}
    facts |= {"method": run, "seed": 0, "commit": "abc", "processor": "x"} | others
    return Result(run=run, trial=trial, dataset=cell[0], epsilon=cell[1], score=score, **facts)


def whole(trial: int, scores: list[float], **others) -> list[Result]:
    return [result(trial, cell, score, **others) for cell, score in zip(CELLS, scores, strict=True)]


def alike(trial: int, score: float, run: str, **others) -> list[Result]:
    """Returns results of a trial with one score on all cells of its row, five minutes each."""
    return [result(trial, cell, score, run=run, **{"seconds": 300.0} | others) for cell in row(run).cells]
