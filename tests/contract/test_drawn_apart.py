"""What a use draws is one unit, a record or a shard, and what it answers knows of that unit's records alone.

With a public state it knows of those alone that this very use reads.

A draw counts as one only if which records a unit has is public, if no record is in two, and if nothing that has learned
from one unit answers for another: a network that all shards share, or shards that are dealt by the records' labels,
let each record into every use, whatever the plan says of rates.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path

import harness
import pytest
import torch
from recorded_runs import CASES, NAMES, SPEC, read_by, run
from tape import Tape, Use
from test_one_record_one_row import ROUNDING, crowds

from methods.core import registry
from methods.core.privacy.grant import Grant
from methods.core.release import Release
from methods.core.sharded.interface import Networks, Store


@pytest.fixture(scope="module", params=CASES, ids=NAMES)
def case(request: pytest.FixtureRequest) -> tuple[str, dict]:
    """A method and settings that differ from the smallest."""
    return request.param


def declared(case: tuple[str, dict]) -> tuple[Release, ...]:
    """Returns what a case's plan releases."""
    name, overrides = case
    return harness.plan(name, SPEC, harness.tiny(name, **overrides))[1]


def in_turn() -> Callable[[int], torch.Tensor]:
    """Returns what draws one unit a use, each in turn."""
    numbers = itertools.count()
    return lambda units: torch.tensor([next(numbers) % units])


def unit(use: Use) -> int | None:
    """Returns the unit that a use drew, one of several; None where it draws none."""
    return int(use.drawn[0][1]) if use.drawn and use.drawn[0][0] > 1 else None


def mixed(case: tuple[str, dict], folder: Path) -> list[str]:
    """Returns what units have to do with each other, where all records that the first one reads become others."""
    if all(release.sampling == "all" for release in declared(case)):
        return []
    recorded = run(case, folder / "recorded", tape=Tape(draw=in_turn()))
    drawing = [use for use in recorded.tape.uses if unit(use) is not None]
    if not drawing:
        return []
    door = harness.Door(SPEC, changed=sorted(read_by(drawing[0])) or None)
    other = run(case, folder / "other", data=door, tape=Tape(recorded.tape.answers, draw=in_turn()))
    found = []
    for number, (one, two) in enumerate(zip(recorded.tape.uses, other.tape.uses, strict=True)):
        if unit(one) in (None, unit(drawing[0])) or one.release.kind == "none" or not (one.asked and two.asked):
            continue
        if [read.tolist() for read in one.read] != [read.tolist() for read in two.read]:
            found.append(f"use {number} reads other records")
        change = float((one.exact.double() - two.exact.double()).norm())
        if change > ROUNDING * one.release.clip:
            found.append(f"use {number} answers otherwise, by {change:g}")
    units = defaultdict(set)
    for use in drawing:
        for record in read_by(use):
            units[record].add(unit(use))
    return found + [f"record {record} is in units {sorted(those)}" for record, those in units.items() if len(those) > 1]


def test_a_unit_answers_from_its_own_records_alone(case: tuple[str, dict], tmp_path: Path) -> None:
    assert mixed(case, tmp_path) == [], (
        "units must have the same records whatever these are, no record twice, and share nothing that learns from them"
    )


