"""A record has its own row and moves no other's: in no use, whatever an earlier one has read.

The plan's sensitivity is that of one clipped row. Rows that depend on other records, as by batch norm, by the size of a
batch, by a mean of all records or by a sum that was kept, let one record move all of them, each by less than the clip
and so, in a short run, by less than the sensitivity together. So rows are compared one by one, and in every use.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import harness
import pytest
import torch
from recorded_runs import CASES, NAMES, SPEC, neighbour, read_by, run
from tape import Tape, Use
from torch.nn.functional import one_hot, softplus

from methods.core import registry
from methods.core.method import Context, Method, StepLog
from methods.core.privacy import dp_sgd
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import PublicSpec, Release
from workflow.common.settings import setting

# Of a row's length: what a network rounds otherwise where a batch has one record less.
ROUNDING = 1e-3
# So many that a record is hardly ever alone of its class: rows may know of those of their own class alone.
LARGER = {"batch_size": 24}


@pytest.fixture(scope="module", params=CASES, ids=NAMES)
def case(request: pytest.FixtureRequest) -> tuple[str, dict]:
    """A method and settings that differ from the smallest."""
    return request.param


def moved(one: Use, other: Use) -> int:
    """Returns how many rows of a use are other ones in a run on a neighbouring data set, a missing one included."""
    before, after = _rows(one), _rows(other)
    if len(before) == len(after):
        return int(_differ(before, after).sum())
    if len(before) != len(after) + 1:
        return len(before)
    # Those before the missing row and those behind it, of which each has moved up by one.
    first = int(_differ(before[:-1], after).long().cumsum(0).eq(0).sum())
    return 1 + int(_differ(before[first + 1 :], after[first:]).sum())


def stays(one: Use, other: Use) -> bool:
    """Returns whether a row that moves is there without its record too, as another one: that of a shard, of a teacher.

    Adding or removing a record then moves the sum by up to twice the clip, and no less than replacing it.
    """
    before, after = _rows(one), _rows(other)
    return len(before) == len(after) and bool(after[_differ(before, after)].any())


def _rows(use: Use) -> torch.Tensor | None:
    """Returns the rows that a use was given, [R, D], float64, the class at the end where rows have one.

    Those of DP-SGD are gradients before they are clipped. None where another library has summed rows.
    """
    rows = torch.cat(use.gradients) if use.gradients else use.rows
    if rows is None:
        return None
    rows = rows.double()
    return torch.cat([rows, use.classes[:, None].double()], 1) if use.release.bounded == "moments" else rows


def _differ(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Returns for each of two times R rows whether they differ by more than what is rounded, bool [R]."""
    length = torch.maximum(one.norm(dim=1), other.norm(dim=1))
    return ~((one - other).norm(dim=1) <= ROUNDING * length)


def chosen(tape: Tape) -> int:
    """Returns the record that is changed: the one with the longest row, in the first use where its class has others."""
    uses = [use for use in tape.uses if use.asked and len(read_by(use)) > 1]
    found = [_longest(use, tape) for use in uses or tape.uses[:1]]
    return next((record for record, others in found if others), found[0][0])


def _longest(use: Use, tape: Tape) -> tuple[int, int]:
    """Returns the record of a use with the longest row, and how many others of its class the use reads.

    Of uses whose rows are not those of records the one that the run reads most often: one in two parts would be it.
    """
    read = torch.cat(use.read).tolist() if use.read else []
    rows, classes = _rows(use), dict(zip(read, torch.cat(use.labels).tolist() if read else [], strict=True))
    if rows is not None and read and len(rows) >= len(read):
        # In DP-SGD, generated examples may follow them.
        record = read[int(rows[: len(read)].norm(dim=1).argmax())]
    else:
        record = max(sorted(read or tape.reads), key=tape.reads.__getitem__)
    return record, sum(classes[other] == classes[record] for other in classes if other != record)


def crowds(case: tuple[str, dict], folder: Path) -> list[str]:
    """Returns what moves, besides a record's own row, where a record is another or missing; answers stay the same."""
    name, overrides = case
    case = name, {key: value for key, value in LARGER.items() if key in registry.fields(name)} | overrides
    recorded = run(case, folder / "recorded")
    record = chosen(recorded.tape)
    without = any(release.adjacency == "add_or_remove" for release in recorded.releases)
    door = harness.Door(SPEC, **{"without" if without else "changed": record})
    tape = Tape(recorded.tape.answers, without=(len(door), record) if without else None)
    other = run(case, folder / "other", data=door, tape=tape)
    found = [] if len(other.tape.uses) == len(recorded.tape.uses) else ["the number of uses"]
    for number, (one, two) in enumerate(zip(recorded.tape.uses, other.tape.uses, strict=False)):
        release = one.release
        reads = record in read_by(one)
        if release.kind == "none" or not (one.asked and two.asked):
            continue
        if release.bounded != "function" and _rows(one) is not None and _rows(two) is not None:
            # A shard may remember the record from an earlier draw; that it is one shard: see test_drawn_apart.py.
            remembers = release.sampling == "all" or release.state == "hidden"
            count, most = moved(one, two), 1 if reads or remembers else 0
            found += [f"{count} rows of use {number}"] if count > most else []
            if without and count == 1 and stays(one, two):
                found.append(f"a row of use {number}, which stays without its record: declare replace_one")
        elif release.bounded != "function" or (release.sampling != "all" and release.state == "public" and not reads):
            # Summed by a library, or an answer that says something of the drawn records alone.
            change = float((one.exact.double() - two.exact.double()).norm())
            most = release.sensitivity if reads else 0.0
            found += [f"use {number}, by {change:g}"] if change > most + ROUNDING * release.clip else []
    return found


