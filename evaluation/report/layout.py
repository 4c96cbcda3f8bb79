"""The layout of tables and figures as data: which rows, columns and labels; read from YAML or JSON and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from workflow.common.errors import UserError, unknown
from workflow.common.files import json_or_path
from workflow.common.metrics import METRICS
from workflow.common.readers.yaml_text import parse_yaml

PLOT_AXES = ("epsilon", "eps_sound", "run")


@dataclass(frozen=True)
class RowSpec:
    """A row: the measured run, the name its published numbers have, and the printed label."""

    run: str
    published: str
    label: str


@dataclass(frozen=True)
class TableSpec:
    """One table. `per_dataset`: a row per run and data set; without `rows`, every measured run.

    `further_datasets`: measured data sets that the layout does not name are added. `paper_only`: of an experiment on
    its `datasets`, so other data sets never stand for them where a configuration is shown alone.
    """

    title: str
    metrics: list[str]
    datasets: list[str] = field(default_factory=list)
    when_measured: list[str] = field(default_factory=list)
    rows: list[RowSpec] = field(default_factory=list)
    per_dataset: bool = False
    further_datasets: bool = True
    paper_only: bool = False


@dataclass(frozen=True)
class FigureSpec:
    """One figure: a panel per data set, a row per run, `images_per_class` images of each class, or more of few classes.

    `paper_rows`: the runs that the paper's own figure shows, at the budget `paper_epsilon`.
    """

    title: str
    datasets: list[str]
    rows: list[RowSpec]
    further_datasets: bool = False
    images_per_class: int = 1
    max_classes: int = 10
    class_labels: list[str] = field(default_factory=list)
    when_empty: str = "No data set of this figure has samples."
    paper_rows: list[str] = field(default_factory=list)
    paper_epsilon: int = 10


@dataclass(frozen=True)
class PlotSpec:
    """A plot of scores.csv: each of `metrics` that was measured, against `x`, a panel for each data set.

    `x` is "epsilon", the budget, "eps_sound", what was spent, or "run", a line for each, the best first.
    """

    title: str
    x: str
    metrics: list[str]


@dataclass(frozen=True)
class CsvColumn:
    """A column of a csv file: its printed label, and the decimals of a number; none for a text."""

    label: str
    decimals: int | None = None


@dataclass(frozen=True)
class CsvTableSpec:
    """A table of columns of a csv file, after those that name a row, with notes printed under it."""

    title: str
    columns: dict[str, CsvColumn]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FrontierSpec:
    """A table of the best published results beside the `best` sound runs of each data set and budget.

    `classifier`: how the measured rows' classifier was chosen, in words.
    """

    title: str
    datasets: list[str]
    classifier: str
    best: int = 3
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ClaimSpec:
    """A claim: of each of `pairs` the first run is better than the second, by each metric.

    `by` says whose claim it is, in a word. It is judged on its `datasets`, where they were measured, at its `epsilons`,
    and wherever else both runs of a pair were measured.
    """

    says: str
    by: str
    pairs: list[list[str]]
    metrics: list[str]
    datasets: list[str] = field(default_factory=list)
    epsilons: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class ClaimsSpec:
    """A table of claims by name. `only`: the data sets to judge on; None: all that were measured."""

    title: str
    claims: dict[str, ClaimSpec]
    notes: list[str] = field(default_factory=list)
    only: list[str] | None = None


@dataclass(frozen=True)
class Layout:
    """Labels of runs, references and data sets; by file name the tables of each kind, and the figures.

    `tables`, `claims` and `plots` show scores.csv, `published_costs` and `audit` the csv files of these names,
    `frontier` scores.csv beside results/published/frontier.csv.
    """

    runs: dict[str, str]
    references: dict[str, str]
    datasets: dict[str, str]
    tables: dict[str, TableSpec]
    figures: dict[str, FigureSpec]
    published_costs: dict[str, CsvTableSpec] = field(default_factory=dict)
    audit: dict[str, CsvTableSpec] = field(default_factory=dict)
    frontier: dict[str, FrontierSpec] = field(default_factory=dict)
    claims: dict[str, ClaimsSpec] = field(default_factory=dict)
    plots: dict[str, PlotSpec] = field(default_factory=dict)

    def run_label(self, run: str) -> str:
        """Returns the printed label of a run; its own name if the layout does not know it."""
        return self.runs.get(run) or self.references.get(run) or run

    def dataset_label(self, dataset: str) -> str:
        """Returns the printed label of a data set; its own name if the layout does not know it."""
        return self.datasets.get(dataset, dataset)

    def ordered(self, found: Iterable[Any]) -> list[Any]:
        """Returns what has a `dataset` in the order of the layout's data sets; others follow, each as they came."""
        return sorted(found, key=lambda one: self.dataset_place(one.dataset))

    def dataset_place(self, dataset: str) -> int:
        """Returns where a data set stands; all that the layout does not know come after those that it does."""
        return list(self.datasets).index(dataset) if dataset in self.datasets else len(self.datasets)

    def only(self, datasets: Sequence[str]) -> Layout:
        """Returns the layout of these data sets alone, in this order: what would show none of them is left out.

        That is a `paper_only` table, a frontier or a figure whose own data sets are others, and the published costs
        where no data set is one that a table names.
        """
        named = {name for table in self.tables.values() for name in table.datasets}
        tables = {n: _restricted(table, datasets, not table.paper_only) for n, table in self.tables.items()}
        figures = {n: _restricted(figure, datasets, figure.further_datasets) for n, figure in self.figures.items()}
        frontier = {
            n: dataclasses.replace(table, datasets=[name for name in datasets if name in table.datasets])
            for n, table in self.frontier.items()
        }
        return dataclasses.replace(
            self,
            frontier={name: table for name, table in frontier.items() if table.datasets},
            claims={name: dataclasses.replace(table, only=list(datasets)) for name, table in self.claims.items()},
            tables={name: table for name, table in tables.items() if table.datasets},
            figures={name: figure for name, figure in figures.items() if figure.datasets},
            published_costs=self.published_costs if named & set(datasets) else {},
        )

    @property
    def placed_runs(self) -> set[str]:
        """The runs that have a place: a row of some table, or a reference. All others are added everywhere."""
        return set(self.references) | {row.run for table in self.tables.values() for row in table.rows}


