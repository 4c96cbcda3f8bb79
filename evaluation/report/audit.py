"""Table 7: what attacks proved of each run's epsilon, next to what the accountants say, from audit.csv."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from evaluation.report import render
from evaluation.report.csv_rows import as_number, read_rows
from evaluation.report.layout import CsvTableSpec, Layout, load_layout
from evaluation.report.render import Column, Row, Table
from workflow.common.contracts import parse_epsilon
from workflow.common.errors import UserError, command
from workflow.common.files import read_csv
from workflow.common.options import Parser

LEAD = ("run", "dataset", "epsilon", "accounting", "attack", "confidence")
COUNTS = ("epsilon_lower", "eps_published", "eps_sound")  # the notes compare them, whatever the layout shows


def read_audit(path: Path, spec: CsvTableSpec) -> list[dict[str, str]]:
    """Returns the rows of audit.csv.

    Raises UserError if it is missing, lacks columns, holds what is no number from 0, or has a row twice.
    """
    rows = read_rows(path, spec, (*LEAD, *COUNTS), "python -m methods audit")
    for row in rows:
        for name in ("confidence", *COUNTS, *spec.columns):
            as_number(row, name, f"{path}: {row['run']}: ")
        if not 0 < float(row["confidence"]) < 1:
            raise UserError(f"{path}: {row['run']}: confidence must lie between 0 and 1, got {row['confidence']}")
    keys = Counter(tuple(row[name] for name in (*LEAD, "seed") if name in row) for row in rows)
    if rows and "seed" in rows[0] and max(keys.values()) > 1:
        raise UserError(f"{path}: two rows for {' '.join(keys.most_common(1)[0][0])}; remove one")
    return rows


def from_table(path: Path, spec: CsvTableSpec, layout: Layout) -> list[dict[str, str]]:
    """Returns rows as of audit.csv from the table's own csv, which has means over the seeds and no confidence.

    Raises UserError as `read_audit`.
    """
    runs = {label: run for run, label in {**layout.runs, **layout.references}.items()}
    datasets = {label: name for name, label in layout.datasets.items()}
    means = {name: f"{name}_mean" for name in dict.fromkeys((*COUNTS, *spec.columns))}
    rows = read_csv(path, ["method", "dataset", "epsilon", "accounting", *means.values()], "python -m methods audit")
    found = []
    for row in rows:
        who = {"run": runs.get(row["method"], row["method"]), "dataset": datasets.get(row["dataset"], row["dataset"])}
        numbers = {name: row[mean] for name, mean in means.items()}
        shown = {**who, "epsilon": row["epsilon"], "accounting": row["accounting"], "attack": "mechanism", **numbers}
        for name in means:
            as_number(shown, name, f"{path}: {row['method']}: ")
        found.append(shown)
    return found


def build_table(rows: Sequence[dict[str, str]], spec: CsvTableSpec, layout: Layout) -> Table:
    """Returns one row per run, data set and setting; several seeds are one row of several values."""
    columns = [Column(None, "", name, c.label, "measured", c.decimals or 0) for name, c in spec.columns.items()]
    order = {run: place for place, run in enumerate(layout.runs)}
    places = [(row["dataset"], -parse_epsilon(row["epsilon"]), order.get(row["run"], len(order))) for row in rows]
    merged: dict[tuple, Row] = {}
    for _, row in sorted(zip(places, rows, strict=True), key=lambda item: item[0]):
        key = (row["dataset"], row["run"], row["epsilon"], row["accounting"], row["attack"])
        label, dataset = layout.run_label(row["run"]), layout.dataset_label(row["dataset"])
        epsilon, names = parse_epsilon(row["epsilon"]), (row["run"], row["dataset"])
        shown = merged.setdefault(key, Row(label, dataset, epsilon, row["accounting"], [()] * len(columns), *names))
        shown.cells = [(*cell, float(row[name])) for cell, name in zip(shown.cells, spec.columns, strict=True)]
    return Table(spec.title, columns, list(merged.values()), _notes(rows, spec))


def _notes(rows: Sequence[dict[str, str]], spec: CsvTableSpec) -> list[str]:
    stated = {f"{100 * float(row['confidence']):g} %" for row in rows if "confidence" in row}
    confidence = ", ".join(sorted(stated)) or ("none" if not rows else "that the audit states")
    notes = [note.replace("{confidence}", confidence) for note in spec.notes]
    if len({row["seed"] for row in rows if "seed" in row}) > 1:
        notes.append(render.SEVERAL_SEEDS)
    over = [row for row in rows if _over(row, "eps_sound")]
    below = [row for row in rows if _over(row, "eps_published") and row not in over]
    for some, what in ((over, "sound"), (below, "published")):
        if some:
            names = ", ".join(sorted({f"{row['run']} on {row['dataset']}" for row in some}))
            notes.append(f"ε lower exceeds ε {what}, so that count is not a bound: {names}.")
    return notes


def _over(row: dict[str, str], count: str) -> bool:
    return math.isfinite(float(row[count])) and float(row["epsilon_lower"]) > float(row[count])


@command
def main(argv: list[str] | None = None) -> None:
    """Runs `python -m evaluation.report.audit`."""
    parser = Parser(prog="python -m evaluation.report.audit", description=__doc__)
    parser.add_argument("--audit", type=Path, required=True, help="audit.csv")
    parser.add_argument("--layout", required=True, help="inline JSON, or the path of a YAML or JSON file")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables' .csv, .md and .tex")
    options = parser.parse_args(argv)
    layout = load_layout(options.layout)
    for name, spec in layout.audit.items():
        render.write_table(options.out, name, build_table(read_audit(options.audit, spec), spec, layout))


if __name__ == "__main__":
    raise SystemExit(main())
