"""Settings state what they may be, and one validator holds them to it."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass

import pytest

from workflow.common.errors import UserError, unknown
from workflow.common.per_record import PerRecord
from workflow.common.settings import describe, parse, setting, stated
from workflow.grid import canonical


@dataclass(frozen=True)
class Toy:
    steps: int = setting(10, "optimiser steps", 1)
    rate: float = setting(0.1, "learning rate", 0.001, 1)
    warm: bool = setting(False, "whether it starts warm")
    network: str = setting("mlp", "architecture", choices=("mlp", "cnn"))


@dataclass(frozen=True)
class Grouped(Toy):
    boost: bool = setting(False, "whether there is a boost", group="boost")
    height: int = setting(3, "of the boost", 1, group="boost")


def test_a_group_of_settings_is_recorded_whole_or_where_none_is_chosen_not_at_all():
    assert stated(Grouped()) == stated(Toy()) == dataclasses.asdict(Toy())
    for chosen in (Grouped(boost=True), Grouped(height=4), Grouped(steps=11, boost=True, height=4)):
        assert stated(chosen) == dataclasses.asdict(chosen)


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
        ({"network": "cn"}, "hyper-parameter toy.network must be mlp or cnn, got 'cn'; did you mean 'cnn'?"),
    ],
)
def test_what_a_setting_refuses_is_named_with_what_it_takes(values, message):
    with pytest.raises(UserError) as error:
        parse(Toy, values, "hyper-parameter", "toy")
    assert str(error.value) == message


@dataclass(frozen=True)
class Sized:
    shards: int = setting(10, "parts of the records", 2, 50)
    width: float = setting(1.0, "a number", 0.5)
    name: str = setting("a", "a word", choices=("a", "b"))


@pytest.mark.parametrize(
    ("value", "records", "number"),
    [
        ({"one_per": 60}, 300, 5),
        ({"one_per": 60}, 359, 5),
        ({"one_per": 60, "at_least": 4, "at_most": 50}, 100, 4),
        ({"one_per": 60, "at_least": 4, "at_most": 50}, 1_000_000, 50),
        ({"one_per": 0.5, "at_most": 50}, 20, 40),
        (7, 300, 7),
    ],
)
def test_a_number_may_follow_the_records(value, records, number):
    found = parse(Sized, {"shards": value}, "setting", records=records).shards
    assert found == number and type(found) is int


def test_a_number_of_another_kind_becomes_that_kind():
    assert type(parse(Sized, {"width": {"one_per": 60}}, "setting", records=300).width) is float


def test_without_records_the_rule_stays_and_is_written_as_it_was_given():
    rule = {"one_per": 60, "at_least": 4}
    kept = parse(Sized, {"shards": rule}, "setting", per_record=True).shards
    assert kept == PerRecord(60, 4) and json.loads(canonical(kept)) == rule
    assert parse(Sized, {"shards": kept}, "setting", records=600).shards == 10
    again = dataclasses.asdict(Sized(shards=kept))["shards"]
    assert parse(Sized, {"shards": again}, "setting", records=600).shards == 10


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shards": {"one_per": 0}}, "setting toy.shards: one_per must be above 0, got 0"),
        ({"shards": {"one_per": "many"}}, "setting toy.shards: one_per must be a number, got 'many'"),
        ({"shards": {"one_per": True}}, "setting toy.shards: one_per must be a number, got True"),
        ({"shards": {"one_pre": 60}}, "unknown key 'one_pre'; did you mean 'one_per'?"),
        ({"shards": {"at_least": 4}}, "one_per is missing in"),
        ({"shards": {"one_per": 60, "at_least": 5, "at_most": 4}}, "at_least 5 lies above at_most 4"),
        ({"shards": {"one_per": 60, "at_least": 1}}, "at_least of setting toy.shards must be 2 to 50, got 1"),
        ({"shards": {"one_per": 60, "at_most": 51}}, "at_most of setting toy.shards must be 2 to 50, got 51"),
        ({"shards": {"one_per": 60, "at_least": 2.5}}, "at_least of setting toy.shards must be of type int, got 2.5"),
        ({"name": {"one_per": 60}}, "setting toy.name must be a or b, got {"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_before_the_records_are_known(values, message):
    with pytest.raises(UserError, match=re.escape(message)):
        parse(Sized, values, "setting", "toy", per_record=True)


def test_a_rule_whose_number_is_out_of_range_for_the_records_says_which_and_what_would_do():
    with pytest.raises(UserError) as error:
        parse(Sized, {"shards": {"one_per": 60}}, "setting", "toy", records=100)
    told = "setting toy.shards must be 2 to 50, got 1, one per 60 of 100 records; give at_least or at_most"
    assert str(error.value) == told


def test_settings_that_know_no_records_take_numbers_alone():
    with pytest.raises(UserError, match="setting shards must be of type int"):
        parse(Sized, {"shards": {"one_per": 60}}, "setting")


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
