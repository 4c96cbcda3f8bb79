"""A plot of scores.csv by run: a line for each run and budget, the best first, a column for each metric."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from evaluation.intervals import interval
from evaluation.report.layout import Layout, PlotSpec
from evaluation.report.plot_parts import MARKS, SMALL, WORDS, axis_name, of_one_seed, with_legend
from evaluation.report.saved_figures import FAINT, message, text_width
from evaluation.standings import NO_SOUND_COUNT, REFERENCE, UNCHECKED, Contender
from workflow.common.contracts import format_epsilon
from workflow.common.metrics import METRICS

PANEL, LINE, AROUND = 2.3, 0.17, 0.7  # inches: a panel's width, a run's height, and what a panel needs besides
# Hollow where the epsilon is not known to be kept; references are no contenders, and have no fill either.
_ALL_MARKS = {
    **{bar: (mark, colour, colour) for bar, (mark, colour) in MARKS.items()},
    NO_SOUND_COUNT: ("X", FAINT, "white"), UNCHECKED: ("D", FAINT, "white"), REFERENCE: ("s", FAINT, "white"),
}  # fmt: skip
_ALL_WORDS = {**WORDS, REFERENCE: "without privacy"}


def by_run(spec: PlotSpec, layout: Layout, found: dict[str, list[Contender]]) -> Figure:
    """Returns metrics by run: a panel for each data set with a private run and each metric, in it a line for each run.

    Runs stand by their mean of the first metric that was measured, the best at the top and references last. One that
    lacks a metric has an empty line there; without any measured run the figure is a sentence.
    """
    metrics = [m for m in spec.metrics if any(one.values.get(m) for ones in found.values() for one in ones)]
    shown = {name: _best_first(ones, metrics) for name, ones in found.items()}
    shown = {name: ones for name, ones in shown.items() if any(one.bar != REFERENCE for one in ones)}
    if not shown:
        return message("No run has a score: nothing to draw.")
    labels = {name: _labels(layout, ones) for name, ones in shown.items()}
    room = max(text_width(label, SMALL) for each in labels.values() for label in each) + 0.3
    heights = [LINE * len(ones) + AROUND for ones in shown.values()]
    figure = Figure(figsize=(PANEL * len(metrics) + room, sum(heights)), layout="constrained")
    grid = figure.subplots(len(shown), len(metrics), squeeze=False, sharey="row", height_ratios=heights)
    for row, (name, ones) in zip(grid, shown.items(), strict=True):
        for axes, metric in zip(row, metrics, strict=True):
            _panel(axes, ones, metric)
        row[0].set_yticks(range(len(ones)), labels[name], parse_math=False)
        row[0].set_ylim(len(ones) - 0.5, -0.5)
        row[0].set_title(layout.dataset_label(name), loc="left", parse_math=False)
    bars = {one.bar for ones in shown.values() for one in ones}
    handles = [Line2D([], [], ls="", marker=mark, mec=colour, mfc=fill, label=_ALL_WORDS[bar])
               for bar, (mark, colour, fill) in _ALL_MARKS.items() if bar in bars]  # fmt: skip
    return with_legend(figure, handles + of_one_seed((one for ones in shown.values() for one in ones), metrics))


def _best_first(ones: Sequence[Contender], metrics: Sequence[str]) -> list[Contender]:
    """Returns those with a score, by the first metric, references last; one without that metric after all others."""

    def place(one: Contender) -> tuple[bool, float]:
        mean = one.mean(metrics[0])
        sign = -1 if METRICS[metrics[0]].higher_is_better else 1
        return one.bar == REFERENCE, math.inf if mean is None else sign * mean

    return sorted((one for one in ones if any(one.values.get(metric) for metric in metrics)), key=place)


def _labels(layout: Layout, ones: Sequence[Contender]) -> list[str]:
    """Returns each run's label, with its budget where the private ones or its own lines have several."""
    several = len({one.epsilon for one in ones if one.bar != REFERENCE}) > 1
    lines = Counter(one.method for one in ones)
    told = [lines[one.method] > 1 or (several and one.bar != REFERENCE) for one in ones]
    return [
        layout.run_label(one.method) + (f", ε {format_epsilon(one.epsilon)}" if budget else "")
        for one, budget in zip(ones, told, strict=True)
    ]


def _panel(axes: Axes, ones: Sequence[Contender], metric: str) -> None:
    for y, one in enumerate(ones):
        if values := one.values.get(metric):
            _line(axes, values, y, *_ALL_MARKS[one.bar])
    axes.set_xlabel(axis_name(metric))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2, lw=0.5)
    axes.tick_params(labelsize=SMALL)
    # An interval may reach beyond what the metric can be; the axis does not, but for half a mark.
    (left, right), known = axes.get_xlim(), METRICS[metric]
    half = (right - left) / 50
    axes.set_xlim(max(left, known.low - half), min(right, known.high + half))


def _line(axes: Axes, values: Sequence[float], y: int, mark: str, colour: str, fill: str) -> None:
    """Draws a mean with its interval, and the seeds behind it where there are several."""
    if len(values) > 1:
        axes.plot(values, [y] * len(values), mark, ms=2, color=colour, alpha=0.5, mew=0)
        axes.plot(interval(values), [y, y], "-", color=colour, lw=0.8, alpha=0.7)
    axes.plot(statistics.fmean(values), y, mark, ms=4.5, mec=colour, mfc=fill, mew=0.9)
