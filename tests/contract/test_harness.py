"""Which settings the tests of a plan and its privacy run a method with, and what records they hand it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partialmethod
from types import SimpleNamespace

import harness
import numpy
import pytest
import torch
from recorded_runs import differences, replayed, run
from test_one_record_one_row import Means
from test_plan_and_behaviour import (
    test_one_record_moves_an_answer_by_at_most_the_declared_sensitivity as _record_moves_an_answer,
)

from methods.core import registry
from methods.core.privacy.grant import Grant
from methods.core.privacy.noise import NoiseSource
from workflow.common.errors import UserError
from workflow.common.settings import setting


@dataclasses.dataclass(frozen=True)
class Hyper(Means.Hyper):
    centred: bool = setting(False, "rows less their mean")
    law: str = setting("normal", "of what is drawn", choices=("normal", "uniform", "none"))


class Switched(Means):
    Hyper = Hyper

    @classmethod
    def check(cls, hp, public):
        if hp.law == "none":
            raise UserError("it needs a law")


def test_a_new_method_is_run_with_each_switch_and_each_choice_that_it_takes(monkeypatch) -> None:
    monkeypatch.setattr(registry, "load", lambda _: Switched)
    assert harness.variants("switched") == [{"centred": True}, {"law": "uniform"}]


@pytest.mark.parametrize("broken", [SimpleNamespace(), None])
def test_a_method_that_cannot_be_read_keeps_no_other_from_its_tests(broken, monkeypatch) -> None:
    monkeypatch.setattr(registry, "load", lambda _: broken)
    assert harness.variants("broken") == []


@pytest.mark.parametrize("form", [list, torch.tensor, numpy.array])
def test_a_missing_record_is_missing_however_it_is_asked_for(form: Callable) -> None:
    spec, grant = harness.public("grey"), Grant(None, NoiseSource(b""), 1)
    images, labels = harness.Door(spec, without=5).read(grant, form([4, 5, 6]))
    whole = harness.Door(spec).read(grant, [4, 6])
    assert torch.equal(images, whole[0]) and torch.equal(labels, whole[1])


@pytest.mark.parametrize(("name", "seed"), [("pate_gan", 3), ("pate_gan", 4), ("dp_cgan", 5)])
def test_a_record_that_moves_no_vote_and_a_batch_without_records_are_passed_over(name, seed, tmp_path, monkeypatch):
    monkeypatch.setattr(harness.Run, "__init__", partialmethod(harness.Run.__init__, seed=seed))
    recorded = run((name, {}), tmp_path / "recorded")
    _record_moves_an_answer(recorded, (name, {}), tmp_path)


class Undefined(Means):
    def step(self, t, data, ledger):
        return super().step(t, data, ledger) | {"loss": float("nan")}


def test_a_log_of_what_is_no_number_yet_is_the_same_one(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(registry, "load", lambda _: Undefined)
    recorded = run(("undefined", {}), tmp_path / "one")
    assert differences(recorded, replayed(recorded, ("undefined", {}), tmp_path / "two")) == []
