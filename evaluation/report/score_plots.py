"""Plots of scores.csv for a paper, as png and pdf: metrics by run, against the budget, and against the sound epsilon.

Seeds are small marks, their means large ones with a t interval of 95 %. A run over its budget by the sound count has a
mark and a colour of its own, and the legend says so; a run without a sound count is named and not placed, nor is one
whose epsilon is a claim of others.
"""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from evaluation.intervals import interval
from evaluation.report.layout import Layout, PlotSpec, add_layout, layout_of
from evaluation.report.plot_parts import (
    MARKS,
    WORDS,
    axis_name,
    contenders,
    in_order,
    of_one_seed,
    plain_label,
    with_legend,
)
from evaluation.report.row_plots import by_run
from evaluation.report.saved_figures import FAINT, STYLE, message, save
from evaluation.scores import Score, measured
from evaluation.standings import NO_SOUND_COUNT, OVER_BUDGET, REFERENCE, UNCHECKED, Contender
from workflow.common.contracts import format_epsilon
from workflow.common.errors import command, unknown
from workflow.common.options import Parser

WIDTH, HEIGHT, NARROWEST = 3.4, 2.6, 5.2  # inches: a panel, as wide as a column of a paper, and a whole figure
# Okabe and Ito's colours, which all common colour vision tells apart; dashes show what lies below a line.
LINES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
DASHES = ("-", "--", ":", "-.")
# Points: between numbers, how near in x they are in each other's way, and about the height of a plot.
_STEP, _NEAR, _TALL = 8.5, 16.0, 72 * (HEIGHT - 0.9)
# Above grid and levels, below what is measured.
_UNDER_MARKS = 1.9


def sweep(spec: PlotSpec, layout: Layout, found: dict[str, list[Contender]]) -> Figure:
    """Returns metrics against the budget: a row for each metric, a column for each data set, a line for each run.

    Only runs with several budgets have a line; without any the figure is a sentence.
    """
    lines = {name: _lines(ones) for name, ones in found.items()}
    lines = {name: each for name, each in lines.items() if each}
    swept = [one for each in lines.values() for line in each.values() for one in line]
    metrics = [metric for metric in spec.metrics if any(one.values.get(metric) for one in swept)]
    if not metrics:
        budgets = sorted({one.epsilon for ones in found.values() for one in ones if math.isfinite(one.epsilon)})
        ran = ", ".join(f"ε = {format_epsilon(epsilon)}" for epsilon in budgets) or "no budget"
        return message(f"No run has several budgets ({ran}): nothing to draw over ε.")
    names = in_order(layout, {run for each in lines.values() for run, _ in each})
    style = {run: (LINES[n % len(LINES)], DASHES[n % len(DASHES)]) for n, run in enumerate(names)}
    figure, grid = _grid(len(metrics), len(lines))
    for row, metric in zip(grid, metrics, strict=True):
        for axes, (dataset, each) in zip(row, lines.items(), strict=True):
            for (run, _), line in sorted(each.items(), key=lambda item: names.index(item[0][0])):
                _sweep_line(axes, [one for one in line if one.values.get(metric)], metric, *style[run])
            _budget_axis(axes, {one.epsilon for line in each.values() for one in line})
            axes.set_title(layout.dataset_label(dataset), loc="left", parse_math=False)
            axes.set_xlabel("ε, the budget")
            axes.set_ylabel(axis_name(metric))
    handles = [Line2D([], [], color=style[run][0], ls=style[run][1], label=plain_label(layout, run)) for run in names]
    bars = {one.bar for one in swept}
    handles += [Line2D([], [], ls="", marker=_sweep_mark(bar)[0], mfc=_sweep_mark(bar)[1] or "0.3", color="0.3",
                       label=WORDS[bar]) for bar in WORDS if bar in bars]  # fmt: skip
    return with_legend(figure, handles + of_one_seed(swept, metrics))


def against_spent(spec: PlotSpec, layout: Layout, found: dict[str, list[Contender]]) -> Figure:
    """Returns metrics against the sound epsilon: a column for each data set, a numbered mark for a run and budget."""
    metrics = [m for m in spec.metrics if any(one.values.get(m) for ones in found.values() for one in ones)]
    private = [one for ones in found.values() for one in ones if one.bar != REFERENCE]
    placed = [one for one in private if not _why_not(one) and any(one.values.get(m) for m in metrics)]
    if not placed:
        return message("No private run with a sound ε was measured: nothing to draw.")
    names = in_order(layout, {one.method for one in placed})
    figure, grid = _grid(len(metrics), len(found))
    for row, metric in zip(grid, metrics, strict=True):
        for axes, (dataset, ones) in zip(row, found.items(), strict=True):
            _cloud(axes, ones, metric, layout, names)
            axes.set_title(layout.dataset_label(dataset), loc="left", pad=11, parse_math=False)
    bars = [bar for bar in MARKS if any(one.bar == bar for one in placed)]
    handles = [Line2D([], [], ls="", marker=MARKS[bar][0], color=MARKS[bar][1], label=WORDS[bar]) for bar in bars]
    handles += of_one_seed(placed, metrics)
    handles += [Line2D([], [], ls="", label=f"{n}  {plain_label(layout, run)}") for n, run in enumerate(names, 1)]
    for why in sorted(set(map(_why_not, private)) - {""}):
        lost = in_order(layout, {one.method for one in private if _why_not(one) == why})
        gone = ", ".join(plain_label(layout, run) for run in lost)
        handles.append(Line2D([], [], ls="", label=f"not placed, {why}: {gone}"))
    return with_legend(figure, handles)


