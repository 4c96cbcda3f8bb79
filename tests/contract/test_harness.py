"""Which settings the tests of a plan and its privacy run a method with, and what records they hand it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace

import harness
import numpy
import pytest
import torch
from test_one_record_one_row import Means

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
