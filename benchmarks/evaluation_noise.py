"""`python -m benchmarks.evaluation_noise`: how far the evaluation spreads a score, and how far the training.

--runs are folders of finished runs of one data set; those of the same row and budget with different seeds show what a
training's seed moves. Of each, several sample sets are drawn, and each set is scored with several seeds of the
evaluation, so that the three spreads come apart. Each score stands in scores.csv of --out once it is there, and a call
that was stopped goes on; noise.csv has the spreads. With --classifiers, folders of `python -m evaluation.classifiers`
with different seeds, real2gen is scored too, one seed of the evaluation for each.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evaluation.inputs import check_fit
from evaluation.protocol import Protocol
from evaluation.utility import load_stored, score
from methods.commands.arguments import MOST_IMAGES, add_machine, read_plan, use_machine
from methods.core.rng import named_rng
from methods.core.runs import generator
from methods.core.runs.generator import GENERATOR
from methods.core.runs.plan import Plan
from methods.core.runs.sample import draw
from workflow.common.contracts import LabelledImages, format_epsilon, load_images
from workflow.common.errors import UserError, command
from workflow.common.files import read_lines, read_object, sha256, write_csv, write_json
from workflow.common.options import Parser, whole
from workflow.common.provenance import provenance
from workflow.common.readers.numbers import parse_number

PROGRAM = "python -m benchmarks.evaluation_noise"
SCORES, CNN = "scores.csv", "cnn.safetensors"
METRICS = {"g2r": ("g2r_mlp", "g2r_cnn"), "r2g": ("r2g_mlp", "r2g_cnn")}
COLUMNS = ("dataset", "run", "epsilon", "num_samples", "metric", "mean", "training", "draw", "evaluation", "share",
           "seeds", "draws", "evaluations")  # fmt: skip


class Key(NamedTuple):
    """Which score: of a training's seed, a sample set, its first images and a seed of the evaluation."""

    dataset: str
    run: str
    epsilon: str
    seed: int
    draw: int
    num_samples: int
    evaluation: int
    metric: str


@dataclass(frozen=True)
class Spreads:
    """Standard deviations of a score by its three sources; `training` is None where there is one seed of it."""

    mean: float
    training: float | None
    draw: float
    evaluation: float

    @property
    def share(self) -> float | None:
        """The evaluation's and the draw's variance as a share of the training's; None where that is unknown or 0."""
        if not self.training:
            return None
        return (self.draw**2 + self.evaluation**2) / self.training**2


def spreads(values: np.ndarray) -> Spreads:
    """Returns the spreads of scores [seeds, draws, evaluations], at least two draws and evaluations.

    Components of variance by the method of moments: the variance of means over evaluations holds a part of the
    evaluation's, and so on; a difference below 0 counts as 0. Every set is scored with the same seeds of the
    evaluation, real2gen even by the same classifiers. What one of these seeds does to all sets alike belongs to the
    evaluation's spread and cancels between sets, so only what it does to one set and not to another is taken off there.
    """
    seeds, draws, evaluations = values.shape
    evaluation = values.var(axis=2, ddof=1).mean()
    drawn = values.mean(axis=2).var(axis=1, ddof=1).mean() - _interaction(values) / evaluations
    training = None
    if seeds > 1:
        of_seeds = values.mean(axis=(1, 2)).var(ddof=1)
        training = _root(of_seeds - drawn / draws - _interaction(values.mean(axis=1)[None]) / evaluations)
    return Spreads(float(values.mean()), training, _root(drawn), _root(evaluation))


def _interaction(tables: np.ndarray) -> float:
    """Returns the mean variance in tables [T, A, B] of what neither row nor column accounts for."""
    rest = tables - tables.mean(axis=1, keepdims=True) - tables.mean(axis=2, keepdims=True)
    rest = rest + tables.mean(axis=(1, 2), keepdims=True)
    _, rows, columns = tables.shape
    return float((rest**2).sum(axis=(1, 2)).mean() / ((rows - 1) * (columns - 1)))


def _root(variance: float) -> float:
    return float(np.sqrt(max(0.0, variance)))


def table(found: dict[Key, float]) -> Iterator[list[str]]:
    """Yields a line of noise.csv for each row, number of images and metric whose scores are all there."""
    groups: dict[tuple, dict[tuple, float]] = {}
    for key, value in found.items():
        group = key.dataset, key.run, key.epsilon, key.num_samples, key.metric
        groups.setdefault(group, {})[key.seed, key.draw, key.evaluation] = value
    for group, scores in sorted(groups.items()):
        seeds, draws, evaluations = (sorted(set(axis)) for axis in zip(*scores, strict=True))
        cells = list(itertools.product(seeds, draws, evaluations))
        if len(draws) < 2 or len(evaluations) < 2 or any(cell not in scores for cell in cells):
            continue
        values = np.array([scores[cell] for cell in cells]).reshape(len(seeds), len(draws), len(evaluations))
        one = spreads(values)
        numbers = (one.mean, one.training, one.draw, one.evaluation, one.share)
        numbers = ["" if number is None else f"{number:.4g}" for number in numbers]
        yield [*map(str, group), *numbers, str(len(seeds)), str(len(draws)), str(len(evaluations))]