def _why_not(one: Contender) -> str:
    """Returns in words why a private run has no place over its sound epsilon, on a logarithmic axis."""
    if one.bar not in MARKS:
        return WORDS[one.bar]
    spent = one.values["eps_sound"]
    return WORDS[NO_SOUND_COUNT] if math.inf in spent else "sound ε 0" if 0.0 in spent else ""


def _lines(ones: Sequence[Contender]) -> dict[tuple[str, str], list[Contender]]:
    """Returns the runs that have several budgets, each in the order of these."""
    lines: dict[tuple[str, str], list[Contender]] = {}
    for one in sorted((one for one in ones if math.isfinite(one.epsilon)), key=lambda one: one.epsilon):
        lines.setdefault((one.method, one.accounting), []).append(one)
    return {key: line for key, line in lines.items() if len(line) > 1}


def _grid(rows: int, columns: int) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=(max(WIDTH * columns, NARROWEST), HEIGHT * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2, lw=0.5)
        axes.tick_params(labelsize=7)
    return figure, [list(row) for row in grid]


def _sweep_mark(bar: str) -> tuple[str, str]:
    """Returns a mark and its filling, "" for the line's colour: what is not within its budget is hollow."""
    return {"": ("o", ""), OVER_BUDGET: ("^", "white"), UNCHECKED: ("D", "white")}.get(bar, ("X", "white"))


def _sweep_line(axes: Axes, line: Sequence[Contender], metric: str, colour: str, dash: str) -> None:
    axes.plot([one.epsilon for one in line], [one.mean(metric) for one in line], dash, color=colour, lw=1.1)
    for one in line:
        mark, fill = _sweep_mark(one.bar)
        _mean(axes, (one.epsilon,), one.values[metric], mark, colour, fill or colour)


def _mean(axes: Axes, x: Sequence[float], y: Sequence[float], mark: str, colour: str, fill: str) -> None:
    """Draws a mean with its interval, and the seeds behind it where there are several."""
    if len(y) > 1:
        axes.plot(list(x) if len(x) == len(y) else [x[0]] * len(y), y, mark, ms=2, color=colour, alpha=0.5, mew=0)
        low, high = interval(y)
        axes.plot([statistics.fmean(x)] * 2, [low, high], "-", color=colour, lw=0.8, alpha=0.7)
    axes.plot(statistics.fmean(x), statistics.fmean(y), mark, ms=5, mec=colour, mfc=fill, mew=0.9)


