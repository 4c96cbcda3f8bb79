"""The audit table: what attacks proved of each run's epsilon, beside what the accountants say, from audit.csv."""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Sequence
from pathlib import Path

from evaluation.report import render
from evaluation.report.layout import Layout, load_layout
from evaluation.report.render import Column, Row, Table
from workflow.common.contracts import parse_epsilon
from workflow.common.errors import UserError, command
from workflow.common.files import write_text

NAME = "table7"
TITLE = "Table 7: audit: epsilon proved from below by attack, and counted from above"
# Column of audit.csv -> label, decimals.
SHOWN = {
    "uses": ("uses attacked", 0), "max_uses": ("uses of the run", 0), "canaries": ("canaries", 0),
    "epsilon_lower": ("ε lower", 2), "eps_published": ("ε published", 2), "eps_sound": ("ε sound", 2),
}  # fmt: skip


def read_audit(path: Path) -> list[dict[str, str]]:
    """Returns the rows of audit.csv. Raises UserError if it is missing, lacks columns, or holds what is no number."""
    needed = ("run", "dataset", "epsilon", "accounting", "attack", "confidence", *SHOWN)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    missing = [name for name in needed if name not in (reader.fieldnames or ())]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}; make it by python -m methods audit")
    for row in rows:
        for name in ("confidence", *SHOWN):
            try:
                float(row[name])
            except (TypeError, ValueError):
                raise UserError(f"{path}: {name} of {row['run']} must be a number, got {row[name]!r}") from None
    return rows


def build_table(rows: Sequence[dict[str, str]], layout: Layout) -> Table:
    """Returns one row per run, data set and setting; several seeds are one row of several values."""
    columns = [Column(None, "", name, label, "measured", decimals) for name, (label, decimals) in SHOWN.items()]
    order = {run: place for place, run in enumerate(layout.runs)}
    found: dict[tuple, Row] = {}
    places = [(row["dataset"], -parse_epsilon(row["epsilon"]), order.get(row["run"], len(order))) for row in rows]
    for _, row in sorted(zip(places, rows, strict=True), key=lambda item: item[0]):
        key = (row["dataset"], row["run"], row["epsilon"], row["accounting"], row["attack"])
        label, dataset = layout.run_label(row["run"]), layout.dataset_label(row["dataset"])
        lead = Row(label, dataset, parse_epsilon(row["epsilon"]), row["accounting"], [()] * len(columns))
        kept = found.setdefault(key, lead)
        kept.cells = [(*cell, float(row[name])) for cell, name in zip(kept.cells, SHOWN, strict=True)]
    return Table(TITLE, columns, list(found.values()), _notes(rows))


def _notes(rows: Sequence[dict[str, str]]) -> list[str]:
    confidence = ", ".join(sorted({f"{100 * float(row['confidence']):g} %" for row in rows})) or "none"
    notes = [
        f"ε lower holds at confidence {confidence}: canaries with secret coins pass the code that clips, draws and adds"
        " noise, and the coins are guessed from its answers. ε published and ε sound are of the uses attacked, fewer"
        " than the run's where more would leave too few canaries."
    ]
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--audit", type=Path, required=True, help="audit.csv")
    parser.add_argument("--layout", required=True, help="inline JSON, or the path of a YAML or JSON file")
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {NAME}.csv, .md and .tex")
    options = parser.parse_args(argv)
    table = build_table(read_audit(options.audit), load_layout(options.layout))
    for suffix, draw in (("csv", render.to_csv), ("md", render.to_markdown), ("tex", render.to_latex)):
        write_text(options.out / f"{NAME}.{suffix}", draw(table))


if __name__ == "__main__":
    raise SystemExit(main())