def read(path: Path) -> dict[Key, float]:
    """Returns the scores of an earlier call. Raises UserError for a damaged file."""
    found: dict[Key, float] = {}
    for number, cells in read_lines(path, (*Key._fields, "value"), PROGRAM, exact=True).items():
        try:
            key, value = _line(cells)
        except ValueError as error:
            raise UserError(f"{path} line {number}: {error}; mend or remove the line") from None
        if found.setdefault(key, value) != value:
            raise UserError(f"{path} line {number}: the score of an earlier line is another; remove one")
    return found


def _line(cells: dict[str, str]) -> tuple[Key, float]:
    """Returns a line's score. Raises ValueError where a cell holds what cannot be."""
    numbers = {name: cells[name] for name in ("seed", "draw", "num_samples", "evaluation")}
    for name, text in numbers.items():
        if not re.fullmatch("[0-9]{1,19}", text):
            raise ValueError(f"{name} must be a whole number, got {text[:80]!r}")
    value = parse_number(cells["value"])
    if not 0 <= value <= 1:
        raise ValueError(f"value must be an accuracy from 0 to 1, got {cells['value'][:80]}")
    texts = {name: cells[name] for name in Key._fields if name not in numbers}
    return Key(**texts, **{name: int(text) for name, text in numbers.items()}), value


class Book:
    """All scores so far, in scores.csv."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.found = read(path) if path.exists() else {}

    def add(self, scores: dict[Key, float]) -> None:
        """Writes scores."""
        self.found |= scores
        write_csv(self._path, (*Key._fields, "value"), [[*key, f"{v:.6g}"] for key, v in sorted(self.found.items())])


def score_run(
    folder: Path, plan: Plan, test: LabelledImages, protocol: Protocol, asked: argparse.Namespace, book: Book
) -> None:
    """Scores one run's sample sets, those that are not in the book yet."""
    name = _name(plan)
    directions = ["g2r", *(["r2g"] if asked.classifiers else [])]
    state = generator.load(folder)
    for number in range(asked.draws):
        cases = [
            (count, seed, direction)
            for count in asked.numbers for direction in directions for seed in _seeds(direction, asked)
            if Key(*name, number, count, seed, METRICS[direction][-1]) not in book.found
        ]  # fmt: skip
        if not cases:
            continue
        rng = named_rng(plan.seed, *name[:2], "samples", "noise", number)
        images, labels = draw(plan, state, max(asked.numbers), asked.device_used, rng)
        for count, seed, direction in cases:
            samples = LabelledImages(images[:count], labels[:count])
            stored = load_stored(asked.classifiers[seed]) if direction == "r2g" else None
            scores = score(
                direction, samples, test, replace(protocol, num_samples=count), seed, stored, asked.threads
            )  # fmt: skip
            book.add({Key(*name, number, count, seed, metric): scores[metric] for metric in METRICS[direction]})
            _tell(plan, number, count, seed, scores[METRICS[direction][-1]], direction)


def _name(plan: Plan) -> tuple[str, str, str, int]:
    return plan.public.dataset, plan.run, format_epsilon(plan.budget.epsilon), plan.seed


def _seeds(direction: str, asked: argparse.Namespace) -> range:
    return range(asked.evaluations if direction == "g2r" else len(asked.classifiers))


def _tell(plan: Plan, number: int, count: int, seed: int, value: float, direction: str) -> None:
    which = f"{plan.run} seed {plan.seed}, set {number}, {count} images, evaluation {seed}"
    print(f"progress: {which}: {direction} {value:.4f}", file=sys.stderr, flush=True)


