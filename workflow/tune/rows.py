"""What is tuned: the rows of a preset with settings of their own, on which data sets and budgets, and each trial."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from methods.core import registry
from workflow import merging, presets
from workflow.common.chosen_on import PUBLISHED
from workflow.common.contracts import format_epsilon, parse_epsilon
from workflow.common.errors import UserError, shown, unknown
from workflow.common.search_space import Space, draw
from workflow.datasets.sources import NAMES
from workflow.grid import Config, Run
from workflow.tune import rule
from workflow.tune.trials import Cell, Result

# Trials in a row that repeat earlier ones, after which a space of a few values counts as tried.
_REPEATS = 50


@dataclass(frozen=True)
class Row:
    """A row of a preset that is tuned.

    Attributes:
        before: what it overrides of its method's hyper-parameters before the search: trial 0.
        space: where the other trials' settings are drawn from.
        cells: the data sets and budgets that the first trial is scored on, and later ones where it is not near a guess.
        least_score: accuracy of the first trial below which it is.
    """

    run: Run
    before: Mapping[str, Any]
    space: Space
    cells: tuple[Cell, ...]
    least_score: float

    def judged(self, results: Iterable[Result]) -> list[Cell]:
        """Returns the cells that trials are judged by, of some or all of the row's results."""
        return rule.judged((one for one in results if one.run == self.run.name), self.cells, self.least_score)

    def counted(self, results: Iterable[Result]) -> list[Result]:
        """Returns those of the row's results that count."""
        return rule.counted((one for one in results if one.run == self.run.name), self.cells, self.least_score)

    def settings(self, trial: int, seed: int) -> dict[str, Any]:
        """Returns the settings of a trial: the same for every data set, budget and machine."""
        if not trial:
            return dict(self.before)
        present = registry.hyper(self.run.method, self.before)
        return {**self.before, **draw(self.space, present, seed, "tuning", self.run.name, trial)}

    def is_repeated(self, trial: int, seed: int) -> bool:
        """Returns whether a trial has the settings of an earlier one: what was drawn anew may be what was there."""
        own = self._hyper(trial, seed)
        return any(self._hyper(number, seed) == own for number in range(trial))

    def is_exhausted(self, trial: int, seed: int) -> bool:
        """Returns whether a trial and so many after it repeat earlier ones that the space has hardly anything new."""
        return all(self.is_repeated(number, seed) for number in range(trial, trial + _REPEATS))

    def _hyper(self, trial: int, seed: int) -> Any:
        return registry.hyper(self.run.method, self.settings(trial, seed))


def add_preset(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds the option that names a preset, and one that says why a configuration's file is none; `what` is for help."""
    parser.add_argument("--preset", default="quick", help=f"{what} (default quick)")
    parser.add_argument("--configfile", type=_no_preset, help=argparse.SUPPRESS)


def _no_preset(file: str) -> str:
    raise UserError(
        f"--configfile {shown(file)}: presets alone are tuned, as what is chosen is written beside them; copy it to"
        " workflow/config/NAME.yaml, with its line extends: quick, and give --preset NAME"
    )


def load(preset: str) -> Config:
    """Returns a preset as it is before the search, on the data sets of its `tuning`.

    Raises UserError for an unknown preset, one whose file says nothing of tuning, or more seconds for a training than
    for a whole run.
    """
    having = [name for name in presets.names() if merging.shipped_content(name).get("tuning")]
    if preset not in having:
        raise unknown("preset to tune", preset, having, hint="any other that says in its file, under tuning, how")
    options = {"datasets": NAMES, "methods": registry, "protocol_keys": None, "tuned": False}
    tuning = presets.load({"preset": preset}, **options).tuning
    longest = 60 * tuning["run_minutes"]
    if tuning["train_seconds"] > longest:
        raise UserError(
            f"{preset}.yaml: tuning.train_seconds: must be at most the {longest:g} s of a whole run (run_minutes),"
            f" got {tuning['train_seconds']:g}"
        )
    return presets.load({"preset": preset, "datasets": list(tuning["datasets"])}, **options)


def tuned_rows(config: Config) -> list[str]:
    """Returns the names of the rows that are tuned: settings of their own, and methods that say where to search."""
    return [name for name in _candidates(config) if _space(config, config.runs[name])]


def _candidates(config: Config) -> list[str]:
    """Returns the names of the rows with settings of their own that no author published.

    An ablation has its method's, and so what these are tuned to.
    """
    return [
        run.name for run in config.runs.values()
        if run.own_settings and not run.external and not run.over_budget and PUBLISHED not in run.chosen_on
    ]  # fmt: skip


def without_search(config: Config) -> list[str]:
    """Returns the names of the rows that would be tuned if their methods said where to search."""
    return [name for name in _candidates(config) if not _space(config, config.runs[name])]


def rows(config: Config, names: Iterable[str] = ()) -> list[Row]:
    """Returns the rows called `names`, all that are tuned without them, in the preset's order.

    Raises UserError for a name that is none of them, and for a row whose method has no search space, or whose settings
    differ between the data sets of the search.
    """
    valid, chosen = tuned_rows(config), list(names)
    for name in chosen:
        if name not in _candidates(config):
            raise unknown("row", name, valid, hint="an ablation takes what its method is tuned to")
    return [_row(config, config.runs[name]) for name in _candidates(config) if name in (chosen or valid)]


def _space(config: Config, run: Run) -> Space:
    first = run.hyper[config.tuning["datasets"][0]]
    return registry.load(run.method).search_space(registry.hyper(run.method, first))


def _row(config: Config, run: Run) -> Row:
    first, *others = (run.hyper[name] for name in config.tuning["datasets"])
    if any(other != first for other in others):
        raise UserError(f"row {run.name} has other settings on some of {', '.join(config.tuning['datasets'])}")
    space = _space(config, run)
    if not space:
        raise UserError(f"method {run.method} has no SEARCH, from which settings could be drawn; give it one")
    cells = tuple((name, epsilon) for name in config.tuning["datasets"] for epsilon in _epsilons(config, run))
    return Row(run, first, space, cells, config.tuning["least_score"])


def _epsilons(config: Config, run: Run) -> list[float]:
    return [math.inf] if run.accounting == "none" else [float(epsilon) for epsilon in config.tuning["epsilons"]]


def read_cells(text: str, config: Config) -> set[Cell]:
    """Returns the cells that a text such as "mnist_val:10,mnist_val:1" names. Raises UserError for any other text."""
    names = config.tuning["datasets"]
    budgets = dict.fromkeys(epsilon for name in tuned_rows(config) for epsilon in _epsilons(config, config.runs[name]))
    valid = [f"{name}:{format_epsilon(epsilon)}" for name in names for epsilon in budgets]
    found = set()
    for item in text.split(","):
        if item not in valid:
            raise unknown("cell", item, valid, hint="write DATASET:EPSILON, several with a comma between")
        name, _, epsilon = item.partition(":")
        found.add((name, parse_epsilon(epsilon)))
    return found


