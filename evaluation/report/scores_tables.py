"""Tables 1-4 and 6: published and measured numbers side by side, from scores.csv, as csv, md and tex."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.report import render
from evaluation.report.layout import Layout, RowSpec, TableSpec, add_layout, layout_of
from evaluation.report.render import Column, Row, Table
from evaluation.scores import Score, check_presets, read_scores
from workflow.common.contracts import CLAIMED
from workflow.common.errors import command
from workflow.common.files import read_csv
from workflow.common.metrics import BEST_ON_TEST, BEST_ON_TEST_NOTE, ENDED_SHORT, METRICS, ended_short_note
from workflow.common.options import Parser

LEDGER_METRICS = ("eps_published", "eps_sound")
SHARE = "steps_share"
UNCHECKED = "ε claimed"
TUNING_COLUMNS = ("run", "dataset", "runs", "delta", "eps_sum", "eps_together")  # of `workflow.tune choose`'s costs.csv
CLAIMED_NOTE = (
    "Accounting claimed: trained elsewhere; its ε is what its makers state, and nothing here has counted or checked it."
)


@dataclass
class Numbers:
    """Both sources, indexed by (data set, method, epsilon, metric); measured ones also by accounting, per seed."""

    published: dict[tuple, Score] = field(default_factory=dict)
    measured: dict[tuple, list[float]] = field(default_factory=dict)
    measured_runs: dict[tuple[str, float, str], set[str]] = field(default_factory=dict)  # -> data sets
    presets: set[str] = field(default_factory=set)
    seeds: dict[tuple, list[int]] = field(default_factory=dict)  # of `measured`, in its order

    @classmethod
    def gather(cls, scores: Iterable[Score], published: Iterable[Score]) -> Numbers:
        """Indexes the measured rows of `scores` and the published rows of `published`.

        Raises UserError where a run was measured under two presets.
        """
        scores, numbers = list(scores), cls()
        check_presets(scores)
        for s in published:
            if s.source == "published":
                numbers.published[s.dataset, s.method, s.epsilon, s.metric] = s
        for s in scores:
            if s.source == "measured":
                key = (s.dataset, s.method, s.epsilon, s.accounting, s.metric)
                numbers.measured.setdefault(key, []).append(s.value)
                numbers.seeds.setdefault(key, []).append(s.seed)
                numbers.measured_runs.setdefault((s.method, s.epsilon, s.accounting), set()).add(s.dataset)
                numbers.presets.add(s.preset)
        return numbers

    def of_seeds(self, *key: Any) -> dict[int, float]:
        """Returns seed -> value of what was measured of a (data set, method, epsilon, accounting, metric)."""
        return dict(zip(self.seeds.get(key, ()), self.measured.get(key, ()), strict=True))

    def published_accounting(self, dataset: str, method: str, epsilon: float) -> str:
        """Returns how the paper counted the epsilon of its numbers of a method; empty where it has none."""
        found = (s.accounting for (*key, _), s in self.published.items() if key == [dataset, method, epsilon])
        return next(found, "")

    def datasets(self) -> set[str]:
        """Returns the data sets with a measured value."""
        return set().union(*self.measured_runs.values())


@dataclass(frozen=True)
class Place:
    """Where a row reads its numbers: the layout's row, the setting, and whether it is only a reference."""

    spec: RowSpec
    epsilon: float
    accounting: str
    reference: bool = False


def _datasets(table: TableSpec, layout: Layout, numbers: Numbers) -> list[str]:
    measured = numbers.datasets()
    if table.per_dataset and not table.datasets:
        named = [name for name in layout.datasets if name in measured]
    else:
        named = table.datasets + [name for name in table.when_measured if name in measured]
    return named + (sorted(measured - set(layout.datasets)) if table.further_datasets else [])


def _settings(spec: RowSpec, datasets: list[str] | None, metrics: list[str], numbers: Numbers) -> dict[float, set[str]]:
    """Returns the epsilons, each with its accountings, at which a row has numbers; `datasets` None: in any data set."""
    settings: dict[float, set[str]] = {}
    for (run, epsilon, accounting), measured in numbers.measured_runs.items():
        if run == spec.run and (datasets is None or measured & set(datasets)):
            settings.setdefault(epsilon, set()).add(accounting)
    for (dataset, method, epsilon, metric), score in numbers.published.items():
        if method == spec.published and metric in metrics and (datasets is None or dataset in datasets):
            settings.setdefault(epsilon, {score.accounting})
    return settings


def _by_epsilon(places: Iterable[Place]) -> list[Place]:
    # Stable: the layout's order holds within each epsilon; the paper's larger budgets come first, no privacy last.
    return sorted(places, key=lambda place: (math.isinf(place.epsilon), -place.epsilon))


