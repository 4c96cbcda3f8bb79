"""A row of a preset, or of a configuration of the user's own, as the settings of one training outside the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods.core import registry
from workflow import merging, presets
from workflow.common.errors import UserError, unknown
from workflow.datasets.sources import NAMES
from workflow.overrides import own_rows, run_hint

SOUND = "sound"


@dataclass(frozen=True)
class Configured:
    """A row on one data set: its method, what it overrides of the method's hyper-parameters, and its budgets.

    With `paper` it starts from the published settings, where the method has any.
    """

    method: str
    dataset: str
    hyper: Mapping[str, Any]
    epsilons: tuple[float, ...]
    delta: float
    paper: bool

    def settings(self, epsilon: float) -> dict[str, Any]:
        """Returns the hyper-parameters that the preset trains the row with at a budget, without the defaults."""
        paper = self.paper and registry.has_paper_settings(self.method, self.dataset, epsilon)
        published = registry.paper_settings(self.method, self.dataset, epsilon) if paper else {}
        return {**published, **self.hyper}


def configured(run: str, dataset: str, preset: str, file: Path | None, released: bool = True) -> Configured:
    """Returns row `run` of `preset`, or of the user's configuration `file` where one is given.

    `dataset` may be a shipped data set or any other name. Raises UserError for an unknown preset or row, a file that is
    no configuration, or, where it is to be `released`, a row that is not held to a sound count.
    """
    if file is None and preset not in presets.names():
        raise unknown("preset", preset, presets.names(), merging.PRESET_HINT)
    entry = {} if dataset in NAMES else {"folder": "."}
    base = {} if file is not None else {"extends": preset, "preset": "released"}
    config = presets.load(
        {**base, "datasets": {dataset: entry}},
        datasets=NAMES,
        methods=registry,
        protocol_keys=None,
        files=[] if file is None else [presets.Layer(file.name, merging.mapping(file))],
    )
    held = [name for name, row in config.runs.items() if row.accounting == SOUND and not row.over_budget]
    valid = held if released else list(config.runs)
    if run not in config.runs:
        hint = run_hint(preset) if file is None else f"the rows of {file}; {own_rows()}"
        raise unknown("run", run, valid, hint)
    if run not in valid:
        raise UserError(f"run {run!r} is not held to a sound epsilon and cannot be released; valid: {', '.join(valid)}")
    row = config.runs[run]
    return Configured(row.method, dataset, row.hyper[dataset], row.epsilons, config.delta, config.paper_settings)
