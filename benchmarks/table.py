"""The rows of speed.csv: one measured quantity each, with its spread."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from statistics import median

from benchmarks.clock import Comparison


@dataclass(frozen=True)
class Row:
    """A measurement.

    Attributes:
        part: throughput, choices, roofline or scaling.
        case: what was measured, such as resnet64; in scaling the setting that grows.
        at: that setting's value; None elsewhere.
        quantity: such as ours, textbook (seconds), speedup (their ratio).
        value: the median; `low` and `high` are the smallest and largest of the repeats, None for a single figure.
        unit: s, x (a ratio), GFLOP, GFLOP/s, share or MiB.
    """

    part: str
    case: str
    at: int | None
    quantity: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None


def compared(part: str, case: str, comparison: Comparison, names: tuple[str, str, str]) -> list[Row]:
    """Returns the seconds of both contestants, and how many times faster the first is with the spread over pairs.

    `names` are the quantities: the first's seconds, the other's, their ratio.
    """
    sides = [
        Row(part, case, None, name, median(times), "s", min(times), max(times))
        for name, times in zip(names, (comparison.ours, comparison.other), strict=False)
    ]
    return [*sides, Row(part, case, None, names[2], comparison.speedup, "x", *comparison.spread)]


COLUMNS = tuple(field.name for field in fields(Row))


def to_csv(rows: Iterable[Row]) -> str:
    """Returns the rows as CSV with a header: numbers to four digits, nothing for None."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        values = asdict(row).values()
        writer.writerow(f"{value:.4g}" if isinstance(value, float) else value for value in values)
    return text.getvalue()
