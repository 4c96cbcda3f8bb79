"""The cards of report.html for numbers of others: what is published of a method, and from where."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.report.frontier import LABELS, Result
from evaluation.report.layout import Layout
from evaluation.scores import Score, format_value
from workflow.common.contracts import format_epsilon
from workflow.common.metrics import METRICS


@dataclass
class PublishedCard:
    """What is published of a method: rows of data set, epsilon, what, value and source."""

    id: str
    name: str
    rows: list[list[str]] = field(default_factory=list)


def build(
    published: Iterable[Score], costs: Sequence[Mapping[str, str]], frontier: Iterable[Result], layout: Layout
) -> dict[str, PublishedCard]:
    """Returns the cards by the name of the run that a method's numbers stand beside."""
    beside = {row.published: row.run for table in layout.tables.values() for row in table.rows}
    cards: dict[str, PublishedCard] = {}

    def card(name: str) -> PublishedCard:
        text = "published-" + re.sub(r"[^a-z0-9_.]+", "-", name.lower())
        same = sum(other.id == text or other.id.startswith(f"{text}--") for key, other in cards.items() if key != name)
        return cards.setdefault(name, PublishedCard(f"{text}--{same + 1}" if same else text, layout.run_label(name)))

    for s in published:
        if s.source == "published":
            value = [METRICS[s.metric].label, format_value(s.value), "the paper's tables"]
            card(beside.get(s.method, s.method)).rows.append(
                [layout.dataset_label(s.dataset), format_epsilon(s.epsilon), *value]
            )
    for row in costs:
        where = [layout.dataset_label(row["dataset"]), row["epsilon"], "setting"]
        card(row["method"]).rows.append([*where, row.get("setting", ""), row.get("source", "")])
    for one in frontier:
        for metric, values in one.values.items():
            where = [layout.dataset_label(one.dataset), format_epsilon(one.epsilon), LABELS[metric]]
            card(one.method).rows.append([*where, format_value(values[0]), one.source])
    return cards