def _budget_axis(axes: Axes, budgets: Iterable[float]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted(budgets)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_epsilon(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _cloud(axes: Axes, ones: Sequence[Contender], metric: str, layout: Layout, names: Sequence[str]) -> None:
    marks = []
    for one in ones:
        y = one.values.get(metric)
        if not y or one.bar == REFERENCE or _why_not(one):
            continue
        x, (mark, colour) = one.values["eps_sound"], MARKS[one.bar]
        _mean(axes, x, y, mark, colour, colour)
        marks.append((statistics.fmean(x), statistics.fmean(y), str(names.index(one.method) + 1)))
    axes.set_xscale("log")
    spans = [x for x, _, _ in marks] + [one.epsilon for one in ones if math.isfinite(one.epsilon)]
    if spans:
        axes.set_xlim(min(spans) / 1.6, max(spans) * 2.2)
        wide = max(spans) / min(spans) > 50
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    for epsilon in sorted({one.epsilon for one in ones if math.isfinite(one.epsilon)}):
        axes.axvline(epsilon, color="0.5", lw=0.7, ls=":")
        axes.annotate(f"budget {format_epsilon(epsilon)}", (epsilon, 1), (0, 2), xycoords=("data", "axes fraction"),
                      textcoords="offset points", size=5.5, color=FAINT, ha="center", va="bottom")  # fmt: skip
    axes.set_xlabel("ε spent, by the sound count")
    axes.set_ylabel(axis_name(metric))
    levels = [(plain_label(layout, one.method), one.mean(metric)) for one in ones if one.bar == REFERENCE]
    _name(axes, [(name, level) for name, level in levels if level is not None])
    # Last, when the axis has its ends.
    _number(axes, marks)


def _points(axes: Axes, y: float) -> float:
    """Returns about how high a value stands above the axis, in points."""
    low, high = axes.get_ylim()
    return _TALL * (y - low) / (high - low)


def _name(axes: Axes, levels: Sequence[tuple[str, float]]) -> None:
    """Draws a dashed line at each level and writes its name right of the plot, none on another."""
    levels = sorted(levels, key=lambda level: level[1])
    for _, y in levels:
        axes.axhline(y, color="0.5", lw=0.7, ls="--", zorder=0)
    # A line that is already in view widens no axis, and may lie on its very edge.
    axes.autoscale_view(scalex=False)
    wanted = [_points(axes, y) for _, y in levels]
    for (name, y), want, at in zip(levels, wanted, spread(wanted, 2 * _STEP, _TALL), strict=True):
        axes.annotate(textwrap.fill(name, 16), (1, y), (3, at - want), xycoords=("axes fraction", "data"),
                      textcoords="offset points", size=5.5, color=FAINT, va="center")  # fmt: skip


def _number(axes: Axes, marks: Sequence[tuple[float, float, str]]) -> None:
    """Writes each mark's number right of it, moved where it would lie on another, with a hair line to its mark."""
    (left, right), width = axes.get_xlim(), 72 * (WIDTH - 0.7)
    places = [(width * math.log(x / left) / math.log(right / left), _points(axes, y)) for x, y, _ in marks]
    line = {"arrowstyle": "-", "lw": 0.4, "color": "0.6", "shrinkA": 0, "shrinkB": 2}
    # A level's dashed line ends before a number instead of crossing it out; no mark is hidden by it.
    behind = {"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none"}
    for column in _columns([x for x, _ in places]):
        column = sorted(column, key=lambda place: places[place][1])
        for place, at in zip(column, spread([places[place][1] for place in column], _STEP, _TALL), strict=True):
            x, y, text = marks[place]
            axes.annotate(text, (x, y), (10, at - places[place][1]), textcoords="offset points", size=6, va="center",
                          arrowprops=line, bbox=behind, zorder=_UNDER_MARKS)  # fmt: skip


def _columns(xs: Sequence[float]) -> list[list[int]]:
    """Returns the places of numbers that are near each other, one after the other from left to right."""
    columns: list[list[int]] = []
    for place in sorted(range(len(xs)), key=lambda place: xs[place]):
        if columns and xs[place] - xs[columns[-1][-1]] < _NEAR:
            columns[-1].append(place)
        else:
            columns.append([place])
    return columns


def spread(wanted: Sequence[float], step: float, room: float) -> list[float]:
    """Returns where things stand that want to be at these rising heights: `step` apart, as near as they can be.

    Between half a step from 0 and from `room`, as far as it takes them.
    """
    blocks: list[tuple[float, int]] = []  # the middle of some that touch, and how many
    for height in wanted:
        middle, count = height, 1
        while blocks and middle - step * (count - 1) / 2 < blocks[-1][0] + step * (blocks[-1][1] - 1) / 2 + step:
            before, many = blocks.pop()
            middle, count = (middle * count + before * many) / (count + many), count + many
        reach = step * count / 2
        blocks.append((max(reach, min(room - reach, middle)), count))
    return [middle + step * (place - (count - 1) / 2) for middle, count in blocks for place in range(count)]


def write_plots(layout: Layout, scores: Sequence[Score], out: Path, datasets: Sequence[str] = ()) -> list[Path]:
    """Writes each plot of the layout as png (200 dpi) and pdf under `out`; returns the paths."""
    found, written = contenders(scores, layout, datasets), []
    kinds = {"epsilon": sweep, "eps_sound": against_spent, "run": by_run}
    for name, spec in layout.plots.items():
        with matplotlib.rc_context(STYLE):
            written += save(kinds[spec.x](spec, layout, found), out / name)
    return written


@command
def main(argv: list[str] | None = None) -> None:
    """Runs `python -m evaluation.report.score_plots`."""
    parser = Parser(prog="python -m evaluation.report.score_plots", description=__doc__)
    parser.add_argument("--scores", required=True, help="scores.csv of a run")
    add_layout(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for the plots' png and pdf")
    options = parser.parse_args(argv)
    layout, scores = layout_of(options), measured(options.scores, "plot")
    known = {score.dataset for score in scores}
    if options.datasets and not known & set(options.datasets):
        raise unknown("data set", options.datasets[0], known, f"those with scores in {options.scores}")
    write_plots(layout, scores, options.out, options.datasets or ())


if __name__ == "__main__":
    raise SystemExit(main())
