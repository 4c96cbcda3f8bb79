"""Table 5: what each published setting really spends, from the csv that `python -m methods published-costs` writes."""

from __future__ import annotations

from pathlib import Path

from evaluation.report import render
from evaluation.report.csv_rows import read_rows
from evaluation.report.layout import CsvTableSpec, Layout, load_layout
from evaluation.report.render import Grid
from workflow.common.errors import UserError, command
from workflow.common.options import Parser

LEAD = ("method", "dataset")
MAKER = "python -m methods published-costs"
# What a sound value is says how it is shown; the values of eps_released_sound_is and eps_described_sound_is.
TIGHT, BOUND, CONDITIONAL, NONE_KNOWN, NONE_PROVED = "tight", "bound", "conditional", "none known", "no epsilon proved"
_SHOWN = {TIGHT: "{}", BOUND: "≤ {}", CONDITIONAL: "({})"}


def build_grid(spec: CsvTableSpec, layout: Layout, rows: list[dict[str, str]]) -> Grid:
    """Returns the table: a row per published setting, in the layout's order of methods and data sets.

    Raises UserError where a sound value's kind is unknown.
    """
    cells = [
        [layout.run_label(row["method"]), layout.dataset_label(row["dataset"])]
        + [_cell(name, row, column.decimals) for name, column in spec.columns.items()]
        for row in ordered(layout, rows)
    ]
    heads = ["Method", "Data set", *(column.label for column in spec.columns.values())]
    right = [False] * len(LEAD) + [column.decimals is not None for column in spec.columns.values()]
    return Grid(spec.title, heads, right, cells, list(spec.notes))


def ordered(layout: Layout, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Returns the rows in the layout's order of methods and data sets."""
    runs, datasets = list(layout.runs), list(layout.datasets)

    def place(row: dict[str, str]) -> tuple[int, int]:
        method, dataset = row["method"], row["dataset"]
        return (
            runs.index(method) if method in runs else len(runs),
            datasets.index(dataset) if dataset in datasets else len(datasets),
        )

    return sorted(rows, key=place)


def _cell(name: str, row: dict[str, str], decimals: int | None) -> str:
    text, kind = row[name], row.get(f"{name}_is", TIGHT)
    if kind == NONE_PROVED:
        return kind
    if kind == NONE_KNOWN:
        return kind if row.get("eps_counted") else render.NOT_REPORTED
    if kind not in _SHOWN:
        kinds = ", ".join((*_SHOWN, NONE_KNOWN))
        raise UserError(f"{name}_is must be {kinds} or {NONE_PROVED}, got {kind!r}")
    if not text:
        return render.NOT_REPORTED
    return text if decimals is None else _SHOWN[kind].format(f"{float(text):.{decimals}f}")


def write_tables(layout: Layout, costs: Path, out: Path) -> None:
    """Writes each table of the layout's `published_costs` as csv, md and tex under `out`; the csv is `costs` itself.

    Raises UserError where `costs` cannot be read, has no rows, or lacks what a table shows.
    """
    for name, spec in layout.published_costs.items():
        rows = read_rows(costs, spec, LEAD, MAKER)
        if not rows:
            raise UserError(f"{costs} has no rows; it is written by {MAKER}")
        render.write_grid(out, name, build_grid(spec, layout, rows), costs.read_text(encoding="utf-8"))


@command
def main(argv: list[str] | None = None) -> None:
    """Runs `python -m evaluation.report.published_costs`."""
    parser = Parser(prog="python -m evaluation.report.published_costs", description=__doc__)
    parser.add_argument("--published-costs", type=Path, required=True, help=f"csv of `{MAKER}`")
    parser.add_argument("--layout", required=True, help="inline JSON, or the path of a YAML or JSON file")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables' .csv, .md and .tex")
    options = parser.parse_args(argv)
    write_tables(load_layout(options.layout), options.published_costs, options.out)


if __name__ == "__main__":
    raise SystemExit(main())
