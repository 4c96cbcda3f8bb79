"""Which settings the tests of a plan and its privacy run a method with."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import harness
import pytest
from test_one_record_one_row import Means

from methods.core import registry
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