def _places(table: TableSpec, datasets: list[str], layout: Layout, numbers: Numbers) -> Iterator[Place]:
    """Yields the rows: the layout's, then every measured run the layout does not place, then the references."""
    runs = {run for run, _, _ in numbers.measured_runs}
    named = table.rows
    if not named:
        known = [row for other in layout.tables.values() for row in other.rows]
        order = list(dict.fromkeys([*layout.runs, *(row.run for row in known)]))
        named = [RowSpec(run, run, layout.run_label(run)) for run in order if run in runs]
    extra = runs - layout.placed_runs - {row.run for row in named}
    added = [RowSpec(run, run, layout.run_label(run)) for run in sorted(extra)]
    references = [RowSpec(run, run, label) for run, label in layout.references.items() if run in runs]

    def expand(specs: list[RowSpec], where: list[str] | None, reference: bool = False) -> Iterator[Place]:
        for spec in specs:
            for epsilon, accountings in _settings(spec, where, table.metrics, numbers).items():
                for accounting in sorted(accountings):
                    yield Place(spec, epsilon, accounting, reference)

    yield from _by_epsilon([*expand(named, datasets), *expand(added, None)])
    yield from _by_epsilon(expand(references, datasets, reference=True))


def _values(place: Place, dataset: str, metric: str, numbers: Numbers) -> tuple[float, ...]:
    return tuple(numbers.measured.get((dataset, place.spec.run, place.epsilon, place.accounting, metric), ()))


def _largest(place: Place, datasets: list[str], metric: str, numbers: Numbers) -> tuple[float, ...]:
    values = [value for name in datasets for value in _values(place, name, metric, numbers)]
    return (max(values),) if values else ()


def _published(place: Place, dataset: str, metric: str, numbers: Numbers) -> tuple[float, ...]:
    score = numbers.published.get((dataset, place.spec.published, place.epsilon, metric))
    return (score.value,) if score else ()


def _label(place: Place, datasets: Iterable[str], numbers: Numbers) -> str:
    short = any(_values(place, dataset, SHARE, numbers) for dataset in datasets)
    claimed = place.accounting == CLAIMED
    words = ["reference"] * place.reference + [UNCHECKED] * claimed + [ENDED_SHORT] * short
    return f"{place.spec.label} ({', '.join(words)})" if words else place.spec.label


def _column(layout: Layout, dataset: str | None, metric: str, source: str) -> Column:
    known = METRICS[metric]
    decimals = known.published_decimals if source == "published" else known.decimals
    return Column(dataset, layout.dataset_label(dataset) if dataset else "", metric, known.label, source, decimals)


def _wide(table: TableSpec, datasets: list[str], places: list[Place], layout: Layout, numbers: Numbers) -> Table:
    """Rows are runs; columns are each data set's metrics, published next to measured."""
    ledger = [_column(layout, None, metric, "measured") for metric in LEDGER_METRICS]
    columns, rows = list(ledger), []
    for p in places:
        spent = [_largest(p, datasets, column.metric, numbers) for column in ledger]
        name = _label(p, datasets, numbers)
        row = Row(name, None, p.epsilon, p.accounting, spent, p.spec.run, published=p.spec.published)
        rows.append(row)
    for dataset in datasets:
        for metric in table.metrics:
            paper = [_published(place, dataset, metric, numbers) for place in places]
            ours = [_values(place, dataset, metric, numbers) for place in places]
            # A metric no one reports, such as classifier FID on a data set not run, would be an empty column.
            for source, cells in (("published", paper), ("measured", ours)):
                if any(paper) or (source == "measured" and any(ours)):
                    columns.append(_column(layout, dataset, metric, source))
                    for row, cell in zip(rows, cells, strict=True):
                        row.cells.append(cell)
    return Table(table.title, columns, rows, [])


def _long(table: TableSpec, datasets: list[str], places: list[Place], layout: Layout, numbers: Numbers) -> Table:
    """Rows are runs per data set; columns are metrics, measured only."""
    columns = [_column(layout, None, metric, "measured") for metric in table.metrics]
    rows = []
    for dataset in datasets:
        for p in places:
            cells = [_values(p, dataset, metric, numbers) for metric in table.metrics]
            if any(cells):
                label = layout.dataset_label(dataset)
                name = _label(p, [dataset], numbers)
                rows.append(Row(name, label, p.epsilon, p.accounting, cells, p.spec.run, dataset))
    return Table(table.title, columns, rows, [])


