"""Settings state what they may be, and one validator holds them to it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from workflow.common.errors import UserError, unknown
from workflow.common.settings import describe, parse, setting


@dataclass(frozen=True)
class Toy:
    steps: int = setting(10, "optimiser steps", 1)
    rate: float = setting(0.1, "learning rate", 0.001, 1)
    warm: bool = setting(False, "whether it starts warm")
    network: str = setting("mlp", "architecture", choices=("mlp", "cnn"))


def test_what_is_given_is_taken_and_the_rest_keeps_its_default():
    assert parse(Toy, {"rate": 1, "network": "cnn"}, "setting") == Toy(rate=1.0, network="cnn")
    assert isinstance(parse(Toy, {"rate": 1}, "setting").rate, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stpes": 1},
         "unknown hyper-parameter of toy 'stpes'; did you mean 'steps'? valid: network, rate, steps, warm"),
        ({"steps": 0}, "hyper-parameter toy.steps must be at least 1, got 0"),
        ({"steps": 1.5}, "hyper-parameter toy.steps must be of type int, got 1.5"),
        ({"steps": True}, "hyper-parameter toy.steps must be of type int, got True"),
        ({"warm": 1}, "hyper-parameter toy.warm must be of type bool, got 1"),
        ({"rate": 2.0}, "hyper-parameter toy.rate must be 0.001 to 1, got 2.0"),
        ({"rate": float("nan")}, "hyper-parameter toy.rate must be 0.001 to 1, got nan"),
        ({"network": "cn"}, "unknown hyper-parameter toy.network 'cn'; did you mean 'cnn'? valid: cnn, mlp"),
    ],
)
def test_what_a_setting_refuses_is_named_with_what_it_takes(values, message):
    with pytest.raises(UserError) as error:
        parse(Toy, values, "hyper-parameter", "toy")
    assert str(error.value) == message


def test_a_description_states_type_default_range_and_meaning():
    assert list(describe(Toy)) == [
        "steps (int, default 10, at least 1): optimiser steps",
        "rate (float, default 0.1, 0.001 to 1): learning rate",
        "warm (bool, default False): whether it starts warm",
        "network (str, default 'mlp', mlp or cnn): architecture",
    ]


def test_an_unknown_name_may_say_where_it_stands():
    error = unknown("data set", "mnits", ["mnist"], "add one", where="in quick.yaml")
    assert str(error) == "unknown data set 'mnits' in quick.yaml; did you mean 'mnist'? valid: mnist (add one)"
    assert str(unknown("run", "x", [])) == "unknown run 'x'; valid: none"
