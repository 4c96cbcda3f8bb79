"""A record has its own row and moves no other's: in no use, whatever an earlier one has read.

The plan's sensitivity is that of one clipped row. Rows that depend on other records, as by batch norm, by the size of a
batch, by a mean of all records or by a sum that was kept, let one record move all of them, each by less than the clip
and so, in a short run, by less than the sensitivity together. So rows are compared one by one, and in every use.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import harness
import pytest
import torch
from tape import Tape, Use
from test_plan_and_behaviour import CASES, NAMES, SPEC, read_by, run
from torch.nn.functional import one_hot

from methods.core import registry
from methods.core.method import Context, Method, StepLog
from methods.core.privacy import dp_sgd
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import PublicSpec, Release
from workflow.common.settings import setting

# Of a row's length: what a network rounds otherwise where a batch has one record less.
ROUNDING = 1e-3


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


def _rows(use: Use) -> torch.Tensor:
    """Returns the rows that a use was given: [R, D], float64, the class at the end where rows have one."""
    rows = use.rows.double()
    return torch.cat([rows, use.classes[:, None].double()], 1) if use.release.bounded == "moments" else rows


def _differ(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Returns for each of two times R rows whether they differ by more than what is rounded, bool [R]."""
    length = torch.maximum(one.norm(dim=1), other.norm(dim=1))
    return ~((one - other).norm(dim=1) <= ROUNDING * length)


def chosen(tape: Tape) -> int:
    """Returns the record that is changed: of the first use that reads several the one with the longest row."""
    use = next((use for use in tape.uses if len(read_by(use)) > 1), tape.uses[0])
    read = torch.cat(use.read).tolist() if use.read else []
    rows = use.rows
    if rows is not None and len(rows) == len(read):
        return read[int(rows.double().flatten(1).norm(dim=1).argmax())]
    return max(sorted(read or tape.reads), key=tape.reads.__getitem__)


def crowds(case: tuple[str, dict], folder: Path) -> list[str]:
    """Returns what moves, besides a record's own row, where a record is another or missing; answers stay the same."""
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
        if release.bounded != "function" and one.rows is not None:
            count, most = moved(one, two), 1 if reads or release.sampling == "all" else 0
            found += [f"{count} rows of use {number}"] if count > most else []
        elif release.bounded != "function" or (release.sampling != "all" and release.state == "public" and not reads):
            # Summed by a library, or an answer that says something of the drawn records alone.
            change = float((one.exact.double() - two.exact.double()).norm())
            most = release.sensitivity if reads else 0.0
            found += [f"use {number}, by {change:g}"] if change > most + ROUNDING * release.clip else []
    return found


def test_a_record_moves_no_row_but_its_own(case: tuple[str, dict], tmp_path: Path) -> None:
    assert crowds(case, tmp_path) == []


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


def crowds_of(cls: type[Means], adjacency: str, folder: Path) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "load", lambda _: type(cls.__name__, (cls,), {"adjacency": adjacency}))
        return crowds(("means", {}), folder)


@pytest.mark.parametrize("adjacency", ["add_or_remove", "replace_one"])
def test_rows_of_their_own_records_alone_pass(adjacency: str, tmp_path: Path) -> None:
    assert crowds_of(Means, adjacency, tmp_path) == []


@pytest.mark.parametrize("adjacency", ["add_or_remove", "replace_one"])
@pytest.mark.parametrize(
    "cls", [LessTheirMean, ByTheLongest, WithWhatAnEarlierUseRead, LessTheMeanOfAll, ByTheirNumber]
)
def test_rows_that_know_of_other_records_are_found(cls: type[Means], adjacency: str, tmp_path: Path) -> None:
    # How many are drawn is the same where a record is another one, and not where it is missing.
    harmless = cls is ByTheirNumber and adjacency == "replace_one"
    assert (crowds_of(cls, adjacency, tmp_path) == []) is harmless