def _notes(table: Table, numbers: Numbers, num_samples: int | str | None, with_paper: bool) -> list[str]:
    preset = ", ".join(sorted(numbers.presets)) or "none"
    samples = f"; each measured score uses {num_samples} generated images" if num_samples else ""
    if samples and {"precision", "recall"} & {column.metric for column in table.columns}:
        samples += ", precision and recall at most the protocol's prc_images"
    paper = f"{render.PAPER}: the paper's number; " if with_paper else ""
    reported = f"{render.NOT_REPORTED}: not reported; " if with_paper else ""
    notes = [
        f"Preset: {preset}{samples}. {paper}{render.OURS}: measured here. "
        f"{reported}{render.NOT_MEASURED}: not measured."
    ]
    if any(len(cell) > 1 for row in table.rows for cell in row.cells):
        notes.append(render.SEVERAL_SEEDS)
    notes.append(
        "ε is the run's budget. Accounting says which count set the noise: published = as the method's authors "
        "counted, sound = the ledger's proved bound, none = not private. ε published and ε sound are what that run "
        "spent under each count" + ("." if table.has_datasets else ", the largest over the data sets and seeds shown.")
    )
    if any(row.accounting == CLAIMED for row in table.rows):
        notes.append(CLAIMED_NOTE)
    shares = [value for key, values in numbers.measured.items() if key[-1] == SHARE for value in values]
    if shares and any(ENDED_SHORT in row.label for row in table.rows):
        notes.append(ended_short_note(min(shares)))
    if any(column.metric == BEST_ON_TEST for column in table.columns):
        notes.append(BEST_ON_TEST_NOTE)
    if with_paper and any(column.metric.startswith("fid") for column in table.columns):
        notes.append(
            "The paper's FID uses Inception features. FID on a classifier trained on the real training images is "
            "another scale: it has its own column and cannot be compared with the paper's."
        )
    return notes


def build_table(table: TableSpec, layout: Layout, numbers: Numbers, num_samples: int | str | None = None) -> Table:
    """Returns one table: every row and column the layout names, and every measured run and data set it does not."""
    datasets = _datasets(table, layout, numbers)
    places = list(_places(table, datasets, layout, numbers))
    built = (_long if table.per_dataset else _wide)(table, datasets, places, layout, numbers)
    # Shown alone, data sets that are not the paper's have nothing of it to explain.
    with_paper = table.further_datasets or any(column.source == "published" for column in built.columns)
    built.notes.extend(_notes(built, numbers, num_samples, with_paper))
    return built


def write_tables(
    layout: Layout, scores: Iterable[Score], published: Iterable[Score], out: Path,
    num_samples: int | str | None = None, tuning: Iterable[Mapping[str, str]] = (),
) -> None:  # fmt: skip
    """Writes each table of scores of the layout as csv, md and tex under `out`.

    `tuning` are rows of costs.csv; what they say of a table's runs stands under those that show a row per data set.
    """
    numbers = Numbers.gather(scores, published)
    for name, spec in layout.tables.items():
        table = build_table(spec, layout, numbers, num_samples)
        if spec.per_dataset:
            table.notes.extend(_tuning_notes({row.run for row in table.rows}, tuning))
        render.write_table(out, name, table)


def _tuning_notes(runs: Iterable[str], tuning: Iterable[Mapping[str, str]]) -> list[str]:
    """Returns what tuning the runs would have spent of private images, the most of any data set; none if none did."""
    most: dict[str, Mapping[str, str]] = {}
    for row in tuning:
        if row["run"] in runs:
            most[row["run"]] = max(most.get(row["run"], row), row, key=lambda one: float(one["eps_together"]))
    if not most:
        return []
    spent = "; ".join(f"{run} {float(row['eps_together']):.1f} ({row['runs']} runs)" for run, row in most.items())
    delta = next(iter(most.values()))["delta"]
    return [
        f"Tuning is not in these numbers. If the images that settings were tuned on were private, all trials of a row"
        f" together would have cost ε by the sound count, at δ {delta}: {spent}."
    ]


@command
def main(argv: list[str] | None = None) -> None:
    """Runs `python -m evaluation.report.scores_tables`."""
    parser = Parser(prog="python -m evaluation.report.scores_tables", description=__doc__)
    parser.add_argument("--scores", type=Path, required=True, help="measured scores.csv")
    parser.add_argument("--published", type=Path, required=True, help="the paper's scores.csv")
    add_layout(parser)
    parser.add_argument("--num-samples", help="generated images behind each score, in words or a number, for the note")
    parser.add_argument("--tuning", type=Path, help="costs.csv of python -m workflow.tune choose, for a note")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables' .csv, .md and .tex")
    options = parser.parse_args(argv)
    scores, published = read_scores(options.scores), read_scores(options.published)
    maker = "python -m workflow.tune choose"
    tuning = read_csv(options.tuning, TUNING_COLUMNS, maker) if options.tuning else ()
    write_tables(layout_of(options), scores, published, options.out, options.num_samples, tuning)


if __name__ == "__main__":
    raise SystemExit(main())
