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
    """A row: its method, what it overrides of the method's hyper-parameters on one data set, and its budgets."""

    method: str
    hyper: Mapping[str, Any]
    epsilons: tuple[float, ...]
    delta: float


def configured(run: str, dataset: str, preset: str, file: Path | None) -> Configured:
    """Returns row `run` of `preset`, or of the user's configuration `file` where one is given.

    `dataset` may be a shipped data set or any other name. Raises UserError for an unknown preset or row, a file that is
    no configuration, or a row that is not held to a sound count.
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
    if run not in config.runs:
        hint = run_hint(preset) if file is None else f"the rows of {file}; {own_rows()}"
        raise unknown("run", run, held, hint)
    if run not in held:
        raise UserError(f"run {run!r} is not held to a sound epsilon and cannot be released; valid: {', '.join(held)}")
    row = config.runs[run]
    return Configured(row.method, row.hyper[dataset], row.epsilons, config.delta)