def _restricted(spec: Any, datasets: Sequence[str], widened: bool) -> Any:
    shown = list(datasets) if widened else [name for name in spec.datasets if name in datasets]
    others = {"when_measured": []} if isinstance(spec, TableSpec) else {}
    return dataclasses.replace(spec, datasets=shown, further_datasets=False, **others)


def _expect(where: str, value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"layout {where}: must be of type {kind.__name__}, got {value!r}")
    return value


def _build(cls: type, where: str, value: Any) -> Any:
    """Builds a dataclass from a mapping: unknown and missing keys, wrong types and negative counts are errors."""
    fields = {item.name: item for item in dataclasses.fields(cls)}
    for key, content in _expect(where, value, dict).items():
        if key not in fields:
            raise unknown(f"key of layout {where}", key, fields)
        kind = {"str": str, "int": int, "int | None": int, "bool": bool}.get(fields[key].type)
        if kind:
            _expect(f"{where}.{key}", content, kind)
        if kind is int and content < 0:
            raise UserError(f"layout {where}.{key}: must not be negative, got {content}")
    required = [n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
    absent = [name for name in required if name not in value]
    if absent:
        raise UserError(f"layout {where}: missing {', '.join(absent)}")
    return cls(**value)


def _row(where: str, value: Any, labels: dict[str, str]) -> RowSpec:
    entry = {"run": value} if isinstance(value, str) else dict(_expect(where, value, dict))
    run = _expect(f"{where}.run", entry.get("run"), str)
    if "label" not in entry and run not in labels:
        raise unknown(f"run in layout {where}", run, labels, "name it under `runs:` or give the row a label")
    return _build(RowSpec, where, {"published": run, "label": labels.get(run), **entry})


def _names(where: str, value: Any, valid: Any, kind: str) -> list[str]:
    for name in _expect(where, value, list):
        if not isinstance(name, str) or name not in valid:
            raise unknown(f"{kind} in layout {where}", name, valid)
    return value


def _section(cls: type, where: str, value: Any, labels: dict[str, str], datasets: dict[str, str]) -> Any:
    entry = dict(_expect(where, value, dict))
    for key in ("datasets", "when_measured"):
        if key in entry:
            _names(f"{where}.{key}", entry[key], datasets, "data set")
    if "metrics" in entry:
        _names(f"{where}.metrics", entry["metrics"], METRICS, "metric")
    if "rows" in entry:
        rows = _expect(f"{where}.rows", entry["rows"], list)
        entry["rows"] = [_row(f"{where}.rows", row, labels) for row in rows]
    if "paper_rows" in entry:
        _names(f"{where}.paper_rows", entry["paper_rows"], labels, "run")
    if "x" in entry and entry["x"] not in PLOT_AXES:
        raise unknown(f"x of layout {where}", entry["x"], PLOT_AXES)
    return _build(cls, where, entry)


def _csv_table(where: str, value: Any) -> CsvTableSpec:
    entry = dict(_expect(where, value, dict))
    columns = _expect(f"{where}.columns", entry.get("columns", {}), dict)
    built = {name: _build(CsvColumn, f"{where}.columns.{name}", item) for name, item in columns.items()}
    _expect(f"{where}.notes", entry.get("notes", []), list)
    return _build(CsvTableSpec, where, entry | {"columns": built})


def _frontier(where: str, value: Any, datasets: dict[str, str]) -> FrontierSpec:
    entry = _expect(where, value, dict)
    _names(f"{where}.datasets", entry.get("datasets", []), datasets, "data set")
    _expect(f"{where}.notes", entry.get("notes", []), list)
    return _build(FrontierSpec, where, entry)


def _claims(where: str, value: Any, labels: dict[str, str], datasets: dict[str, str]) -> ClaimsSpec:
    entry = dict(_expect(where, value, dict))
    named = _expect(f"{where}.claims", entry.get("claims", {}), dict)
    built = {name: _claim(f"{where}.claims.{name}", one, labels, datasets) for name, one in named.items()}
    _expect(f"{where}.notes", entry.get("notes", []), list)
    return _build(ClaimsSpec, where, entry | {"claims": built})


def _claim(where: str, value: Any, labels: dict[str, str], datasets: dict[str, str]) -> ClaimSpec:
    entry = _expect(where, value, dict)
    for pair in _expect(f"{where}.pairs", entry.get("pairs", []), list):
        if len(_names(f"{where}.pairs", pair, labels, "run")) != 2:
            raise UserError(f"layout {where}.pairs: each must name two runs, the better one first; got {pair!r}")
    better = [name for name, metric in METRICS.items() if metric.arrow]
    _names(f"{where}.metrics", entry.get("metrics", []), better, "metric")
    _names(f"{where}.datasets", entry.get("datasets", []), datasets, "data set")
    for epsilon in _expect(f"{where}.epsilons", entry.get("epsilons", []), list):
        if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or epsilon <= 0:
            raise UserError(f"layout {where}.epsilons: must be numbers above 0, got {epsilon!r}")
    return _build(ClaimSpec, where, entry)


def _labels(where: str, value: Any) -> dict[str, str]:
    return {name: _expect(f"{where}.{name}", label, str) for name, label in _expect(where, value, dict).items()}


def parse_layout(value: Any) -> Layout:
    """Checks a layout given as plain data. Raises UserError naming the place, the value and the valid choices."""
    known = {item.name for item in dataclasses.fields(Layout)}
    for key in _expect("(top level)", value, dict):
        if key not in known:
            raise unknown("key of layout (top level)", key, known)
    runs, references, datasets = (_labels(key, value.get(key, {})) for key in ("runs", "references", "datasets"))
    labels = {**runs, **references}

    def named(key: str, read: Callable[[str, Any], Any]) -> dict[str, Any]:
        return {name: read(f"{key}.{name}", item) for name, item in _expect(key, value.get(key, {}), dict).items()}

    return Layout(
        runs=runs, references=references, datasets=datasets,
        tables=named("tables", lambda where, item: _section(TableSpec, where, item, labels, datasets)),
        figures=named("figures", lambda where, item: _section(FigureSpec, where, item, labels, datasets)),
        published_costs=named("published_costs", _csv_table),
        audit=named("audit", _csv_table),
        plots=named("plots", lambda where, item: _section(PlotSpec, where, item, labels, datasets)),
        frontier=named("frontier", lambda where, item: _frontier(where, item, datasets)),
        claims=named("claims", lambda where, item: _claims(where, item, labels, datasets)),
    )  # fmt: skip


def load_layout(text_or_path: str) -> Layout:
    """Reads a layout from inline JSON or from the path of a YAML or JSON file. Raises UserError if it is not valid."""
    return parse_layout(json_or_path(text_or_path, "--layout", parse_yaml))


def add_layout(parser: Any) -> None:
    """Adds --layout and --datasets."""
    parser.add_argument("--layout", required=True, help="inline JSON, or the path of a YAML or JSON file")
    parser.add_argument("--datasets", nargs="+", metavar="NAME", help="show these alone (default: as the layout says)")


def layout_of(options: Any) -> Layout:
    """Returns the layout that the options of `add_layout` describe. Raises UserError if it is not valid."""
    layout = load_layout(options.layout)
    return layout.only(options.datasets) if options.datasets else layout