class OnceOthers:
    """Records that are others in all internal reads and under the first charge, and the usual ones from then on."""

    def __init__(self) -> None:
        self.usual, self.others, self.first = harness.Door(SPEC), harness.Door(SPEC, seed=1), None

    def __len__(self) -> int:
        return len(self.usual)

    def read(self, grant: Grant, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.first = self.first or (grant if grant.release else None)
        return (self.others if grant.release is None or grant is self.first else self.usual).read(grant, index)


def remembered(case: tuple[str, dict], folder: Path) -> list[str]:
    """Returns the uses of releases with public state whose answer follows from what was read before them."""
    if all(release.sampling == "all" or release.state == "hidden" for release in declared(case)):
        return []
    recorded = run(case, folder / "recorded")
    drawing = [use.release.sampling != "all" and use.release.state == "public" for use in recorded.tape.uses]
    other = run(case, folder / "other", data=OnceOthers(), tape=Tape(recorded.tape.answers))
    found = []
    for number, (one, two) in enumerate(zip(recorded.tape.uses, other.tape.uses, strict=True)):
        if not number or not drawing[number] or one.release.kind == "none" or not (one.asked and two.asked):
            continue
        change = float((one.exact.double() - two.exact.double()).norm())
        if change > ROUNDING * one.release.clip:
            found.append(f"use {number}, by {change:g}")
    return found


def test_of_public_state_a_use_answers_from_what_it_reads_alone(case: tuple[str, dict], tmp_path: Path) -> None:
    assert remembered(case, tmp_path) == [], "what remembers earlier records is not public: declare state hidden"


# What they must find.


class OneForAll:
    """A store of networks that gives every shard the first one's."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def take(self, shards: object) -> Networks:
        return self.store.take(0)

    def put(self, shards: object, networks: Networks) -> None:
        self.store.put(0, networks)


def with_one_critic(cls: type) -> type:
    class Mutant(cls):
        def make_networks(self, warm_start=None):
            super().make_networks(warm_start)
            self.critics = OneForAll(self.critics)

    return Mutant


def dealt_by(deal: Callable[[torch.Tensor, int], torch.Tensor]) -> Callable[[type], type]:
    """Returns what makes of a sharded GAN one whose shards follow from labels int64 [N] and their number."""

    def mutate(cls: type) -> type:
        class Mutant(cls):
            def prepare(self, data, ledger, warm_start=None):
                with ledger.internal("labels") as grant:
                    labels = data.read(grant, torch.arange(len(data)))[1]
                self.mechanism.shards = deal(labels, self.hp.num_shards)
                super().prepare(data, ledger, warm_start)

        return Mutant

    return mutate


def by_class(labels: torch.Tensor, shards: int) -> torch.Tensor:
    return labels.argsort(stable=True).view(shards, -1)


def class_by_class(labels: torch.Tensor, shards: int) -> torch.Tensor:
    return labels.argsort(stable=True).view(-1, shards).T


def with_replacement(labels: torch.Tensor, shards: int) -> torch.Tensor:
    return torch.randint(len(labels), (shards, len(labels) // shards), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "mutate",
    [with_one_critic, dealt_by(by_class), dealt_by(class_by_class), dealt_by(with_replacement)],
    ids=["one critic", "by class", "class by class", "with replacement"],
)
def test_units_that_are_mixed_are_found(mutate: Callable[[type], type], tmp_path: Path, monkeypatch) -> None:
    mutant = mutate(registry.load("gs_wgan"))
    monkeypatch.setattr(registry, "load", lambda _: mutant)
    assert mixed(("gs_wgan", {"warm_start_steps": 0}), tmp_path) != []


@pytest.mark.parametrize("mutate", [dealt_by(by_class), dealt_by(class_by_class), dealt_by(with_replacement)])
def test_shards_of_a_poisson_draw_that_are_mixed_are_found(mutate, tmp_path: Path, monkeypatch) -> None:
    mutant = mutate(registry.load("gs_wgan"))
    monkeypatch.setattr(registry, "load", lambda _: mutant)
    assert mixed(("gs_wgan", harness.SOUND), tmp_path) != []


@pytest.mark.parametrize("warm_start_steps", [0, 1])
def test_critics_that_are_declared_public_are_found(warm_start_steps: int, tmp_path: Path, monkeypatch) -> None:
    class Mutant(registry.load("gs_wgan")):
        @classmethod
        def releases(cls, hp, public, noise):
            return tuple(dataclasses.replace(one, state="public") for one in super().releases(hp, public, noise))

    monkeypatch.setattr(registry, "load", lambda _: Mutant)
    assert remembered(("gs_wgan", {"warm_start_steps": warm_start_steps}), tmp_path) != []


@pytest.mark.parametrize("seed", range(3))
def test_a_shard_may_remember_a_record_that_it_does_not_read(seed: int, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(harness.Run, "__init__", partialmethod(harness.Run.__init__, seed=seed))
    assert crowds(("gs_wgan", harness.SOUND | {"num_shards": 4}), tmp_path) == []
