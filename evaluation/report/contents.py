"""What report.html shows, gathered from a results folder: everything but its form."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation import price
from evaluation.report import (
    audit,
    cards,
    charts,
    frontier,
    headline,
    leaders,
    page_tables,
    published_cards,
    published_costs,
    scores_tables,
    verdicts,
)  # fmt: skip
from evaluation.report.cards import Card
from evaluation.report.charts import Chart
from evaluation.report.csv_rows import read_rows
from evaluation.report.headline import Best, Finding
from evaluation.report.layout import CsvTableSpec, Layout
from evaluation.report.leaders import Ranked
from evaluation.report.page_tables import Links, PageTable, Source
from evaluation.report.published_cards import PublishedCard
from evaluation.report.scores_tables import Numbers
from evaluation.scores import Score, read_scores
from workflow.common.contracts import ACCOUNTINGS, CLAIMED, REAL, RunFolder
from workflow.common.errors import UserError
from workflow.common.files import read_csv, read_object

SPENDING = ("dataset", "run", "epsilon", "accounting", "seed", "charges", "eps_published", "eps_sound")


@dataclass(frozen=True)
class Contents:
    """All that the page shows. `trained` says how many runs; `datasets` are names and labels; `plots` by data set."""

    preset: str
    trained: str
    provenance: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]]
    datasets: dict[str, str]
    best: list[Best]
    findings: list[Finding]
    tables: list[PageTable]
    ranked: list[Ranked]
    reading: list[str]
    plots: dict[str, list[Chart]]
    cards: list[Card]
    published: list[PublishedCard]


@dataclass(frozen=True)
class _Files:
    """The rows of the files of a results folder; what is not there is empty."""

    scores: list[Score]
    published: list[Score]
    costs: dict[str, list[dict[str, str]]]
    audit: dict[str, list[dict[str, str]]]
    frontier: list[frontier.Result]
    spending: list[dict[str, str]]
    provenance: dict[str, Any]


def gather(
    root: Path, published: Path, layout: Layout, folders: Sequence[RunFolder], leave_out: Collection[str],
    origins: Mapping[str, Any],
) -> Contents:  # fmt: skip
    """Returns the contents of the report of `root`.

    Args:
        root: results/<preset> or results/reference/<name>, with scores.csv; all else there may be missing.
        published: results/published, with scores.csv and frontier.csv.
        folders: the runs that have cards of their own besides those in scores.csv.
        leave_out: tables not shown.
        origins: run -> data set -> setting -> where it came from.

    Raises:
        UserError: no scores.csv, or a file that is there is damaged.
    """
    files = _read(root, published, layout)
    numbers = Numbers.gather(files.scores, files.published)
    trained = cards.trained_runs(folders)
    named = cards.ids(sorted(cards.keys(numbers, trained), key=lambda key: layout.dataset_place(key[0])))
    costs = next(iter(files.costs.values()), [])
    others = published_cards.build(files.published, costs, files.frontier, layout)
    links = Links(named, {name: card.id for name, card in others.items()})
    settings = files.provenance.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    built = _tables(files, layout, numbers, links, settings)
    tables = [table for table in sorted(built, key=lambda one: one.name) if table.name not in leave_out]
    measured = {name: layout.dataset_label(name) for name in layout.datasets if name in numbers.datasets()}
    measured |= {name: layout.dataset_label(name) for name in sorted(numbers.datasets())}
    delta = price.delta_beside(root / "scores.csv")
    return Contents(
        preset=root.resolve().name, trained=_trained(files.scores, trained),
        provenance=files.provenance, runs=list(trained.values()),
        datasets=measured | dict(page_tables.dataset_keys(tables)),
        best=headline.best(files.scores, layout, links),
        findings=headline.findings(costs, next(iter(files.audit.values()), []), layout, links),
        tables=tables, ranked=leaders.build(files.scores, layout, links),
        reading=leaders.reading(files.scores, delta),
        plots={name: charts.charts(name, numbers, layout, links) for name in measured},
        cards=cards.build(named, numbers, trained, layout, settings, origins, files.spending),
        published=list(others.values()),
    )  # fmt: skip


def _trained(scores: Iterable[Score], trained: Iterable[RunFolder]) -> str:
    """Returns how many runs there are, a run being one training with one seed, and how many seeds settings have."""
    seeds: dict[tuple[str, str, float], set[int | None]] = {}
    for one in scores:
        if one.source == "measured" and one.method != REAL:
            seeds.setdefault((one.dataset, one.method, one.epsilon), set()).add(one.seed)
    for folder in trained:
        seeds.setdefault((folder.dataset, folder.run, folder.epsilon), set()).add(folder.seed)
    counts = sorted(map(len, seeds.values())) or [0]
    text = f"{sum(counts)} {'run' if sum(counts) == 1 else 'runs'}"
    if counts[-1] < 2:
        return text
    each = f"{counts[0]} to {counts[-1]}" if counts[0] < counts[-1] else f"{counts[-1]}"
    return f"{text}: {len(counts)} {'setting' if len(counts) == 1 else 'settings'} with {each} seeds each,"


def _read(root: Path, published: Path, layout: Layout) -> _Files:
    if not (root / "scores.csv").is_file():
        raise UserError(f"no scores.csv under {root}; make it with `python -m evaluation.report.collect`")
    paper = read_scores(published / "scores.csv")
    record = root / "provenance.json"
    spending = root / "spending.csv"
    return _Files(
        scores=read_scores(root / "scores.csv"),
        published=paper,
        costs={n: _costs(root, n, spec) for n, spec in layout.published_costs.items()},
        audit={n: _audit(root, n, spec, layout) for n, spec in layout.audit.items()},
        frontier=frontier.read_frontier(published / "frontier.csv") if layout.frontier else [],
        spending=read_csv(spending, SPENDING, "python -m methods spending") if spending.is_file() else [],
        provenance=read_object(record, "provenance.json") if record.is_file() else {},
    )


def _costs(root: Path, name: str, spec: CsvTableSpec) -> list[dict[str, str]]:
    # The table's own csv is a copy of published_costs.csv, which a committed folder lacks.
    places = (root / "published_costs.csv", root / f"tables/{name}.csv")
    path = next((path for path in places if path.is_file()), None)
    return read_rows(path, spec, published_costs.LEAD, published_costs.MAKER) if path else []


def _audit(root: Path, name: str, spec: CsvTableSpec, layout: Layout) -> list[dict[str, str]]:
    path, table = root / "audit.csv", root / f"tables/{name}.csv"
    if path.is_file():
        return audit.read_audit(path, spec)
    # A committed folder has the table alone: means by label.
    return audit.from_table(table, spec, layout) if table.is_file() else []


def _tables(
    files: _Files, layout: Layout, numbers: Numbers, links: Links, settings: Mapping[str, Any]
) -> list[PageTable]:
    labels = {name: layout.dataset_label(name) for name in (*layout.datasets, *numbers.datasets())}
    proofs = headline.proofs(next(iter(files.costs.values()), []))
    count = settings.get("protocol", {}).get("num_samples") if isinstance(settings.get("protocol"), dict) else None
    built = []
    for name, spec in layout.tables.items():
        table = scores_tables.build_table(spec, layout, numbers, count)
        if spec.per_dataset:
            built.append(page_tables.long(name, table, numbers, links, labels))
        else:
            built.append(page_tables.wide(name, table, numbers, links, proofs))
    for name, rows in files.costs.items():
        spec, ordered = layout.published_costs[name], published_costs.ordered(layout, rows)
        judged = [proofs.get((row["dataset"], row["method"], float(row["epsilon"])), "") for row in ordered]
        cards_of = [links.published_setting(row["dataset"], row["method"], float(row["epsilon"])) for row in ordered]
        sources = [Source(r["dataset"], *pair) for r, *pair in zip(ordered, cards_of, judged, strict=True)]
        if rows:
            grid = published_costs.build_grid(spec, layout, rows)
            built.append(page_tables.of_grid(name, grid, sources, labels))
    for name, rows in files.audit.items():
        if rows:
            table = audit.build_table(rows, layout.audit[name], layout)
            built.append(page_tables.long(name, table, numbers, links, labels))
    for name, spec in layout.frontier.items():
        ours = frontier.best_sound(files.scores, spec, layout, _delta(settings), {})
        results = frontier.ordered([*files.frontier, *ours], spec)
        grid = frontier.build_grid(spec, layout, results)
        built.append(page_tables.of_grid(name, grid, [_source(one, links) for one in results], labels))
    for name, spec in layout.claims.items():
        lines = verdicts.judge(spec, files.scores, files.published)
        grid = verdicts.build_grid(spec, layout, lines)
        sources = [Source(one.dataset, _card(one, numbers, links)) for one in lines]
        if lines:
            built.append(page_tables.of_grid(name, grid, sources, labels, lead=verdicts.HEADS[0]))
    return built


def _card(line: verdicts.Comparison, numbers: Numbers, links: Links) -> str:
    """Returns the id of the card of the row that is said to be better, or of the other where that was not run."""
    rows = [(run, line.epsilon, count) for run in (line.better, line.than) for count in (*ACCOUNTINGS, CLAIMED)]
    run = [row for row in rows if line.dataset in numbers.measured_runs.get(row, ())]
    return next(filter(None, (links.of(line.dataset, *row) for row in run)), "")


def _delta(settings: Mapping[str, Any]) -> str:
    delta = settings.get("delta")
    return f"{delta:g}" if isinstance(delta, int | float) else ""


def _source(one: frontier.Result, links: Links) -> Source:
    if one.run:
        return Source(one.dataset, links.of(one.dataset, one.run, one.epsilon, one.accounting))
    return Source(one.dataset, links.published.get(one.method, ""), "published elsewhere")
