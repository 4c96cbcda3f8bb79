"""The tables of report.html: each one in parts, a part a data set; every row links to a card."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from evaluation.report.render import NOT_MEASURED, OURS, PAPER, Column, Grid, Row, Table, cell_text, summary
from evaluation.report.scores_tables import LEDGER_METRICS, Numbers
from evaluation.standings import Contender
from workflow.common.contracts import format_epsilon
from workflow.common.metrics import METRICS

MEASURED, PUBLISHED, DIFFERENCE = "measured", "published", "difference"
# Of columns that a narrow screen shows only if asked to, so that scores are seen at once.
COUNT = "count"
NOT_RUN = "not run here"
_NUMBER = re.compile(r"[−-]?\d[\d,]*\.?\d*(e[+-]?\d+)?")


@dataclass(frozen=True)
class Cell:
    """A cell: its text, what it is sorted by (a number, a text, or nothing), and `better` or `worse`."""

    text: str
    sort: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Head:
    """The head of a column: its lines, whether it holds numbers, MEASURED, PUBLISHED, DIFFERENCE, COUNT or nothing."""

    lines: tuple[str, ...]
    right: bool = False
    kind: str = ""


@dataclass(frozen=True)
class PageRow:
    """A row: the method's label, the id of its card, what it is besides a run within its budget, and its cells."""

    label: str
    card: str
    status: str
    cells: list[Cell]


@dataclass(frozen=True)
class Part:
    """The rows of a table on one data set; its first column holds the methods."""

    dataset: str
    label: str
    heads: list[Head]
    rows: list[PageRow]


@dataclass(frozen=True)
class PageTable:
    """A table of the page: an id, a title, its parts, and notes below."""

    name: str
    title: str
    parts: list[Part]
    notes: list[str] = field(default_factory=list)


class Links:
    """Knows the id of every card: of a run's, or of a method's published numbers."""

    def __init__(self, runs: Mapping[tuple[str, str, float, str], str], published: Mapping[str, str]) -> None:
        """Takes the ids by (data set, run, epsilon, accounting), and by the name of a published method."""
        self.runs, self.published = runs, published

    def of(self, dataset: str | None, run: str, epsilon: float, accounting: str) -> str:
        """Returns the id of a run's card, or of its method's published numbers where it was not run; else nothing."""
        return self.runs.get((dataset or "", run, epsilon, accounting)) or self.published.get(run, "")

    def published_setting(self, dataset: str, method: str, epsilon: float) -> str:
        """Returns the id of the card of a method's published numbers, or of its run at that setting."""
        found = (self.runs.get((dataset, method, epsilon, count)) for count in ("published", "sound"))
        return self.published.get(method) or next(filter(None, found), "")


def contender(dataset: str, run: str, epsilon: float, accounting: str, numbers: Numbers) -> Contender:
    """Returns what was measured of a run on a data set."""
    key = (dataset, run, epsilon, accounting)
    return Contender(run, accounting, epsilon, {m: v for m in METRICS if (v := numbers.measured.get((*key, m)))})


def status(one: Contender) -> str:
    """Returns what a run is besides one within its budget, in words; nothing for such a one."""
    return one.bar if one.values else NOT_RUN


def wide(name: str, table: Table, numbers: Numbers, links: Links, proofs: Mapping[tuple, str]) -> PageTable:
    """Returns a table of runs, a part for each data set, those that were run first: measured, published, difference.

    `proofs` says, by data set, method and epsilon, what a published epsilon is that is not proved.
    """
    datasets = {column.dataset: column.dataset_label for column in table.columns if column.dataset}
    datasets = dict(sorted(datasets.items(), key=lambda item: item[0] not in numbers.datasets()))
    parts = [_wide_part(key, label, table, numbers, links, proofs) for key, label in datasets.items()]
    words = {f"{PAPER}: the paper's number; {OURS}: measured here": "published: the paper's number; measured: here",
             "over the data sets and seeds shown": "over the seeds"}  # fmt: skip
    notes = table.notes
    for old, new in words.items():
        notes = [note.replace(old, new) for note in notes]
    return PageTable(name, table.title, [part for part in parts if part.rows], notes)


