"""The grid of a preset as types: its runs, and every job that they make. Imports no method and no torch."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from workflow.common import chosen_on
from workflow.common.contracts import RunFolder, format_epsilon
from workflow.common.errors import UserError, unknown
from workflow.common.own_set import OwnSet
from workflow.common.per_record import PerRecord
from workflow.overrides import run_hint


@dataclass(frozen=True)
class Run:
    """A row of the comparison: a method, the accounting that calibrates it, and where it takes part.

    Attributes:
        over_budget: whether it is trained although its plan costs more than epsilon.
        datasets: names in the order of the preset.
        hyper: data set -> overrides of the method's hyper-parameters, without the published settings.
        own_settings: whether its settings were chosen for it, and are not its method's with a part changed.
        chosen_on: where the settings were chosen, as `workflow.common.chosen_on.places` lists; empty if not stated, or
            if the user changed one of them.
        chosen_by: trials, core_minutes and commit of the equal tuning that chose them; empty if none did.
        chosen_note: a sentence more about that choice; empty if there is none.
        external: where samples of a method trained elsewhere lie, with {dataset} and {seed}; empty for a run of ours.
    """

    name: str
    method: str
    accounting: str
    over_budget: bool
    datasets: tuple[str, ...]
    epsilons: tuple[float, ...]
    seeds: tuple[int, ...]
    hyper: Mapping[str, Mapping[str, Any]]
    own_settings: bool = False
    chosen_on: tuple[str, ...] = ()
    chosen_by: Mapping[str, Any] = field(default_factory=dict)
    chosen_note: str = ""
    external: str = ""


@dataclass(frozen=True)
class Job:
    """One training: a run on a data set with a budget and a seed.

    `paper` starts from the published settings: the preset asks for them and the method has one for this data set and
    budget. `external` is the path of the samples of a method trained elsewhere, which only join; else empty.
    """

    dataset: str
    run: str
    method: str
    epsilon: float
    seed: int
    accounting: str
    over_budget: bool
    hyper: Mapping[str, Any]
    paper: bool
    external: str = ""

    def folder(self, root: str | Path) -> str:
        """Returns the run's folder under `root` = `results/<preset>`."""
        return str(RunFolder(Path(root), self.dataset, self.run, self.epsilon, self.seed).path)


