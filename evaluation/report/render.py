"""One table, three texts: csv for programs, Markdown for readers, LaTeX (booktabs) for papers."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from evaluation.intervals import CONFIDENCE, half_width
from evaluation.scores import format_value
from workflow.common.contracts import format_epsilon
from workflow.common.files import csv_text, write_text
from workflow.common.metrics import METRICS

PAPER, OURS = "paper", "ours"
SEVERAL_SEEDS = f"Several seeds: mean ± half the width of its {CONFIDENCE:.0%} t interval (number of seeds)."
NOT_REPORTED, NOT_MEASURED = "—", "n/m"


@dataclass(frozen=True)
class Column:
    """A column of values: `dataset` is None where the row or the table says it; `source` measured or published."""

    dataset: str | None
    dataset_label: str
    metric: str
    metric_label: str
    source: str
    decimals: int

    @property
    def arrow(self) -> str:
        metric = METRICS.get(self.metric)  # None for a column of an audit
        if metric is None or not metric.arrow:
            return ""
        return " ↑" if metric.higher_is_better else " ↓"

    @property
    def name(self) -> str:
        """The csv name, without the suffix of a measured column, such as `mnist_is_published`."""
        parts = [self.dataset, self.metric, self.source if self.dataset else None]
        return "_".join(part for part in parts if part)


@dataclass
class Row:
    """A row: label, data set (tables with a row per data set), setting, and one tuple of values per column.

    `run` and `on` are the names behind the labels: of the run, and of the row's data set. `published` is the name under
    which the paper's numbers of the row are listed.
    """

    label: str
    dataset: str | None
    epsilon: float
    accounting: str
    cells: list[tuple[float, ...]] = field(default_factory=list)
    run: str = ""
    on: str | None = None
    published: str = ""


@dataclass
class Table:
    """A table ready to draw. `notes` are sentences printed under it."""

    title: str
    columns: list[Column]
    rows: list[Row]
    notes: list[str]

    @property
    def has_datasets(self) -> bool:
        return any(row.dataset is not None for row in self.rows)


@dataclass
class Grid:
    """A table of texts ready to draw: heads, whether each column is set to the right, rows, and notes under it."""

    title: str
    heads: list[str]
    right: list[bool]
    rows: list[list[str]]
    notes: list[str]


def summary(values: tuple[float, ...]) -> tuple[float, float | None]:
    """Returns the mean and the sample standard deviation (None for one value, or where a value is infinite)."""
    if any(math.isinf(value) for value in values):
        return math.inf, None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _shown(value: float, decimals: int) -> str:
    return "∞" if math.isinf(value) else f"{value:.{decimals}f}"


def cell_text(values: tuple[float, ...], column: Column) -> str:
    """Returns a cell for readers: the number, the mean with its interval (n), or the mark of what is missing."""
    if not values:
        return NOT_REPORTED if column.source == "published" else NOT_MEASURED
    text, reach = _shown(summary(values)[0], column.decimals), half_width(values)
    if reach is None:
        return text
    return f"{text} ± {_shown(reach, column.decimals)} ({len(values)})" if reach else f"{text} ({len(values)})"


def _texts(table: Table, row: Row) -> list[str]:
    """Returns the drawn cells of a row; without privacy there is nothing to spend: its epsilons are infinite."""
    pairs = list(zip(row.cells, table.columns, strict=True))
    free = [row.accounting == "none" and column.metric.startswith("eps_") for _, column in pairs]
    body = ["∞" if is_free else cell_text(*pair) for is_free, pair in zip(free, pairs, strict=True)]
    return _lead(table, row) + body


def _head(table: Table) -> list[str]:
    return ["Method", *(["Data set"] if table.has_datasets else []), "ε", "Accounting"]


def _lead(table: Table, row: Row) -> list[str]:
    epsilon = "∞" if math.isinf(row.epsilon) else format_epsilon(row.epsilon)
    return [row.label, *([row.dataset or ""] if table.has_datasets else []), epsilon, row.accounting]


def to_csv(table: Table) -> str:
    """Returns csv: published columns as one value, measured ones as mean, std and n; an empty cell is missing."""
    names = ["method", *(["dataset"] if table.has_datasets else []), "epsilon", "accounting"]
    for column in table.columns:
        measured = column.source == "measured"
        names += [f"{column.name}_{part}" for part in ("mean", "std", "n")] if measured else [column.name]
    return csv_text(names, (_csv_row(table, row) for row in table.rows))


def _csv_row(table: Table, row: Row) -> list[str]:
    *lead, _, accounting = _lead(table, row)
    numbers = [text for pair in zip(row.cells, table.columns, strict=True) for text in _numbers(*pair)]
    return [*lead, format_epsilon(row.epsilon), accounting, *numbers]


def _numbers(values: tuple[float, ...], column: Column) -> list[str]:
    if column.source == "published":
        return [format_value(values[0]) if values else ""]
    if not values:
        return ["", "", ""]
    mean, spread = summary(values)
    return [format_value(mean), "" if spread is None else format_value(spread), str(len(values))]


def _markdown_line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def to_markdown(table: Table) -> str:
    """Returns a Markdown page: the title, a pipe table whose headers name data set, metric and source, the notes."""
    heads = _head(table)
    for column in table.columns:
        source = (PAPER if column.source == "published" else OURS) if column.dataset else ""
        parts = (column.dataset_label, column.metric_label + column.arrow, source)
        heads.append("<br>".join(part for part in parts if part))
    words = len(_head(table)) - 2
    right = [False] * words + [True, False] + [True] * len(table.columns)
    return grid_to_markdown(Grid(table.title, heads, right, [_texts(table, row) for row in table.rows], table.notes))


def grid_to_markdown(grid: Grid) -> str:
    """Returns a Markdown page: the title, a pipe table and the notes."""
    rule = ["---:" if right else "---" for right in grid.right]
    lines = [_markdown_line(cells) for cells in [grid.heads, rule, *grid.rows]]
    return "\n".join([f"### {grid.title}", "", *lines, "", "\n\n".join(grid.notes), ""])


_LATEX = str.maketrans({
    "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "—": "---", "±": r"$\pm$", "∞": r"$\infty$", "−": "$-$",
    "ε": r"$\varepsilon$", "δ": r"$\delta$", "≤": r"$\leq$", "↑": r"$\uparrow$", "↓": r"$\downarrow$",
})  # fmt: skip


def latex_text(text: str) -> str:
    """Returns text with LaTeX's special characters escaped and ours (±, ∞, ε, arrows) as commands."""
    return text.translate(_LATEX)


