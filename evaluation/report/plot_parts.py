"""What the plots of scores.csv share: which runs they show in which order, their marks and words, and the legend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from evaluation.report.layout import Layout
from evaluation.report.saved_figures import INK, WARNING, text_width
from evaluation.scores import Score, check_presets
from evaluation.standings import NO_SOUND_COUNT, OVER_BUDGET, REFERENCE, UNCHECKED, Contender, groups
from workflow.common.metrics import METRICS

MARKS = {"": ("o", INK), OVER_BUDGET: ("^", WARNING)}
WORDS = {
    "": "sound ε within the budget", OVER_BUDGET: "sound ε over the budget", NO_SOUND_COUNT: "no sound ε known",
    UNCHECKED: "ε claimed, not checked",
}  # fmt: skip
SMALL = 6.5  # points


def contenders(scores: Iterable[Score], layout: Layout, datasets: Sequence[str] = ()) -> dict[str, list[Contender]]:
    """Returns data set -> what was measured on it, each run and budget once, references last; `datasets` alone, if any.

    Data sets stand as in `datasets`, or as the layout has them, others after those. Raises UserError where a run was
    measured under two presets.
    """
    scores = list(scores)
    check_presets(scores)
    found: dict[str, dict[tuple, Contender]] = {}
    for group in groups(scores):
        for one in group.contenders:
            found.setdefault(group.dataset, {})[one.method, one.accounting, one.epsilon] = one
    kept = {name: sorted(ones.values(), key=lambda one: one.bar == REFERENCE) for name, ones in found.items()}
    order = list(datasets or layout.datasets)
    shown = sorted(kept, key=lambda name: (order.index(name) if name in order else len(order), name))
    return {name: kept[name] for name in shown if not datasets or name in datasets}


def in_order(layout: Layout, runs: Iterable[str]) -> list[str]:
    """Returns runs as the layout orders them, those that it does not know after these, by name."""
    order = list(layout.runs)
    return sorted(runs, key=lambda run: (order.index(run) if run in order else len(order), run))


def axis_name(metric: str) -> str:
    """Returns a metric's label, with an arrow to its better end where it has one."""
    known = METRICS[metric]
    arrow = (" ↑" if known.higher_is_better else " ↓") if known.arrow else ""
    return known.label + arrow


def plain_label(layout: Layout, run: str) -> str:
    """Returns a run's label for a text of matplotlib that reads formulas, so that a `$` begins none."""
    return layout.run_label(run).replace("$", r"\$")


def of_one_seed(ones: Iterable[Contender], metrics: Sequence[str]) -> list[Line2D]:
    """Returns the legend's entry on marks without an interval, where a plot of these runs has some with one as well."""
    several = {len(values) > 1 for one in ones for metric in metrics if (values := one.values.get(metric))}
    return [Line2D([], [], ls="", label="without an interval: one seed")] if len(several) > 1 else []


def with_legend(figure: Figure, handles: Sequence[Line2D]) -> Figure:
    """Puts a legend below the panels, in room of its own, in as many columns as the width takes."""
    width, height = figure.get_size_inches()
    longest = max(text_width(str(handle.get_label()), SMALL) for handle in handles)
    # A mark and the space around it are as wide as five letters.
    columns = max(1, min(len(handles), int(width / (longest + 5 * SMALL / 72))))
    figure.set_size_inches(width, height + 0.13 * -(-len(handles) // columns) + 0.1)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=SMALL)
    return figure
