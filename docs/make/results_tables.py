"""Writes the tables of measured numbers that README and docs/ show, from the committed scores.

`python -m docs.make.results_tables` fills each table below its line `<!-- table: NAME -->`, as docs/make/results.yaml
describes it, and below `<!-- chosen: PRESET -->` how a preset's settings were chosen; a test holds the committed pages
to what it would write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any

from docs.make import chosen_lines
from docs.make.conclusions import FORMS, Conclusions
from docs.make.measured_files import Rows, Timings, TuningCosts
from docs.make.references import Reference, number, pooled, read_reference, table, with_interval
from evaluation.report.layout import Layout, parse_layout
from evaluation.scores import Score, read_scores
from workflow.common.contracts import format_epsilon
from workflow.common.errors import UserError, command, unknown
from workflow.common.files import write_text
from workflow.common.metrics import METRICS
from workflow.common.options import Parser
from workflow.common.readers.yaml_text import read_yaml

ROOT = Path(__file__).resolve().parents[2]
DESCRIBED = ROOT / "docs/make/results.yaml"
OF_REPORTS, OF_PAGES = "workflow/config/report.yaml", "docs/make/claims.yaml"
ALL = "all"
KEYS = ("reference", "benchmark", "file", "stages", "claims", "form", "only", "tuning", "head", "rows", "without",
        "columns", "chosen")  # fmt: skip
# What `rows: all` puts last, in this order: what no private row can pass.
CEILINGS = ("nonprivate", "real")
# Of a table, or of a list whose items may be longer than a line.
_PLACE = re.compile(r"^<!-- table: (\w+) -->\n\n((?:(?:\||- |  ).*\n)*)", re.MULTILINE)
_PUBLISHED_DIGITS = 2


@dataclass(frozen=True)
class Cell:
    """Which measured values a cell shows: their mean with its interval over seeds, or one alone.

    `epsilon` None takes any; `published` puts the paper's number before it; `mean` leaves the interval away.
    """

    run: str
    dataset: str
    metric: str
    digits: int
    epsilon: float | None = None
    published: bool = False
    mean: bool = False

    def values(self, scores: Iterable[Score]) -> list[float]:
        """Returns one value a seed. Raises UserError for several budgets: they would be taken for seeds."""
        named = (self.run, self.dataset, self.metric)
        found = [
            s for s in scores if (s.method, s.dataset, s.metric) == named and self.epsilon in (None, s.epsilon)
        ]  # fmt: skip
        if len(budgets := sorted({s.epsilon for s in found})) > 1:
            raise UserError(
                f"a cell of {self.metric} of {self.run} on {self.dataset} has values at the epsilons"
                f" {', '.join(map(format_epsilon, budgets))}; say which is meant, as epsilon of its row or column"
            )
        return [s.value for s in found]

    def text(self, measured: Iterable[Score], paper: Iterable[Score]) -> str:
        """Returns the cell's text; a dash where there is no value."""
        values = self.values(measured)
        if self.metric == "eps_sound" and self.run in CEILINGS:
            values = []
        alone = self.mean and values
        own = number(fmean(values), self.digits) if alone else with_interval(values, self.digits)
        if not self.published:
            return own
        return f"{number(next(iter(self.values(paper)), None), _PUBLISHED_DIGITS)} / {own}"


@dataclass(frozen=True)
class Stages:
    """How long each stage of a committed run took, the longest first."""

    reference: Reference

    def markdown(self, paper: Iterable[Score]) -> str:
        """Returns the table's lines; `paper` has no part in it."""
        seconds = {stage: value for stage, value in self.reference.seconds.items() if stage != "total"}
        whole = sum(seconds.values())
        rows = [
            [f"`{stage}`", f"{value:.0f}", f"{value / whole:.1%}"]
            for stage, value in sorted(seconds.items(), key=lambda pair: -pair[1])
        ]
        return table(["stage", "seconds of a core", "share"], [*rows, ["all", f"{whole:.0f}", "100.0%"]])


@dataclass(frozen=True)
class Table:
    """One table: its cells, row by row, under the heads; `head` is the first column's.

    `chosen` heads a last column on where the settings of each row's run were chosen; empty for none.
    """

    reference: Reference
    head: str
    heads: list[str]
    rows: dict[str, list[Cell]]
    chosen: str = ""

    def markdown(self, paper: Iterable[Score]) -> str:
        """Returns the table's lines."""
        scores = self.reference.scores
        rows = [
            [label, *(cell.text(scores, paper) for cell in cells), *self._chosen(cells[0].run)]
            for label, cells in self.rows.items()
        ]
        return table([self.head, *self.heads, *filter(None, [self.chosen])], rows)

    def _chosen(self, run: str) -> list[str]:
        return [self.reference.chosen.get(run) or "-"] if self.chosen else []


Written = Table | Stages | Timings | Rows | Conclusions | TuningCosts


def read_tables(path: Path = DESCRIBED, root: Path = ROOT) -> dict[str, Written]:
    """Returns the described tables by name. Raises UserError for a key or a name that does not exist or is missing."""
    described = read_yaml(path)
    if not isinstance(described, Mapping) or not all(isinstance(entry, Mapping) for entry in described.values()):
        raise UserError(f"{path} must hold a mapping of tables; see the committed one")
    return {str(name): _table(str(name), entry, root) for name, entry in described.items()}


def filled(page: str, tables: Mapping[str, Written], paper: Iterable[Score]) -> str:
    """Returns a page's text with each of its tables written anew. Raises UserError for one that is not described."""

    def written(place: re.Match[str]) -> str:
        name = place[1]
        if name not in tables:
            raise unknown("table of a page", name, tables)
        # The empty line above a table that is not there yet is also the one below it.
        return f"<!-- table: {name} -->\n\n{tables[name].markdown(paper)}\n" + ("" if place[2] else "\n")

    return _PLACE.sub(written, page)


