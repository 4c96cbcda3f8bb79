"""A row of a preset, or of a configuration of the user's own, as the settings of one training outside the graph."""

from __future__ import annotations

from pathlib import Path

from methods.core import registry
from workflow import merging, presets
from workflow.common.errors import UserError, unknown
from workflow.datasets.sources import NAMES
from workflow.grid import Run

SOUND = "sound"


def configured(run: str, dataset: str, preset: str, file: Path | None) -> Run:
    """Returns row `run` of `preset`, or of the user's configuration `file` where one is given.

    `dataset` may be a shipped data set or any other name; the row's `hyper` holds its overrides under that name. Raises
    UserError for an unknown preset or row, a file that is no configuration, or a row that is not held to a sound count.
    """
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
        raise unknown("run", run, held, f"rows of {file or f'preset {preset}'}")
    if run not in held:
        raise UserError(f"run {run!r} is not held to a sound epsilon and cannot be released; valid: {', '.join(held)}")
    return config.runs[run]
