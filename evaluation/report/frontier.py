"""Table 8: the best private results that we know to be published, beside the best sound rows of this run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.report import render
from evaluation.report.layout import FrontierSpec, Layout, add_layout, layout_of
from evaluation.report.render import Grid
from evaluation.report.scores_tables import SHARE
from evaluation.scores import Score, check_name, check_presets, format_value, read_scores
from evaluation.standings import Contender, groups
from workflow.common.contracts import format_epsilon, parse_epsilon
from workflow.common.errors import UserError, command, shown, unknown
from workflow.common.files import csv_text, read_lines, read_object
from workflow.common.metrics import ENDED_SHORT, METRICS, ended_short_note
from workflow.common.options import Parser
from workflow.common.readers.numbers import parse_number

COLUMNS = (
    *("method", "public_data", "dataset", "epsilon", "delta", "train_images", "classifier", "metric", "value"),
    "source",
)
# Metric of frontier.csv -> metric of scores.csv; gen2real is by a network of each source's own.
METRIC_OF = {"g2r": "g2r_cnn", "fid_inception": "fid_inception"}
LABELS = {"g2r": "gen2real", "fid_inception": METRICS["fid_inception"].label}
HEADS = ("Data set", "ε", "Method", "Public data", "δ", "Training images", "Classifier")
OURS = "this run"


@dataclass
class Result:
    """A row: what was trained how, and per metric of METRIC_OF one value a seed. A text that is not known is empty.

    `run` and `accounting` name a measured row's run; `shares` are the parts of their steps that seeds which ended short
    did.
    """

    method: str
    dataset: str
    epsilon: float
    public_data: str
    delta: str
    train_images: str
    source: str
    classifier: str = ""
    values: dict[str, tuple[float, ...]] = field(default_factory=dict)
    run: str = ""
    accounting: str = ""
    shares: tuple[float, ...] = ()

    def mean(self, metric: str) -> float:
        """Returns the mean over the seeds; NaN without a value."""
        values = self.values.get(metric, ())
        return math.fsum(values) / len(values) if values else math.nan


def read_frontier(path: str | Path) -> list[Result]:
    """Returns the published results, one for each method and setting; accuracies in 0 .. 1.

    Raises:
        UserError: the file is missing, has other columns, or a line holds what cannot be (the line is named).
    """
    found: dict[tuple, Result] = {}
    for number, cells in read_lines(path, COLUMNS, exact=True).items():
        try:
            _add(cells, found)
        except UserError as error:
            raise UserError(f"{path} line {number}: {error}") from None
    return list(found.values())


def _add(cells: Mapping[str, str], found: dict[tuple, Result]) -> None:
    for name in ("method", "dataset", "source"):
        check_name(name, cells[name])
    metric = cells["metric"]
    if metric not in METRIC_OF:
        raise unknown("metric", metric, METRIC_OF)
    known = METRICS[METRIC_OF[metric]]
    value = _number(cells, "value", known.low, known.high)
    if cells["delta"]:
        _number(cells, "delta", 0, 1)
    if cells["train_images"]:
        _number(cells, "train_images", 1, 1e12)
    setting = [cells[name] for name in ("method", "dataset", "public_data", "delta", "train_images", "source")]
    method, dataset, *others = setting
    result = Result(method, dataset, parse_epsilon(cells["epsilon"]), *others)
    result = found.setdefault((*setting, result.epsilon), result)
    if metric in result.values:
        raise UserError(f"two values for {metric} of {method} on {dataset}; remove one")
    result.values[metric] = (value,)
    result.classifier = result.classifier or cells["classifier"]


def _number(cells: Mapping[str, str], name: str, low: float, high: float) -> float:
    try:
        value = parse_number(cells[name])
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise UserError(f"{name} must be a number from {max(low, 0):g} to {high:g}, got {shown(cells[name])}")
    return value


def best_sound(
    scores: Iterable[Score], spec: FrontierSpec, layout: Layout, delta: str, train_images: Mapping[str, int]
) -> list[Result]:
    """Returns the runs whose sound epsilon is within their budget: of each data set of the table and each budget the
    `spec.best` best by gen2real.

    Args:
        delta: of all runs, as printed.
        train_images: data set -> records; what is not there is printed as not known.

    Raises UserError where a run was measured under two presets.
    """
    scores, found = list(scores), []
    check_presets(scores)
    for group in groups(scores):
        if group.dataset not in spec.datasets:
            continue
        sound = [one for one in group.contenders if not one.bar and one.mean(METRIC_OF["g2r"]) is not None]
        sound.sort(key=lambda one: (-one.mean(METRIC_OF["g2r"]), one.method, one.accounting))
        count = str(train_images.get(group.dataset, ""))
        found += [_measured(one, group.dataset, spec, layout, delta, count) for one in sound[: spec.best]]
    return found


def _measured(
    one: Contender, dataset: str, spec: FrontierSpec, layout: Layout, delta: str, train_images: str
) -> Result:
    values = {name: tuple(one.values[metric]) for name, metric in METRIC_OF.items() if one.values.get(metric)}
    label = layout.run_label(one.method)
    where = (label, dataset, one.epsilon, "", delta, train_images, OURS, spec.classifier)
    return Result(*where, values, one.method, one.accounting, tuple(one.values.get(SHARE, ())))


def ordered(results: Iterable[Result], spec: FrontierSpec) -> list[Result]:
    """Returns the results of the table's data sets, by data set and falling epsilon: published ones without public
    data, published ones with it, then ours; the best first in each part."""

    def place(one: Result) -> tuple:
        accuracy, distance = one.mean("g2r"), one.mean("fid_inception")
        kind = 2 if one.source == OURS else bool(one.public_data)
        unmeasured = math.isnan(accuracy)
        rest = (unmeasured, 0.0 if unmeasured else -accuracy, math.inf if math.isnan(distance) else distance)
        return spec.datasets.index(one.dataset), -one.epsilon, kind, *rest, one.method

    return sorted((one for one in results if one.dataset in spec.datasets), key=place)


def build_grid(spec: FrontierSpec, layout: Layout, results: Sequence[Result]) -> Grid:
    """Returns the table of `ordered` results."""
    heads = [*HEADS, *(f"{LABELS[name]} {_arrow(name)}" for name in METRIC_OF), "Source"]
    right = [False, True, False, False, True, True, False, *(True for _ in METRIC_OF), False]
    rows = [
        [
            layout.dataset_label(one.dataset), format_epsilon(one.epsilon), _name(one), one.public_data or "none",
            *(text or render.NOT_REPORTED for text in (one.delta, one.train_images, one.classifier)),
            *(_cell(one, name) for name in METRIC_OF), one.source,
        ]
        for one in results
    ]  # fmt: skip
    notes = list(spec.notes)
    if any(len(values) > 1 for one in results for values in one.values.values()):
        notes.append(render.SEVERAL_SEEDS)
    if shares := [share for one in results for share in one.shares]:
        notes.append(ended_short_note(min(shares)))
    if not any(one.source == OURS for one in results):
        notes.append("No run of these data sets keeps a sound ε within its budget here, so only published rows stand.")
    return Grid(spec.title, heads, right, rows, notes)


def _name(one: Result) -> str:
    return f"{one.method} ({ENDED_SHORT})" if one.shares else one.method


def _arrow(name: str) -> str:
    return "↑" if METRICS[METRIC_OF[name]].higher_is_better else "↓"


def _cell(one: Result, name: str) -> str:
    source, known = "measured" if one.source == OURS else "published", METRICS[METRIC_OF[name]]
    decimals = 3 if name == "g2r" else 1
    column = render.Column(None, "", known.name, known.label, source, decimals)
    return render.cell_text(one.values.get(name, ()), column)


def to_csv(results: Iterable[Result]) -> str:
    """Returns the results as csv: per metric mean, sample standard deviation and number of seeds, empty if unknown."""
    parts = ("", "_std", "_seeds")
    names = [f"{name}{part}" for name in METRIC_OF for part in parts]
    lines = []
    for one in results:
        who = [one.dataset, format_epsilon(one.epsilon), one.method, one.public_data, one.delta, one.train_images]
        cells = [cell for name in METRIC_OF for cell in _numbers(one.values.get(name, ()))]
        lines.append([*who, one.classifier, *cells, one.source])
    heads = ["dataset", "epsilon", "method", "public_data", "delta", "train_images", "classifier", *names, "source"]
    return csv_text(heads, (dict(zip(heads, line, strict=True)) for line in lines))


def _numbers(values: tuple[float, ...]) -> list[str]:
    if not values:
        return ["", "", ""]
    mean, spread = render.summary(values)
    return [format_value(mean), "" if spread is None else format_value(spread), str(len(values))]


def train_images_of(cards: Iterable[Path]) -> dict[str, int]:
    """Returns data set -> training images, from the cards of data sets. Raises UserError for one that does not say."""
    counts = {}
    for path in cards:
        card = read_object(path, "a data set's card")
        splits = card.get("splits")
        train = splits.get("train") if isinstance(splits, dict) else None
        count = train.get("count") if isinstance(train, dict) else None
        if not isinstance(count, int) or isinstance(count, bool) or not isinstance(card.get("dataset"), str):
            raise UserError(f"{path} does not say how many training images there are; make the data again")
        counts[card["dataset"]] = count
    return counts


@command
def main(argv: list[str] | None = None) -> None:
    """Runs `python -m evaluation.report.frontier`."""
    parser = Parser(prog="python -m evaluation.report.frontier", description=__doc__)
    parser.add_argument("--scores", type=Path, required=True, help="measured scores.csv")
    parser.add_argument("--frontier", type=Path, required=True, help="results/published/frontier.csv")
    parser.add_argument("--cards", type=Path, nargs="*", default=[], metavar="CARD", help="card.json of each data set")
    parser.add_argument("--delta", default="", help="delta of the measured runs, for their column")
    add_layout(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables' .csv, .md and .tex")
    options = parser.parse_args(argv)
    layout, published, scores = layout_of(options), read_frontier(options.frontier), read_scores(options.scores)
    counts = train_images_of(options.cards)
    for name, spec in layout.frontier.items():
        ours = best_sound(scores, spec, layout, options.delta, counts)
        results = ordered([*published, *ours], spec)
        render.write_grid(options.out, name, build_grid(spec, layout, results), to_csv(results))


if __name__ == "__main__":
    raise SystemExit(main())