def pages(root: Path = ROOT) -> dict[Path, str]:
    """Returns the text of each page that has such a table, as it should be."""
    tables, paper = read_tables(root=root), read_scores(root / "results/published/scores.csv")
    found = {path: path.read_text(encoding="utf-8") for path in (root / "README.md", *sorted(root.glob("docs/*.md")))}
    made = {path: chosen_lines.filled(filled(text, tables, paper)) for path, text in found.items()}
    return {path: text for path, text in made.items() if _PLACE.search(text) or chosen_lines.PLACE.search(text)}


def _table(name: str, entry: Mapping[str, Any], root: Path) -> Written:
    alone = {"stages", "claims", "tuning"} & entry.keys()
    _check_keys(f"table {name}", entry, KEYS, () if alone else ("columns",) if "file" in entry else ("rows", "columns"))
    head = str(entry.get("head", "run"))
    if "tuning" in entry:
        return TuningCosts(root / "results/reference/tuning" / str(entry["tuning"]) / "costs.csv")
    if "file" in entry:
        return Rows(root / "benchmarks/results" / entry["file"], entry["columns"])
    if "benchmark" in entry:
        path = root / "benchmarks/results" / entry["benchmark"]
        return Timings(path, head, entry["rows"], entry["columns"])
    _check_keys(f"table {name}", entry, KEYS, ("reference",))
    named = entry["reference"] if isinstance(entry["reference"], list) else [entry["reference"]]
    references = [read_reference(root / "results/reference" / str(one)) for one in named]
    if "claims" in entry:
        return _conclusions(name, entry, references, _layout(root))
    reference = pooled(references) if len(references) > 1 else references[0]
    if "stages" in entry:
        return Stages(reference)
    columns = entry["columns"]
    rows = {
        label: [_cell(name, {**row, **column}, reference) for column in columns.values()]
        for label, row in _rows(reference, entry).items()
    }
    return Table(reference, head, list(map(str, columns)), rows, str(entry.get("chosen", "")))


def _conclusions(
    name: str, entry: Mapping[str, Any], references: list[Reference], layout: Layout
) -> Conclusions:  # fmt: skip
    form, only = entry.get("form"), entry.get("only", [])
    if entry["claims"] not in layout.claims:
        raise unknown(f"claims of table {name}", entry["claims"], layout.claims)
    if form not in FORMS:
        raise unknown(f"form of table {name}", form, FORMS)
    for claim in only:
        if claim not in layout.claims[entry["claims"]].claims:
            raise unknown(f"claim of table {name}", claim, layout.claims[entry["claims"]].claims)
    return Conclusions(references, layout, entry["claims"], form, tuple(only))


def _layout(root: Path) -> Layout:
    """Returns the reports' layout, with the claims of pages alone besides."""
    whole = read_yaml(root / OF_REPORTS)
    return parse_layout(whole | {"claims": whole["claims"] | read_yaml(root / OF_PAGES)})


def _check_keys(what: str, entry: Mapping[str, Any], known: Iterable[str], needed: Iterable[str]) -> None:
    for key in entry:
        if key not in known:
            raise unknown(f"key of {what}", key, known)
    for key in needed:
        if key not in entry:
            raise UserError(f"{what} lacks {key}; see the other tables of docs/make/results.yaml")


def _cell(table_name: str, said: Mapping[str, Any], reference: Reference) -> Cell:
    """Returns the cell that a row and a column say together. Raises UserError for what the reference does not hold."""
    what = f"a cell of table {table_name}"
    _check_keys(what, said, [item.name for item in fields(Cell)], ("run", "dataset", "metric", "digits"))
    for key, names in (
        ("run", {s.method for s in reference.scores}),
        ("dataset", {s.dataset for s in reference.scores}),
        ("metric", set(METRICS)),
        ("digits", range(7)),
        ("epsilon", {None, *(s.epsilon for s in reference.scores)}),
    ):
        if (value := said.get(key)) not in names:
            raise unknown(f"{key} of {what}", value, names)
    return Cell(**said)


def _rows(reference: Reference, entry: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns what each row says of its cells, by the label in its first column."""
    rows = entry["rows"]
    if isinstance(rows, Mapping):
        return {str(label): dict(row) for label, row in rows.items()}
    if rows != ALL and not isinstance(rows, list):
        raise UserError(f"rows of a table must be a list of runs, a mapping of labels, or {ALL}, got {rows!r}")
    first = next(iter(entry["columns"].values()))
    names = _all_runs(reference, first, entry.get("without", ())) if rows == ALL else rows
    return {f"`{name}`": {"run": name} for name in names}


def _all_runs(reference: Reference, first: Mapping[str, Any], without: Iterable[str]) -> list[str]:
    """Returns the runs of a reference: those that keep their budget by the sound count, the best of a kind first."""
    spent = {s.method: s.value <= s.epsilon for s in reference.scores if s.metric == "eps_sound"}

    def place(run: str) -> tuple[int, float, str]:
        group = 2 + CEILINGS.index(run) if run in CEILINGS else 0 if spent.get(run) else 1
        values = Cell(**{**first, "run": run}).values(reference.scores)
        return group, -sum(values) / max(1, len(values)), run

    return sorted({s.method for s in reference.scores} - set(without), key=place)


@command
def main(argv: list[str] | None = None) -> None:
    """Writes the tables into the pages."""
    Parser(prog="python -m docs.make.results_tables", description=__doc__).parse_args(argv)
    for path, text in pages().items():
        write_text(path, text)


if __name__ == "__main__":
    raise SystemExit(main())
