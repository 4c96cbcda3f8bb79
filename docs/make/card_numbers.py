"""The numbers of a method's card: what was measured here, what is published, what a published setting spends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from docs.make.older_rows import older
from docs.make.references import Key, Reference, number, read_reference, table, with_interval
from evaluation.report import frontier, published_costs
from evaluation.report.csv_rows import read_rows
from evaluation.report.frontier import Result
from evaluation.report.layout import Layout, load_layout
from evaluation.report.render import Grid, grid_to_markdown
from evaluation.scores import read_scores
from workflow.common.contracts import format_epsilon
from workflow.common.files import read_object
from workflow.common.metrics import METRICS

# Folders of results/reference on full-size images, the shortest training first; the others are of a kind of their own.
REFERENCES = ("quick", "quick_seeds", "longer_seeds", "sound_seeds", "gan_seeds", "sound_eps1", "eight_times",
              "long_pair", "long", "long_scatter", "long_teachers", "long_datalens", "celeba10k")  # fmt: skip
SHOWN = ("g2r_cnn", "r2g_cnn")
MEASURED = (*SHOWN, "fid_classifier", "eps_sound", "train_seconds")
HEADS = ("row", "data set", "ε", *(METRICS[name].label for name in MEASURED))
NO_ROW = "No committed reference holds a row of this method yet."
EXPLAINED = (
    "Measured here / published; of several seeds the mean ± half the width of its 95% t interval (seeds). Published "
    "are the numbers of the paper that the suite is built around (results/published/scores.csv), at full training, "
    "where ours are of the presets named. ε sound is the most that any of the seeds spent by the sound count. A dagger "
    "marks a row that its preset would make otherwise today: with other settings, or scored in another way. Seconds "
    "are means over the seeds, of a machine that did other work at times."
)
OLDER = "†"
ELSEWHERE = "Published elsewhere, each source in its own setting (results/published/frontier.csv):"
SPENT = "What published settings really spend (Table 5, which explains the columns):"


@dataclass(frozen=True)
class Numbers:
    """Everything that cards take numbers from; `older` has rows (run, data set) by the name of their reference."""

    references: Sequence[Reference]
    published: Mapping[tuple[Key, str], float]
    elsewhere: Sequence[Result]
    costs: Sequence[dict[str, str]]
    older: Mapping[str, frozenset[tuple[str, str]]] = field(default_factory=dict)

    def of(self, method: str, layout: Layout) -> list[str]:
        """Returns paragraphs and Markdown tables, in order."""
        measured = _measured(self, method, layout)
        parts = [EXPLAINED, measured] if measured else [NO_ROW]
        parts += filter(None, [_besides(self, method, layout)])
        others = [one for one in self.elsewhere if one.method == layout.run_label(method)]
        if others:
            parts += [ELSEWHERE, _elsewhere(others, layout)]
        costs = [row for row in self.costs if row["method"] == method]
        return [*parts, SPENT, _spent(costs, layout)] if costs else parts


def read(root: Path) -> Numbers:
    """Returns the numbers of the repository at `root`. Raises UserError for a file that is missing or damaged."""
    results, layout = root / "results", load_layout(str(root / "workflow/config/report.yaml"))
    folders = {name: results / "reference" / name for name in REFERENCES}
    paper = read_scores(results / "published/scores.csv")
    spec = next(iter(layout.published_costs.values()))
    table5 = results / "reference/quick/tables/table5.csv"
    return Numbers(
        [read_reference(folder) for folder in folders.values()],
        {((s.dataset, s.epsilon, s.method), s.metric): s.value for s in paper},
        frontier.read_frontier(results / "published/frontier.csv"),
        read_rows(table5, spec, published_costs.LEAD, published_costs.MAKER),
        {name: _older(folder) for name, folder in folders.items()},
    )


def _older(folder: Path) -> frozenset[tuple[str, str]]:
    return older(read_object(folder / "provenance.json", "provenance.json")["settings"])


def _measured(numbers: Numbers, method: str, layout: Layout) -> str:
    found = [
        (key, one) for at, one in enumerate(numbers.references) for key in one.keys(method)
        if not any(_same(one, before, key) for before in numbers.references[:at])
    ]  # fmt: skip
    told = {key for key, metric in numbers.published if key[2] == method and metric in SHOWN}
    pairs: list[tuple[Key, Reference | None]] = [*found, *((key, None) for key in told - {key for key, _ in found})]
    datasets = list(layout.datasets)
    # Data sets as tables have them; then the row that bears the method's name, from the largest epsilon on.
    pairs.sort(key=lambda pair: (datasets.index(pair[0][0]), pair[0][2] != method, pair[0][2], -pair[0][1]))
    rows = [_row(numbers, reference, key, layout) for key, reference in pairs]
    return table([*HEADS, "preset", "seeds"], rows) if rows else ""


def _same(one: Reference, other: Reference, key: Key) -> bool:
    """Returns whether two references hold the very same runs of a row: all that is shown, the seconds too, is equal."""
    return all(one.values(key, metric) == other.values(key, metric) for metric in MEASURED)


def _besides(numbers: Numbers, method: str, layout: Layout) -> str:
    """Returns a sentence with the published numbers that the table has no column for; nothing where there are none."""
    places: dict[tuple[str, float], list[str]] = {}
    for ((dataset, epsilon, run), metric), value in numbers.published.items():
        if run == method and metric not in SHOWN:
            places.setdefault((dataset, epsilon), []).append(f"{METRICS[metric].label} {value:g}")
    told = [f"{layout.dataset_label(d)}, ε {format_epsilon(e)}: {', '.join(v)}" for (d, e), v in places.items()]
    return f"Published besides: {'; '.join(told)}." if told else ""


def _named(key: Key, layout: Layout) -> list[str]:
    dataset, epsilon, run = key
    return [f"`{run}`", layout.dataset_label(dataset), "∞" if math.isinf(epsilon) else format_epsilon(epsilon)]


def _row(numbers: Numbers, reference: Reference | None, key: Key, layout: Layout) -> list[str]:
    def values(metric: str) -> list[float]:
        return reference.values(key, metric) if reference else []

    cells = [
        f"{with_interval(values(metric), 3)} / {number(numbers.published.get((key, metric)), 2)}" for metric in SHOWN
    ]  # fmt: skip
    seconds = values("train_seconds")
    folder = f"[{reference.name}](../../results/reference/{reference.name}/scores.csv)" if reference else "not run here"
    if reference and (key[2], key[0]) in numbers.older.get(reference.name, ()):
        folder += f" {OLDER}"
    return [
        *_named(key, layout), *cells, with_interval(values("fid_classifier"), 1),
        number(max(values("eps_sound"), default=None), 1), number(fmean(seconds) if seconds else None, 0), folder,
        str(len(values(SHOWN[0])) or "-"),
    ]  # fmt: skip


def _elsewhere(results: Sequence[Result], layout: Layout) -> str:
    rows = []
    for one in results:
        known = [metric for metric in frontier.LABELS if metric in one.values]
        values = [f"{frontier.LABELS[metric]} {one.values[metric][0]:g}" for metric in known]
        how = ", ".join(filter(None, [one.classifier, f"δ {one.delta}" if one.delta else ""]))
        where = [layout.dataset_label(one.dataset), format_epsilon(one.epsilon)]
        rows.append([*where, ", ".join(values), how, one.source])
    return table(["data set", "ε", "value", "how", "source"], rows)


def _spent(costs: list[dict[str, str]], layout: Layout) -> str:
    grid = published_costs.build_grid(next(iter(layout.published_costs.values())), layout, costs)
    rows = [row[1:] for row in grid.rows]
    lines = grid_to_markdown(Grid("", grid.heads[1:], grid.right[1:], rows, [])).splitlines()
    return "\n".join(line for line in lines if line.startswith("|"))