def _wide_part(
    dataset: str, label: str, table: Table, numbers: Numbers, links: Links, proofs: Mapping[tuple, str]
) -> Part:
    places = {
        (c.metric, c.source): place for place, c in enumerate(table.columns)
        if c.dataset == dataset and any(row.cells[place] for row in table.rows)
    }  # fmt: skip
    ledger = LEDGER_METRICS if any(source == MEASURED for _, source in places) else ()
    metrics = list(dict.fromkeys(metric for metric, _ in places))
    rows = []
    for row in _rows_on(dataset, table, list(places.values()), numbers):
        one = contender(dataset, row.run, row.epsilon, row.accounting, numbers)
        cells = [*_setting(row), *(_spent(one, metric) for metric in ledger)]
        for metric in metrics:
            cells += _compared(metric, places, table.columns, row)
        words = [status(one), "" if one.values else proofs.get((dataset, row.run, row.epsilon), "")]
        link = links.of(dataset, row.run, row.epsilon, row.accounting)
        rows.append(PageRow(bare(row.label), link, "; ".join(filter(None, words)), cells))
    heads = [Head(("Method",)), Head(("ε",), True), Head(("Accounting",), kind=COUNT)]
    heads += [Head((METRICS[metric].label,), True, "" if metric == "eps_sound" else COUNT) for metric in ledger]
    return Part(dataset, label, heads + _metric_heads(metrics, places, table.columns), rows)


def _rows_on(dataset: str, table: Table, places: Sequence[int], numbers: Numbers) -> list[Row]:
    """Returns the rows with a value in `places`, the columns of a data set.

    A run at a budget that was not run there, whatever its count elsewhere, is one row, as the paper counted.
    """
    held = [row for row in table.rows if any(row.cells[place] for place in places)]
    here = [(row.run, row.epsilon) for row in held if _is_measured(row, dataset, numbers)]
    kept = []
    for row in held:
        if not _is_measured(row, dataset, numbers):
            if (row.run, row.epsilon) in here:
                continue
            here.append((row.run, row.epsilon))
            count = numbers.published_accounting(dataset, row.published, row.epsilon)
            row = replace(row, accounting=count or row.accounting)
        kept.append(row)
    return kept


def _is_measured(row: Row, dataset: str, numbers: Numbers) -> bool:
    return bool(contender(dataset, row.run, row.epsilon, row.accounting, numbers).values)


def bare(label: str) -> str:
    """Returns a run's label without its status, which has a place of its own on the page."""
    for said in (" (reference)", " (over budget)", " (ε claimed)"):
        label = label.replace(said, "")
    return label.replace("(reference, ", "(").replace("(ε claimed, ", "(")


def _metric_heads(metrics: Iterable[str], places: Mapping[tuple, int], columns: Sequence[Column]) -> list[Head]:
    heads = []
    for metric in metrics:
        kinds = [kind for kind in (MEASURED, PUBLISHED) if (metric, kind) in places]
        column = columns[places[metric, kinds[0]]]
        name = column.metric_label + column.arrow
        heads += [Head((name, kind), True, kind) for kind in [*kinds, *([DIFFERENCE] if len(kinds) == 2 else [])]]
    return heads


def _compared(metric: str, places: Mapping[tuple, int], columns: Sequence[Column], row: Row) -> list[Cell]:
    """Returns the measured and the published cell of a metric, as far as there are columns, and their difference."""
    found = {kind: places[metric, kind] for kind in (MEASURED, PUBLISHED) if (metric, kind) in places}
    cells = [number_cell(row.cells[place], columns[place]) for place in found.values()]
    if len(found) == 2:
        ours, paper = (row.cells[place] for place in found.values())
        cells.append(_difference(metric, ours, paper, columns[found[MEASURED]].decimals))
    return cells


def _difference(metric: str, ours: tuple[float, ...], paper: tuple[float, ...], decimals: int) -> Cell:
    if not ours or not paper:
        return Cell("")
    value = summary(ours)[0] - summary(paper)[0]
    text = f"{value:+.{decimals}f}".replace("-", "−")
    if float(f"{value:.{decimals}f}") == 0:
        return Cell(text.lstrip("+−"), "0")
    return Cell(text, f"{value:.9g}", "better" if (value > 0) == METRICS[metric].higher_is_better else "worse")


