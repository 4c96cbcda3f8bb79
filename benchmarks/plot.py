"""speed.png: the rows of speed.csv as bars of speedups, of gains and of rates, and lines of scaling."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.table import Row
from workflow.common.files import atomic

STYLE = {"font.family": "DejaVu Sans", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
# Okabe and Ito's palette, told apart by readers of every colour vision and in grey.
BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#777777"
WIDTH, HEIGHT, COLUMNS = 5.0, 3.2, 2  # inches of a panel, panels in a row
TALL = 4.6  # inches of the first row, whose bars are many
AXES = {
    "num_shards": "shards", "steps": "steps", "batch_size": "images a step", "critic_width": "critic width (channels)",
    "image_size": "image size (pixels)",
}  # fmt: skip
QUANTITIES = {
    "warm_start_seconds": "seconds of the warm start", "total_seconds": "seconds of all steps",
    "step_seconds": "seconds a step", "peak_memory": "peak memory (MiB)",
}  # fmt: skip
# Memory is shown where it tells something: that it does not grow with steps.
MEMORY_OF = "steps"

Panel = Callable[[Axes], None]


def write(rows: Iterable[Row], path: Path) -> None:
    """Writes the figure as a png of 150 dpi."""
    with matplotlib.rc_context(STYLE), atomic(path) as temporary:
        draw(list(rows)).savefig(temporary, dpi=150, metadata={"Software": None})


def draw(rows: list[Row]) -> Figure:
    """Returns a figure with a panel for each thing that the rows hold; rows may be of some parts alone."""
    drawn = panels(rows)
    lines = -(-len(drawn) // COLUMNS)
    heights = [TALL, *[HEIGHT] * (lines - 1)]
    figure = Figure(figsize=(WIDTH * COLUMNS, sum(heights)), layout="constrained")
    places = list(figure.subplots(lines, COLUMNS, squeeze=False, height_ratios=heights).flat)
    for place, panel in zip(places, drawn, strict=False):
        panel(place)
    for place in places[len(drawn) :]:
        place.remove()
    return figure


def panels(rows: list[Row]) -> list[Panel]:
    """Returns what draws each panel."""
    speedups = [row for row in rows if row.quantity == "speedup"]
    gains = [row for row in rows if row.quantity == "gain"]
    rates = [row for row in rows if row.quantity == "rate"]
    bars = [
        partial(_bars, chosen, title, label)
        for chosen, title, label in (
            (speedups, "Speed against the textbook loop", "times as fast (line: lowest to highest pair)"),
            (gains, "Speed against the same without", "times as fast (line: all pairs)"),
            (rates, "Rate against the peaks (grey)", "GFLOP/s executed"),
        )
        if chosen
    ]
    lines: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.part == "scaling" and (row.quantity != "peak_memory" or row.case == MEMORY_OF):
            lines.setdefault((row.case, row.quantity), []).append(row)
    return [*bars, *(partial(_line, chosen) for chosen in lines.values())]


def _bars(rows: list[Row], title: str, label: str, axes: Axes) -> None:
    names = [row.case.replace("_", " ") for row in rows]
    values = [row.value for row in rows]
    ends = [[row.value - row.low for row in rows], [row.high - row.value for row in rows]]
    axes.barh(names, values, color=[GREY if _is_peak(row) else BLUE for row in rows], height=0.6)
    # A pair's ratio may lie on one side of the ratio of medians alone, when there are few pairs.
    axes.errorbar(values, names, xerr=np.maximum(ends, 0), fmt="none", ecolor="black", capsize=3)
    for name, row in zip(names, rows, strict=True):
        text = f"{row.value:,.0f}" if row.value >= 100 else f"{row.value:.3g}"
        end = max(row.value, row.high), name
        axes.annotate(text, end, xytext=(5, 0), textcoords="offset points", va="center")
    if rows[0].unit == "x":
        axes.axvline(1, color="black", linestyle=":", linewidth=1)
    axes.margins(x=0.18)
    axes.set_xlim(left=0)
    axes.invert_yaxis()
    axes.set_title(title)
    axes.set_xlabel(label)


def _is_peak(row: Row) -> bool:
    return row.quantity == "rate" and row.case.startswith(("convolution", "matmul"))


def _line(rows: list[Row], axes: Axes) -> None:
    at, values = [row.at for row in rows], [row.value for row in rows]
    first = rows[0]
    axes.plot(at, values, color=VERMILION if first.quantity == "peak_memory" else BLUE, marker="o")
    if first.low is not None:
        axes.fill_between(at, [row.low for row in rows], [row.high for row in rows], color=BLUE, alpha=0.2, lw=0)
    axes.set_xticks(at)
    axes.set_xlim(0, 1.1 * max(at))
    axes.set_ylim(0, 1.15 * max(values if first.high is None else [row.high for row in rows]))
    axes.set_xlabel(AXES[first.case])
    axes.set_ylabel(QUANTITIES[first.quantity])
