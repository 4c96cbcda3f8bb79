"""The ranking of report.html: which method, by each metric, and what comparing them spent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation import price, rank
from evaluation.report.layout import Layout
from evaluation.report.page_tables import Cell, Head, Links, PageRow, Part, bare
from evaluation.scores import Score
from evaluation.standings import Group, Standing, groups, standings
from workflow.common.contracts import format_epsilon
from workflow.common.metrics import METRICS


@dataclass(frozen=True)
class Ranked:
    """One data set and budget: its table, (metric, who is best) pairs, and notes."""

    title: str
    part: Part
    findings: list[tuple[str, str]]
    notes: list[str]


def build(scores: Sequence[Score], layout: Layout, links: Links) -> list[Ranked]:
    """Returns the ranking of each data set and budget by the metrics that `evaluation.rank` takes."""
    metrics = [name for name in rank.DEFAULT_METRICS if any(score.metric == name for score in scores)]
    return [_ranked(group, metrics, layout, links) for group in layout.ordered(groups(scores))] if metrics else []


def reading(scores: Sequence[Score], delta: float | None) -> list[str]:
    """Returns paragraphs on how to read the ranking and on what comparing spent; `###` begins a heading."""
    datasets = sorted({score.dataset for score in scores})
    return [*rank.HOW_TO_READ, *price.paragraphs({name: price.spent(scores, name) for name in datasets}, delta)]


def _ranked(group: Group, metrics: Sequence[str], layout: Layout, links: Links) -> Ranked:
    tables = {metric: table for metric in metrics if (table := standings(group, metric))}
    label = layout.dataset_label(group.dataset)
    budget = "references alone" if math.isinf(group.epsilon) else f"ε {format_epsilon(group.epsilon)}"
    heads = [Head(("Method",)), Head(("Accounting",)), *(Head((rank.metric_head(m),), True) for m in tables)]
    rows = []
    ordered = (standing.contender for table in tables.values() for standing in table)
    for one in {id(one): one for one in ordered}.values():
        found = (next((s for s in table if s.contender is one), None) for table in tables.values())
        cells = [_cell(standing, metric) for standing, metric in zip(found, tables, strict=True)]
        link = links.of(group.dataset, one.method, one.epsilon, one.accounting)
        cells.insert(0, Cell(one.accounting, one.accounting))
        rows.append(PageRow(bare(layout.run_label(one.method)), link, one.bar, cells))
    rows.sort(key=lambda row: row.status == "reference")
    private = math.isfinite(group.epsilon)
    findings = [(rank.metric_head(m), rank.finding(table)) for m, table in tables.items()] if private else []
    notes = [note for note in (rank.one_seed(tables), rank.barred(group)) if note]
    return Ranked(f"{label}, {budget}", Part(group.dataset, label, heads, rows), findings, notes)


def _cell(standing: Standing | None, metric: str) -> Cell:
    if standing is None:
        return Cell(rank.MISSING)
    mean = standing.contender.mean(metric)
    verdict = "better" if standing.place == 1 and METRICS[metric].arrow else ""
    return Cell(rank.cell_text(standing, metric), f"{mean:.9g}", verdict)