def number_cell(values: tuple[float, ...], column: Column) -> Cell:
    """Returns the cell of a row's values: mean, interval and seeds, or the mark of what is missing."""
    return Cell(cell_text(values, column), _sorted_by(summary(values)[0]) if values else "")


def _sorted_by(value: float) -> str:
    # JavaScript's largest number stands for infinity, which it would sort as a text.
    return "1e308" if math.isinf(value) else f"{value:.9g}"


def _setting(row: Row) -> list[Cell]:
    epsilon = "∞" if math.isinf(row.epsilon) else format_epsilon(row.epsilon)
    return [Cell(epsilon, _sorted_by(row.epsilon)), Cell(row.accounting, row.accounting)]


def _spent(one: Contender, metric: str) -> Cell:
    if not one.values:
        return Cell(NOT_MEASURED)
    if math.isinf(one.epsilon):
        return Cell("∞", "1e308")
    values = one.values.get(metric)
    if not values:
        return Cell(NOT_MEASURED)
    return Cell(f"{max(values):.{METRICS[metric].decimals}f}", _sorted_by(max(values)))


def long(name: str, table: Table, numbers: Numbers, links: Links, labels: Mapping[str, str]) -> PageTable:
    """Returns a table with a row for each run and data set as parts; `labels` are those of data sets."""
    heads = [Head(("Method",)), Head(("ε",), True), Head(("Accounting",))]
    heads += [Head((column.metric_label + column.arrow,), True) for column in table.columns]
    parts: dict[str, list[PageRow]] = {}
    for row in table.rows:
        free = row.accounting == "none"
        cells = [
            Cell("∞", "1e308") if free and column.metric.startswith("eps_") else number_cell(values, column)
            for values, column in zip(row.cells, table.columns, strict=True)
        ]
        one = contender(row.on or "", row.run, row.epsilon, row.accounting, numbers)
        link = links.of(row.on, row.run, row.epsilon, row.accounting)
        shown = PageRow(bare(row.label), link, one.bar if one.values else "", _setting(row) + cells)
        parts.setdefault(row.on or "", []).append(shown)
    whole = [Part(key, labels.get(key) or key, heads, rows) for key, rows in parts.items()]
    return PageTable(name, table.title, whole, table.notes)


@dataclass(frozen=True)
class Source:
    """What stands behind a row of a grid: its data set, the id of its card, and its status."""

    dataset: str
    card: str
    status: str = ""


def of_grid(
    name: str, grid: Grid, sources: Sequence[Source], labels: Mapping[str, str], lead: str = "Method"
) -> PageTable:
    """Returns a table of texts in parts; `sources` are the rows' own. The column `lead` is put first, the one of data
    sets left out, since each part is one.
    """
    method, dataset = grid.heads.index(lead), grid.heads.index("Data set")
    kept = [place for place in range(len(grid.heads)) if place not in (method, dataset)]
    heads = [Head((lead,)), *(Head((grid.heads[place],), grid.right[place]) for place in kept)]
    parts: dict[str, list[PageRow]] = {}
    for cells, source in zip(grid.rows, sources, strict=True):
        shown = [Cell(cells[place], _grid_sort(cells[place], grid.right[place])) for place in kept]
        row = PageRow(bare(cells[method]), source.card, source.status, shown)
        parts.setdefault(source.dataset, []).append(row)
    whole = [Part(key, labels.get(key) or key, heads, rows) for key, rows in parts.items()]
    return PageTable(name, grid.title, whole, grid.notes)


def _grid_sort(text: str, right: bool) -> str:
    if not right:
        return text
    number = _NUMBER.search(text)
    return number[0].replace(",", "").replace("−", "-") if number else ""


def dataset_keys(tables: Iterable[PageTable]) -> Iterator[tuple[str, str]]:
    """Yields the names and labels of all parts' data sets, each once, in the order in which they stand."""
    yield from {part.dataset: part.label for table in tables for part in table.parts}.items()
