"""The plots of report.html as Vega-Lite specifications: seeds as points, means with intervals, a link to each card."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.intervals import CONFIDENCE, interval
from evaluation.report.layout import Layout
from evaluation.report.mark_names import HEIGHT, Mark, sides
from evaluation.report.page_tables import Links, bare, contender
from evaluation.report.scores_tables import Numbers
from evaluation.report.single_value import axis_of
from evaluation.standings import NO_SOUND_COUNT, OVER_BUDGET, REFERENCE, UNCHECKED, Contender
from workflow.common.contracts import format_epsilon
from workflow.common.files import csv_text
from workflow.common.metrics import METRICS

UTILITY, FIDELITY = ("g2r_cnn", "g2r_mlp"), ("fid_inception", "fid_classifier", "fwd")
WITHIN = "within its budget"
KINDS = (WITHIN, OVER_BUDGET, NO_SOUND_COUNT, REFERENCE, UNCHECKED)
# The page's style sheet gives the colours, which differ on dark ground; shapes say the same without colour.
COLOURS = [f"var(--kind{n})" for n in range(1, 6)]
SHAPES = ["circle", "triangle-up", "cross", "diamond", "square"]
LINES = [f"var(--line{n})" for n in range(1, 9)]
DASHES = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3]]
LEAST_SECONDS = 0.1  # a logarithmic axis has no 0
_COLUMNS = ("x", "y", "x0", "x1", "y0", "y1", "name", "kind", "card", "text", "label", "front", "seed")


@dataclass(frozen=True)
class Chart:
    """A plot: an id, a title, what it shows in words, its specification, and what is printed after the title."""

    name: str
    title: str
    words: str
    spec: dict[str, Any]
    caption: str = ""


@dataclass(frozen=True)
class _Point:
    one: Contender
    x: tuple[float, ...]
    y: tuple[float, ...]
    card: str
    label: str

    @property
    def at(self) -> tuple[float, float]:
        return statistics.fmean(self.x), statistics.fmean(self.y)

    @property
    def kind(self) -> str:
        return self.one.bar or WITHIN


def charts(dataset: str, numbers: Numbers, layout: Layout, links: Links) -> list[Chart]:
    """Returns the plots of a data set: those whose two metrics some private run has."""
    runs = [key for key, datasets in numbers.measured_runs.items() if dataset in datasets]
    ones = [contender(dataset, run, epsilon, accounting, numbers) for run, epsilon, accounting in runs]
    utility, fidelity = (next((m for m in names if _measured(ones, m)), "") for names in (UTILITY, FIDELITY))
    label = layout.dataset_label(dataset)

    def points(x: str, y: str) -> list[_Point]:
        found = []
        for one in ones:
            across, up = (
                numbers.of_seeds(dataset, one.method, one.epsilon, one.accounting, metric) for metric in (x, y)
            )
            # A seed may lack one of the two.
            pairs = [(across[seed], up[seed]) for seed in across if seed in up]
            if x == "eps_sound" and one.bar == REFERENCE:
                pairs = []
            if pairs and all(map(math.isfinite, (value for pair in pairs for value in pair))):
                card = links.of(dataset, one.method, one.epsilon, one.accounting)
                name = _named(layout, one, len({o.epsilon for o in ones if math.isfinite(o.epsilon)}) > 1)
                found.append(_Point(one, *zip(*pairs, strict=True), card, name))
        return found

    drawn = []
    if utility:
        lines = [(layout.run_label(o.method), o.mean(utility)) for o in ones if o.bar == REFERENCE and o.mean(utility)]
        drawn.append(_scatter("utility-epsilon", dataset, label, points("eps_sound", utility), "eps_sound", utility,
                              log=True, references=lines))  # fmt: skip
        if fidelity:
            drawn.append(_scatter("fidelity-utility", dataset, label, points(fidelity, utility), fidelity, utility))
        drawn.append(_scatter("cost-utility", dataset, label, points("train_seconds", utility), "train_seconds",
                              utility, log=True, front=True))  # fmt: skip
    for metric in filter(None, (utility, fidelity)):
        drawn.append(_over_budgets(dataset, label, ones, metric, layout, links))
    return [chart for chart in drawn if chart]


def _measured(ones: Iterable[Contender], metric: str) -> bool:
    return any(one.values.get(metric) and one.bar != REFERENCE for one in ones)


def _named(layout: Layout, one: Contender, several: bool) -> str:
    name = bare(layout.run_label(one.method))
    return f"{name}, ε {format_epsilon(one.epsilon)}" if several and math.isfinite(one.epsilon) else name


def pareto(points: Sequence[tuple[float, float]], higher: bool) -> list[int]:
    """Returns the places of the points that no other beats: none has a smaller first number and as good a second."""
    sign = 1 if higher else -1
    kept, best = [], -math.inf
    for place in sorted(range(len(points)), key=lambda i: (points[i][0], -sign * points[i][1])):
        if sign * points[place][1] > best:
            kept.append(place)
            best = sign * points[place][1]
    return kept


def _scatter(
    name: str, dataset: str, label: str, points: list[_Point], x: str, y: str, log: bool = False, front: bool = False,
    references: Sequence[tuple[str, float]] = (),
) -> Chart | None:  # fmt: skip
    if not points:
        return None
    within = [point for point in points if point.kind == WITHIN]
    best = [within[place] for place in pareto([p.at for p in within], METRICS[y].higher_is_better)] if front else []
    title = f"{_axis(y)} against {_axis(x)}"
    ends = [_place(value, log) for point in points for value in (*point.x, *interval(point.x))]
    heights = [value for point in points for value in (*point.y, *interval(point.y))]
    heights += [value for _, value in references]
    x_ends = (min(ends) / 1.3, max(ends) * 1.3) if log else (min(ends), max(ends))
    x_scale = {"type": "log", "nice": False, "domain": list(x_ends)} if log else {"zero": False, "nice": True}
    axes = {
        "x": {"field": "x", "type": "quantitative", "title": _axis(x), "scale": x_scale},
        "y": {"field": "y", "type": "quantitative", "title": _axis(y), "scale": {"zero": False, "nice": True}},
    }
    if not log:
        axes["x"] |= axis_of(ends)
    axes["y"] |= axis_of(heights)
    kind = {
        "color": {"field": "kind", "type": "nominal", "title": None, "scale": {"domain": KINDS, "range": COLOURS},
                  "legend": {"symbolOpacity": 1, "values": [k for k in KINDS if any(p.kind == k for p in points)]}},
        "shape": {"field": "kind", "type": "nominal", "title": None, "scale": {"domain": KINDS, "range": SHAPES}},
    }  # fmt: skip
    fields = ("x", "y", "x0", "x1", "y0", "y1")
    rows = [_row(p, x, y, p in best, log, fields) for p in points]
    rows = _labelled(rows, x_ends, (min(heights), max(heights)), log, references)
    seeds = [
        {"x": _place(a, log), "y": b, "kind": p.kind, "text": f"{p.label}, one seed"}
        for p in points if len(p.x) > 1 for a, b in zip(p.x, p.y, strict=True)
    ]  # fmt: skip
    reach = {"mark": {"type": "rule", "opacity": 0.6}, "data": _data(rows)}
    plain = {**axes, "color": kind["color"]}
    hover = {"tooltip": {"field": "text", "type": "nominal"}}
    layers: list[dict[str, Any]] = [
        {**reach, "encoding": {**plain, "y": {**axes["y"], "field": "y0"}, "y2": {"field": "y1"}}},
        {**reach, "encoding": {**plain, "x": {**axes["x"], "field": "x0"}, "x2": {"field": "x1"}}},
        {"data": _data(seeds), "mark": {"type": "point", "size": 22, "opacity": 0.6},
         "encoding": {**axes, **kind, **hover}},
        {"data": _data(rows), "mark": {"type": "point", "filled": True, "size": 85, "opacity": 1, "cursor": "pointer"},
         "encoding": {**axes, **kind, **hover, "href": {"field": "card", "type": "nominal"}}},
        *({"data": _data([row for row in rows if row["label"] and row["side"] == side]),
           "mark": {"type": "text", "align": side, "dx": 8 if side == "left" else -8, "fontSize": 11,
                    "color": "currentColor"},
           "encoding": {**axes, "text": {"field": "label", "type": "nominal"}}} for side in ("left", "right")),
    ]  # fmt: skip
    if len(best) > 1:
        line = [row for row in rows if row["front"]]
        layers.insert(0, {"data": _data(line), "mark": {"type": "line", "strokeDash": [5, 4], "color": "currentColor"},
                          "encoding": axes})  # fmt: skip
    layers += [layer for pair in references for layer in _level(*pair, axes["y"])]
    words = [f"{len(points)} runs on {label}, a mark each, which leads to the run's card."]
    if seeds:
        words.append(f"Small marks are seeds, large ones their mean, lines its {CONFIDENCE:.0%} t interval.")
    if front:
        words.append(
            f"The Pareto front among runs within their budget ({', '.join(p.label for p in best) or 'none'}): no other "
            "trains in less time and is as good." + (" Dashed line." if len(best) > 1 else "")
        )
    if references:
        words.append(f"Dashed: {', '.join(f'{name} ({value:.3f})' for name, value in references)}.")
    text = " ".join(words)
    return Chart(f"{name}-{dataset}", title, f"{title}: {text}", _spec(layers), text)


def _level(name: str, value: float, y: dict[str, Any]) -> list[dict[str, Any]]:
    data = _data([{"y": value, "label": name}])
    spot = {"y": y, "text": {"field": "label", "type": "nominal"}}
    mark = {"type": "rule", "strokeDash": [2, 3], "color": "currentColor", "opacity": 0.7}
    text = {"type": "text", "align": "left", "baseline": "bottom", "dx": 4, "dy": -2, "x": 0, "fontSize": 11,
            "color": "currentColor"}  # fmt: skip
    return [{"data": data, "mark": mark, "encoding": {"y": y}}, {"data": data, "mark": text, "encoding": spot}]


def _row(point: _Point, x: str, y: str, front: bool, log: bool, fields: Sequence[str]) -> dict[str, Any]:
    (x0, x1), (y0, y1), (mean_x, mean_y) = interval(point.x), interval(point.y), point.at
    spots = (_place(mean_x, log), mean_y, _place(x0, log), _place(x1, log), y0, y1)
    shown = f"{point.label}: {METRICS[y].label} {mean_y:.{METRICS[y].decimals}f}, {_axis(x)} {mean_x:.4g}"
    seeds = f", mean of {len(point.x)} seeds" if len(point.x) > 1 else ""
    return {
        **{key: float(f"{spot:.6g}") for key, spot in zip(fields, spots, strict=True)}, "name": point.label,
        "kind": point.kind, "card": f"#{point.card}", "text": f"{shown}{seeds} ({point.kind})", "front": int(front),
    }  # fmt: skip


def _place(value: float, log: bool) -> float:
    return max(value, LEAST_SECONDS) if log else value


def _labelled(
    rows: list[dict[str, Any]], x: tuple[float, float], y: tuple[float, float], log: bool,
    levels: Sequence[tuple[str, float]],
) -> list[dict[str, Any]]:  # fmt: skip
    """Returns the rows with `label`, their name, where it meets nothing else; `x` and `y` are the ends of the axes."""
    scale: Callable[[float], float] = math.log10 if log else float

    def share(value: float, ends: tuple[float, float], of: Callable[[float], float] = float) -> float:
        low, high = map(of, ends)
        return (of(value) - low) / (high - low or 1.0)

    marks = [Mark(share(r["x"], x, scale), share(r["y"], y), r["name"], bool(r["front"])) for r in rows]
    for row, side in zip(rows, sides(marks, [(share(value, y), name) for name, value in levels]), strict=True):
        row["label"], row["side"] = (row["name"], side) if side else ("", "left")
    return rows


def _over_budgets(
    dataset: str, label: str, ones: list[Contender], metric: str, layout: Layout, links: Links
) -> Chart | None:
    """Returns a metric against the budget, a line for each run that has several; None where none has."""
    private = [one for one in ones if math.isfinite(one.epsilon) and one.values.get(metric)]
    lines: dict[tuple[str, str], list[Contender]] = {}
    for one in private:
        lines.setdefault((one.method, one.accounting), []).append(one)
    lines = {key: line for key, line in lines.items() if len(line) > 1}
    if not lines:
        return None
    rows, seeds = [], []
    for (run, accounting), line in lines.items():
        for one in sorted(line, key=lambda o: o.epsilon):
            low, high = interval(one.values[metric])
            shown = f"{layout.run_label(run)}, ε {format_epsilon(one.epsilon)}: {one.mean(metric):.4g}"
            over = f" ({one.bar})" if one.bar else ""
            card = f"#{links.of(dataset, run, one.epsilon, accounting)}"
            rows.append({"x": one.epsilon, "y": one.mean(metric), "y0": low, "y1": high, "name": layout.run_label(run),
                         "text": shown + over, "card": card})  # fmt: skip
            several = one.values[metric] if one.seeds(metric) > 1 else ()
            seeds += [{"x": one.epsilon, "y": value, "name": layout.run_label(run)} for value in several]
    x = {"field": "x", "type": "quantitative", "title": "ε, the budget", "scale": {"type": "log", "nice": True}}
    y = {"field": "y", "type": "quantitative", "title": _axis(metric), "scale": {"zero": False, "nice": True}}
    y |= axis_of(row[end] for row in rows for end in ("y0", "y1"))
    name = {"field": "name", "type": "nominal", "title": None}
    axes = {"x": x, "y": y, "color": {**name, "scale": {"range": LINES}}}
    layers = [
        {"data": _data(rows), "mark": {"type": "line"},
         "encoding": {**axes, "strokeDash": {**name, "scale": {"range": DASHES}}}},
        {"data": _data(rows), "mark": {"type": "rule", "opacity": 0.6},
         "encoding": {**axes, "y": {**y, "field": "y0"}, "y2": {"field": "y1"}}},
        {"data": _data(seeds), "mark": {"type": "point", "size": 22, "opacity": 0.6}, "encoding": axes},
        {"data": _data(rows), "mark": {"type": "point", "filled": True, "size": 60, "cursor": "pointer"},
         "encoding": {**axes, "tooltip": {"field": "text", "type": "nominal"},
                      "href": {"field": "card", "type": "nominal"}}},
    ]  # fmt: skip
    words = f"{_axis(metric)} against the budget ε on {label}, a line for each run that has several budgets."
    return Chart(f"{metric}-budget-{dataset}", f"{_axis(metric)} against the budget", words, _spec(layers), words)


def curves(name: str, column: str, series: dict[int, list[tuple[float, float]]]) -> Chart:
    """Returns a column of log.csv over the steps; `series` holds (step, value) pairs by seed."""
    rows = [{"x": x, "y": float(f"{y:.5g}"), "seed": seed} for seed, pairs in series.items() for x, y in pairs]
    seed = {"field": "seed", "type": "nominal", "title": "seed", "scale": {"range": LINES}}
    encoding: dict[str, Any] = {
        "x": {"field": "x", "type": "quantitative", "title": "step"},
        "y": {"field": "y", "type": "quantitative", "title": column.replace("_", " "), "scale": {"zero": False}},
        "color": {**seed, "legend": {} if len(series) > 1 else None},
        "strokeDash": {**seed, "scale": {"range": DASHES}, "legend": None},
    }
    for channel in ("x", "y"):
        encoding[channel] |= axis_of(row[channel] for row in rows)
    title = column.replace("_", " ")
    layers = [{"data": _data(rows), "mark": {"type": "line", "point": len(rows) < 4}, "encoding": encoding}]
    return Chart(name, title, f"{title} over the steps of training", _spec(layers, height=110))


def spent(name: str, rows: Sequence[tuple[float, float, float]], budget: float, charges: int) -> Chart:
    """Returns epsilon over the charges to the run's ledger: (charges, published, sound)."""
    long = [
        {"x": x, "y": float(f"{value:.6g}"), "name": count}
        for x, *values in rows for count, value in zip(("published count", "sound count"), values, strict=True)
        if math.isfinite(value)
    ]  # fmt: skip
    who = {"field": "name", "type": "nominal", "title": None}
    y = {"field": "y", "type": "quantitative", "title": "ε spent"}
    encoding: dict[str, Any] = {
        "x": {"field": "x", "type": "quantitative", "title": "charges to the ledger",
              "axis": {"tickMinStep": 1}},
        "y": y, "color": {**who, "scale": {"domain": ["published count", "sound count"], "range": LINES[:2]}},
        "strokeDash": {**who, "scale": {"domain": ["published count", "sound count"], "range": DASHES[:2]}},
    }  # fmt: skip
    encoding["x"] |= axis_of(row["x"] for row in long)
    mark = {"type": "line", "point": {"filled": True, "size": 25}}
    layers = [{"data": _data(long), "mark": mark, "encoding": encoding}]
    if math.isfinite(budget):
        layers += _level(f"budget ε {format_epsilon(budget)}", budget, y)
    words = f"Privacy spent over the run's {charges} charges to its ledger, by both counts"
    return Chart(name, "ε over the run's charges, by both counts", words, _spec(layers, height=150))