def _checked(plans: Collection[Plan], asked: argparse.Namespace, test: LabelledImages) -> None:
    if len(asked.runs) > len({_name(plan) for plan in plans}):
        raise UserError("two of --runs are the same run with the same seed: give each seed of a run once")
    datasets = sorted({plan.public.dataset for plan in plans})
    if len(datasets) > 1:
        raise UserError(f"--runs are of several data sets, {', '.join(datasets)}: give those of one, the one of --test")
    for plan in plans:
        if plan.public.image_shape != test.image_shape:
            raise UserError(
                f"run {plan.run} makes images of {list(plan.public.image_shape)}, and {asked.test} holds"
                f" {list(test.image_shape)}: give the test split of {datasets[0]}"
            )
        if test.labels.max() >= plan.public.num_classes:
            raise UserError(
                f"run {plan.run} has {plan.public.num_classes} classes, and {asked.test} has labels up to"
                f" {test.labels.max()}: give the test split of {datasets[0]}"
            )
    if len(asked.classifiers) == 1:
        raise UserError("--classifiers needs at least two folders, made with different seeds, or none; got 1")
    for folder in asked.classifiers:
        check_fit(test, load_stored(folder)["cnn"], folder)
    if len({sha256(folder / CNN) for folder in asked.classifiers}) < len(asked.classifiers):
        raise UserError("two of --classifiers hold the same networks: make each with a seed of its own")


def _check_inputs(path: Path, runs: Mapping[Path, Plan], asked: argparse.Namespace) -> None:
    """Notes of what a folder's scores were made. Raises UserError for other files under the same names.

    Runs and classifiers may be more than they were. The largest of --numbers may not: it decides what is drawn.
    """
    now = {
        "--test": {"split": sha256(asked.test)},
        "--numbers": {"most": max(asked.numbers)},
        "--classifiers": {str(n): sha256(folder / CNN) for n, folder in enumerate(asked.classifiers)},
        "--runs": {"/".join(map(str, _name(plan))): sha256(folder / GENERATOR) for folder, plan in runs.items()},
    }
    kept = read_object(path, path.name) if path.exists() else {}
    for option, found in now.items():
        before = kept.get(option) if isinstance(kept.get(option), dict) else {}
        if any(before.get(name, value) != value for name, value in found.items()):
            raise UserError(f"{path.parent} holds scores of another {option}; give that again, or another --out")
        found |= before
    write_json(path, now)


def _check_protocol(path: Path, protocol: Protocol) -> None:
    """Notes by which settings a folder's scores were made. Raises UserError where there are some by others."""
    # Each score takes its own number of images.
    settings = {key: value for key, value in asdict(protocol).items() if key != "num_samples"}
    if (path.parent / SCORES).exists() and not path.exists():
        raise UserError(f"{path.parent} holds scores, and no {path.name} that says by what; give another --out")
    if path.exists() and (kept := read_object(path, path.name)) != settings:
        other = ", ".join(key for key in settings if kept.get(key) != settings[key])
        raise UserError(f"{path.parent} holds scores by another protocol ({other}): give another --out")
    write_json(path, settings)


def _numbers(text: str) -> list[int]:
    one = whole("--numbers", 100, MOST_IMAGES)
    return sorted({one(item) for item in text.split(",")})


@command
def main(argv: list[str] | None = None) -> None:
    """Runs `python -m benchmarks.evaluation_noise`."""
    parser = Parser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, metavar="FOLDER", help="of finished runs")
    parser.add_argument("--test", type=Path, required=True, help="npz of the real test split")
    parser.add_argument("--classifiers", type=Path, nargs="+", default=[], help="folders of real2gen's classifiers")
    numbers = "2500,5000,10000"
    parser.add_argument("--numbers", type=_numbers, default=numbers, help=f"images of a set (default {numbers})")
    parser.add_argument("--draws", type=whole("--draws", 2, 100), default=2, help="sample sets of a run (default 2)")
    parser.add_argument(
        "--evaluations", type=whole("--evaluations", 2, 100), default=2, help="seeds of the evaluation (default 2)"
    )
    parser.add_argument("--protocol", help="settings of the evaluation, as JSON text or a JSON file")
    add_machine(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for scores.csv, noise.csv and provenance.json")
    asked = parser.parse_args(argv)
    asked.device_used, protocol = use_machine(asked), Protocol.parse(asked.protocol)
    plans = {folder: read_plan(folder / "plan.json") for folder in asked.runs}
    test = load_images(asked.test)
    _checked(plans.values(), asked, test)
    for folder in plans:
        generator.load(folder)
    _check_protocol(asked.out / "protocol.json", protocol)
    _check_inputs(asked.out / "inputs.json", plans, asked)
    book = Book(asked.out / SCORES)
    for folder, plan in plans.items():
        score_run(folder, plan, test, protocol, asked, book)
    lines = list(table(book.found))
    groups = {(key.dataset, key.run, key.epsilon, key.num_samples, key.metric) for key in book.found}
    if left := len(groups) - len(lines):
        print(f"notice: noise.csv lacks {left} lines: not every seed of these has the same draws and evaluations,"
              " two of each at least", file=sys.stderr)  # fmt: skip
    write_csv(asked.out / "noise.csv", COLUMNS, lines)
    write_json(asked.out / "provenance.json", {**provenance(), "threads": asked.threads})


if __name__ == "__main__":
    raise SystemExit(main())
