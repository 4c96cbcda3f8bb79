"""The table of what each published setting really spends, from the csv that `python -m methods accounts` writes."""

from __future__ import annotations

import csv
from pathlib import Path

from evaluation.report import render
from evaluation.report.layout import AccountsSpec, Layout
from evaluation.report.render import Grid
from workflow.common.errors import UserError

LEAD = ("method", "dataset")
# What a sound value is says how it is shown; the values of eps_released_sound_is and eps_described_sound_is.
TIGHT, BOUND, CONDITIONAL, NONE_KNOWN = "tight", "bound", "conditional", "none known"
_SHOWN = {TIGHT: "{}", BOUND: "≤ {}", CONDITIONAL: "({})"}


def read_accounts(path: Path) -> list[dict[str, str]]:
    """Returns the lines of an accounts csv as texts by column. Raises UserError if it cannot be read or is empty."""
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            lines = list(csv.DictReader(handle))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; make it by python -m methods accounts") from None
    if not lines:
        raise UserError(f"{path} has no lines; make it by python -m methods accounts")
    return lines


def build_accounts(spec: AccountsSpec, layout: Layout, lines: list[dict[str, str]]) -> Grid:
    """Returns the table: a row per published setting, in the layout's order of methods and data sets.

    Raises UserError where a column of the layout is not in the csv, or a sound value's kind is unknown.
    """
    for name in (*LEAD, *spec.columns):
        if name not in lines[0]:
            raise UserError(f"the accounts have no column {name}; there are {', '.join(lines[0])}")
    runs, datasets = list(layout.runs), list(layout.datasets)

    def place(line: dict[str, str]) -> tuple[int, int]:
        method, dataset = line["method"], line["dataset"]
        return (
            runs.index(method) if method in runs else len(runs),
            datasets.index(dataset) if dataset in datasets else len(datasets),
        )

    rows = [
        [layout.run_label(line["method"]), layout.dataset_label(line["dataset"])]
        + [_cell(name, line, column.decimals) for name, column in spec.columns.items()]
        for line in sorted(lines, key=place)
    ]
    heads = ["Method", "Data set", *(column.label for column in spec.columns.values())]
    right = [False] * len(LEAD) + [column.decimals is not None for column in spec.columns.values()]
    return Grid(spec.title, heads, right, rows, list(spec.notes))


def _cell(name: str, line: dict[str, str], decimals: int | None) -> str:
    text, kind = line[name], line.get(f"{name}_is", TIGHT)
    if kind == NONE_KNOWN:
        return kind if line.get("eps_counted") else render.NOT_REPORTED
    if kind not in _SHOWN:
        raise UserError(f"{name}_is must be {TIGHT}, {BOUND}, {CONDITIONAL} or {NONE_KNOWN}, got {kind!r}")
    if not text:
        return render.NOT_REPORTED
    try:
        return text if decimals is None else _SHOWN[kind].format(f"{float(text):.{decimals}f}")
    except ValueError:
        raise UserError(f"{name} must be a number, got {text!r}") from None