def _latex_head(table: Table) -> list[str]:
    """Returns three header lines: data sets, metrics, sources; equal neighbours share a cell."""
    lead = len(_head(table))
    lines = []
    keys = (
        lambda c: (c.dataset or c.metric, c.dataset_label),
        lambda c: (c.dataset, c.metric, c.metric_label + c.arrow),
        lambda c: (c.dataset, c.metric, c.source, (PAPER if c.source == "published" else OURS) if c.dataset else ""),
    )
    for depth, key in enumerate(keys):
        cells = [latex_text(cell) for cell in _head(table)] if depth == 2 else [""] * lead
        rules, start = [], lead + 1
        for (*_, label), group in groupby(table.columns, key=key):
            width = len(list(group))
            cells.append(rf"\multicolumn{{{width}}}{{c}}{{{latex_text(label)}}}")
            if label and depth < 2 and width > 1:
                rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
            start += width
        lines.append(" & ".join(cells) + r" \\" + "".join(rules))
    return lines


def to_latex(table: Table) -> str:
    """Returns a table environment for LaTeX; needs the packages booktabs and graphicx."""
    words = len(_head(table)) - 2
    body, last = [], None
    for row in table.rows:
        if last is not None and row.epsilon != last:
            body.append(r"\midrule")
        last = row.epsilon
        body.append(" & ".join(latex_text(text) for text in _texts(table, row)) + r" \\")
    spec = f"{'l' * words}rl{'r' * len(table.columns)}"
    return _latex_page(table.title, spec, _latex_head(table), body, table.notes)


def grid_to_latex(grid: Grid) -> str:
    """Returns a table environment for LaTeX; needs the packages booktabs and graphicx."""
    heads, *body = [" & ".join(latex_text(text) for text in cells) + r" \\" for cells in [grid.heads, *grid.rows]]
    return _latex_page(grid.title, "".join("r" if right else "l" for right in grid.right), [heads], body, grid.notes)


def _latex_page(title: str, spec: str, heads: list[str], body: list[str], notes: list[str]) -> str:
    return "\n".join([
        "% Needs booktabs and graphicx.",
        r"\begin{table*}[t]",
        r"\centering",
        rf"\caption{{{latex_text(title)}}}",
        r"\resizebox{\linewidth}{!}{%",
        rf"\begin{{tabular}}{{{spec}}}",
        r"\toprule",
        *heads,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
        *(rf"\par\smallskip\footnotesize {latex_text(note)}" for note in notes),
        r"\end{table*}",
        "",
    ])  # fmt: skip


def write_table(folder: Path, name: str, table: Table) -> None:
    """Writes a table as `<name>.csv`, `.md` and `.tex` under `folder`."""
    _write(folder, name, {"csv": to_csv(table), "md": to_markdown(table), "tex": to_latex(table)})


def write_grid(folder: Path, name: str, grid: Grid, csv: str) -> None:
    """Writes a table of texts as `<name>.md` and `.tex` under `folder`, and as `<name>.csv` the text it comes from."""
    _write(folder, name, {"csv": csv, "md": grid_to_markdown(grid), "tex": grid_to_latex(grid)})


def _write(folder: Path, name: str, texts: dict[str, str]) -> None:
    for suffix, text in texts.items():
        write_text(folder / f"{name}.{suffix}", text)