def _data(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    columns = [name for name in _COLUMNS if any(name in row for row in rows)]
    texts = ("name", "kind", "card", "text", "label", "seed")
    types = {name: "string" if name in texts else "number" for name in columns}
    # As csv, which is a third of the size.
    return {"values": csv_text(columns, rows), "format": {"type": "csv", "parse": types}} if rows else {"values": []}


def _axis(metric: str) -> str:
    known = METRICS[metric]
    arrow = (" ↑" if known.higher_is_better else " ↓") if known.arrow else ""
    return {"train_seconds": "training time (s)", "eps_sound": "ε sound"}.get(metric, known.label + arrow)


def _spec(layers: list[dict[str, Any]], height: int = HEIGHT) -> dict[str, Any]:
    ink = {"labelColor": "currentColor", "titleColor": "currentColor"}
    return {
        "width": "container", "height": height, "background": None, "layer": layers,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": {
            "font": "system-ui, sans-serif", "view": {"stroke": None},
            "axis": {**ink, "gridColor": "currentColor", "gridOpacity": 0.13, "domainColor": "currentColor",
                     "tickColor": "currentColor", "titleFontWeight": "normal", "labelFontSize": 11,
                     "titleFontSize": 12, "labelSeparation": 4},
            "legend": {**ink, "orient": "bottom", "labelFontSize": 11, "labelLimit": 260, "columns": 2},
        },
    }  # fmt: skip