def test_a_record_moves_no_row_but_its_own(case: tuple[str, dict], tmp_path: Path) -> None:
    assert crowds(case, tmp_path) == [], (
        "a row must follow from its own record alone: not from other records, their number or their classes, nor from"
        " random numbers (of dropout or augmentation) that others shift when one is missing"
    )


# What it must find: a method that is clean but for what it does with its rows before they are clipped.


class Means(Method):
    """Learns the mean of each class by gradients of Poisson batches; a row is a record's gradient."""

    @dataclass(frozen=True)
    class Hyper:
        steps: int = setting(4, "steps", 1, 100)
        batch_size: int = setting(8, "expected records of a batch", 1, 1000)
        clip: float = setting(1.0, "L2 bound of a row", 1e-9, 1e6)

    adjacency: ClassVar[str] = "add_or_remove"

    def __init__(self, hp: Hyper, context: Context) -> None:
        super().__init__(hp, context)
        self.mean = torch.zeros(self.public.num_classes, torch.Size(self.public.image_shape).numel())
        self.kept = torch.zeros(self.mean.numel())

    @classmethod
    def releases(cls, hp: Hyper, public: PublicSpec, noise: float) -> tuple[Release, ...]:
        return (dataclasses.replace(dp_sgd.release("gradient", hp, public, noise), adjacency=cls.adjacency),)

    @property
    def num_steps(self) -> int:
        return self.hp.steps

    def prepare(self, data: PrivateData, ledger: Ledger, warm_start: Path | None = None) -> None:
        with ledger.internal("mean") as grant:
            self.average = data.read(grant, torch.arange(len(data)))[0].float().mean(0).flatten() / 255

    def step(self, t: int, data: PrivateData, ledger: Ledger) -> StepLog:
        with ledger.charge("gradient") as grant:
            images, labels = data.read(grant, grant.poisson_batch(len(data)))
            gradients = images.flatten(1) / 255 - self.mean[labels]
            rows = one_hot(labels, self.public.num_classes)[:, :, None] * gradients[:, None]
            noisy = grant.sum([self.change(rows.flatten(1))], self.mean.numel())
        self.mean = self.mean + noisy.view_as(self.mean).float() / self.hp.batch_size
        return {}

    def change(self, rows: torch.Tensor) -> torch.Tensor:
        return rows

    def sample(self, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        return (self.mean[labels].clamp(0, 1) * 255).to(torch.uint8).view(-1, *self.public.image_shape)

    def public_state(self) -> dict[str, torch.Tensor]:
        return {"mean": self.mean}


class LessTheirMean(Means):
    def change(self, rows):
        return rows - rows.mean(0) if len(rows) else rows


class ByTheLongest(Means):
    def change(self, rows):
        return rows / rows.norm(dim=1).max() if len(rows) else rows


class WithWhatAnEarlierUseRead(Means):
    def change(self, rows):
        before, self.kept = self.kept, 0.9 * self.kept + rows.sum(0)
        return rows + before


class LessTheMeanOfAll(Means):
    def change(self, rows):
        return rows - self.average.repeat(self.public.num_classes)


class ByTheirNumber(Means):
    def change(self, rows):
        return 1e-3 * rows / max(1, len(rows))


class ByTheirClass(Means):
    def change(self, rows):
        labels = rows.view(len(rows), self.public.num_classes, -1).abs().sum(2).argmax(1)
        return 1e-3 * rows / labels.bincount(minlength=self.public.num_classes)[labels, None]


def crowds_of(cls: type[Means], adjacency: str, folder: Path) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "load", lambda _: type(cls.__name__, (cls,), {"adjacency": adjacency}))
        return crowds(("means", {}), folder)


@pytest.mark.parametrize("adjacency", ["add_or_remove", "replace_one"])
def test_rows_of_their_own_records_alone_pass(adjacency: str, tmp_path: Path) -> None:
    assert crowds_of(Means, adjacency, tmp_path) == []