@dataclass(frozen=True)
class Config:
    """A preset after merging and checking; `jobs` is its whole grid.

    Attributes:
        datasets: names that take part, in order.
        optional: those of them that are left out where their files are missing.
        delta, seeds, paper_settings, threads, reproducible, audit_seconds, figure_rows, cost, chosen_note, tuning: as
            schema.yaml says.
        protocol: the evaluation settings of every data set; protocol_per_dataset: those that hold on one alone.
        publishes: whether a method has a published setting for a data set and budget.
        own: the user's own data sets among `datasets`, by name.
        extends: the shipped preset below a configuration of the user's own; None for a preset as it is.
    """

    preset: str
    datasets: tuple[str, ...]
    optional: frozenset[str]
    data_sources: tuple[str, ...]
    delta: float
    seeds: tuple[int, ...]
    paper_settings: bool
    threads: int
    reproducible: bool
    audit_seconds: float
    figure_rows: str
    runs: Mapping[str, Run]
    protocol: Mapping[str, Any]
    publishes: Callable[[str, str, float], bool] = field(repr=False, compare=False)
    protocol_per_dataset: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    chosen_note: str = ""
    tuning: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, OwnSet] = field(default_factory=dict)
    extends: str | None = None

    @property
    def root(self) -> str:
        """The folder of all results of this preset."""
        return f"results/{self.preset}"

    @functools.cached_property
    def jobs(self) -> tuple[Job, ...]:
        """Every training of the grid, by data set, run, epsilon and seed."""
        return tuple(
            self._job(run, dataset, epsilon, seed)
            for dataset in self.datasets
            for run in self.runs.values()
            if dataset in run.datasets
            for epsilon in run.epsilons
            for seed in run.seeds
        )

    def _job(self, run: Run, dataset: str, epsilon: float, seed: int) -> Job:
        return Job(
            dataset, run.name, run.method, epsilon, seed, run.accounting, run.over_budget, run.hyper[dataset],
            self.paper_settings and not run.external and self.publishes(run.method, dataset, epsilon),
            run.external.replace("{dataset}", dataset).replace("{seed}", str(seed)),
        )  # fmt: skip

    @property
    def without_published_settings(self) -> tuple[Job, ...]:
        """The jobs that start from their method's defaults although the preset asks for published settings."""
        return tuple(job for job in self.jobs if self.paper_settings and not (job.paper or job.external))

    def job(self, folder: RunFolder) -> Job:
        """Returns the job of a run folder, also one outside the grid such as another seed or epsilon.

        Raises UserError for an unknown data set or run, or an epsilon that does not go with the run's accounting.
        """
        if folder.run not in self.runs:
            raise unknown("run", folder.run, self.runs, run_hint(self.extends or self.preset))
        run = self.runs[folder.run]
        if folder.dataset not in run.hyper:
            raise unknown("data set", folder.dataset, run.hyper)
        check_accounting(run.name, run.accounting, (folder.epsilon,))
        if run.external and (folder.epsilon not in run.epsilons or folder.seed not in run.seeds):
            claimed, seeds = format_epsilon(run.epsilons[0]), ", ".join(map(str, run.seeds))
            raise UserError(f"run {run.name!r} is external: it has samples at epsilon {claimed}, seed {seeds}, alone")
        return self._job(run, folder.dataset, folder.epsilon, folder.seed)

    def protocol_of(self, dataset: str) -> dict[str, Any]:
        """Returns the evaluation settings of a data set: the shared ones, and its own instead where it has any."""
        return {**self.protocol, **self.protocol_per_dataset.get(dataset, {})}

    @property
    def sample_counts(self) -> int | str:
        """The scored samples of a run: a number, or in words where data sets differ."""
        counts = {dataset: self.protocol_of(dataset)["num_samples"] for dataset in self.datasets}
        if len(set(counts.values())) == 1:
            return next(iter(counts.values()))
        return ", ".join(f"{count} ({dataset})" for dataset, count in counts.items())

    def summary(self) -> dict[str, Any]:
        """Returns what determines the scores, ready for JSON: the grid, each run's settings and the protocol."""
        return {
            "preset": self.preset,
            **({"extends": self.extends} if self.extends else {}),
            "datasets": list(self.datasets),
            "delta": self.delta,
            "paper_settings": self.paper_settings,
            **({"reproducible": True} if self.reproducible else {}),
            "runs": {run.name: self._run_summary(run) for run in self._taking_part},
            "protocol": self._protocol_summary(),
            **({"chosen_note": self.chosen_note} if self.chosen_note else {}),
        }

    @property
    def _taking_part(self) -> list[Run]:
        return [run for run in self.runs.values() if set(run.datasets) & set(self.datasets)]

    def _protocol_summary(self) -> Mapping[str, Any]:
        own = {name: self.protocol_per_dataset[name] for name in self.datasets if name in self.protocol_per_dataset}
        return {**self.protocol, "per_dataset": own} if own else self.protocol

    def _run_summary(self, run: Run) -> dict[str, Any]:
        return {
            "method": run.method,
            "accounting": run.accounting,
            "over_budget": run.over_budget,
            **({"external": run.external} if run.external else {}),
            "epsilons": [format_epsilon(epsilon) for epsilon in run.epsilons],
            "seeds": list(run.seeds),
            "hyper": {dataset: run.hyper[dataset] for dataset in self.datasets if dataset in run.datasets},
            **({"chosen_on": list(run.chosen_on)} if run.chosen_on else {}),
            **({"chosen_by": dict(run.chosen_by)} if run.chosen_by else {}),
            **({"chosen_note": run.chosen_note} if run.chosen_note else {}),
        }

    def chosen_on(self) -> list[str]:
        """Returns Markdown sentences on which images each run's settings were chosen."""
        return chosen_on.sentences(self.summary())

    def without(self, missing: Iterable[str]) -> Config:
        """Returns the configuration with some data sets left out. Raises UserError if none is left."""
        gone = set(missing)
        kept = tuple(name for name in self.datasets if name not in gone)
        if not kept:
            raise UserError(f"no data set of preset {self.preset!r} has its files: {', '.join(sorted(gone))}")
        return replace(self, datasets=kept)


def check_accounting(name: str, accounting: str, epsilons: Iterable[float]) -> None:
    """Raises UserError unless accounting none and epsilon inf go together in the run `name`."""
    for epsilon in epsilons:
        if math.isinf(epsilon) != (accounting == "none"):
            raise UserError(
                f"run {name!r}: accounting {accounting!r} does not go with epsilon {format_epsilon(epsilon)}; "
                "accounting none means epsilon .inf, and epsilon .inf means accounting none"
            )


def canonical(value: Any) -> str:
    """Returns key-sorted JSON on one line; the text of a setting in commands and hashes.

    A PerRecord is written as a configuration gives it. Raises UserError for a setting that is infinite or not a number.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=PerRecord.to_dict)
    except ValueError:
        raise UserError(f"settings must be finite numbers, got {value}") from None