@pytest.mark.parametrize("adjacency", ["add_or_remove", "replace_one"])
@pytest.mark.parametrize(
    "cls", [LessTheirMean, ByTheLongest, WithWhatAnEarlierUseRead, LessTheMeanOfAll, ByTheirNumber, ByTheirClass]
)
def test_rows_that_know_of_other_records_are_found(cls: type[Means], adjacency: str, tmp_path: Path) -> None:
    # How many are drawn is the same where a record is another one, and not where it is missing.
    harmless = cls is ByTheirNumber and adjacency == "replace_one"
    assert (crowds_of(cls, adjacency, tmp_path) == []) is harmless


class Turned(Means):
    """Half of the images upside down: whether one is follows from its place among all records, and is public."""

    def step(self, t, data, ledger):
        turned = torch.rand(len(data), generator=torch.Generator().manual_seed(t)) < 0.5
        with ledger.charge("gradient") as grant:
            drawn = grant.poisson_batch(len(data))
            images, labels = data.read(grant, drawn)
            images = torch.where(self.which(turned, drawn)[:, None, None, None], images.flip(2), images)
            rows = one_hot(labels, self.public.num_classes)[:, :, None] * images.flatten(1)[:, None] / 255
            noisy = grant.sum([rows.flatten(1)], self.mean.numel())
        self.mean = self.mean + noisy.view_as(self.mean).float() / self.hp.batch_size
        return {}

    def which(self, turned, drawn):
        return turned[drawn]


class TurnedByPlaceInTheBatch(Turned):
    def which(self, turned, drawn):
        return turned[: len(drawn)]


def test_random_numbers_of_a_record_pass_and_those_of_a_place_in_the_batch_do_not(tmp_path: Path, monkeypatch) -> None:
    assert crowds_of(Turned, "add_or_remove", tmp_path / "own") == []
    assert crowds_of(TurnedByPlaceInTheBatch, "add_or_remove", tmp_path / "place") != []
    monkeypatch.setattr(registry, "load", lambda _: Turned)
    case = "means", {}
    recorded = run(case, tmp_path / "recorded")
    (release,) = recorded.releases
    use, other = neighbour(recorded, case, tmp_path / "other", release)
    assert 0 < float((use.exact - other).norm()) <= release.sensitivity * (1 + 1e-6)


class OfParts(Means):
    """One row for every ten records: their mean."""

    def step(self, t, data, ledger):
        with ledger.charge("sum") as grant:
            parts = [data.read(grant, part)[0] for part in torch.arange(len(data)).split(10)]
            rows = torch.stack([images.flatten(1).float().mean(0) / 255 for images in parts])
            self.mean = grant.sum([rows]).float().expand_as(self.mean) / len(rows)
        return {}

    @classmethod
    def releases(cls, hp, public, noise):
        return (Release(name="sum", kind="gaussian", clip=30.0, noise=noise, bounded="sum", rows=8, rate=1.0,
                        sampling="all", max_uses=hp.steps, adjacency=cls.adjacency),)  # fmt: skip


def test_a_part_s_row_is_refused_where_records_are_added_or_removed_alone(tmp_path: Path) -> None:
    assert crowds_of(OfParts, "replace_one", tmp_path / "replaced") == []
    assert "declare replace_one" in crowds_of(OfParts, "add_or_remove", tmp_path / "removed")[0]


# The same of DP-SGD, whose rows are gradients that one backward pass makes and sums.


def less_their_mean(cls: type[Method]) -> type[Method]:
    class Mutant(cls):
        def _examples(self, images, labels):
            rows = super()._examples(images, labels)
            return rows - rows.mean(0) if len(rows) else rows

    return Mutant


def with_losses(losses: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor]) -> Callable[[type], type]:
    """Returns what makes of dp_cgan a method of other losses."""

    def mutate(cls: type[Method]) -> type[Method]:
        class Mutant(cls):
            def private_step(self, t, data, ledger):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(sys.modules[cls.__module__], "_losses", losses)
                    return super().private_step(t, data, ledger)

        return Mutant

    return mutate


def by_the_deviation_of_all(network: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
    examples, real = rows[:, :-1], rows[:, -1]
    return softplus((1 - 2 * real) * network(examples + examples.std(0).mean())[:, 0])


def relative_to_the_others(network: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
    scores, real = network(rows[:, :-1])[:, 0], rows[:, -1] > 0
    means = [scores[which].mean() if which.any() else scores.new_zeros(()) for which in (real, ~real)]
    return softplus(torch.where(real, means[1] - scores, scores - means[0]))


@pytest.mark.parametrize(
    "mutate", [less_their_mean, with_losses(by_the_deviation_of_all), with_losses(relative_to_the_others)]
)
def test_gradients_that_know_of_other_records_are_found(mutate, tmp_path: Path, monkeypatch) -> None:
    mutant = mutate(registry.load("dp_cgan"))
    monkeypatch.setattr(registry, "load", lambda _: mutant)
    assert crowds(("dp_cgan", {}), tmp_path) != []
