"""Each number of each method has two ends: outside it is refused when the plan is made, at them a run can begin."""

from __future__ import annotations

import dataclasses
import math

import harness
import pytest
import torch

from methods.core import registry
from methods.core.method import Method
from methods.core.release import Budget, PublicSpec
from methods.core.runs.plan import Plan
from methods.core.runs.rehearsal import rehearse
from methods.core.runs.warm_start import wanted
from workflow.common.errors import UserError

CPU = torch.device("cpu")
# The rest of a plan whose one number is at the end of its range: as small as may be.
LEAST = {
    "steps": 2, "batch_size": 2, "teacher_network": "mlp", "top_k": 1, "projected": 1, "warm_start_steps": 0,
    "generated": 2, "generator": "dcgan", "classifier_start": 0, "classifier_fake_steps": 1, "classifier_real_steps": 1,
    "fakes_per_class": 1, "released_batch": 3, "width": 2, "critic_width": 2, "generator_width": 2, "hidden": 2,
    "channels": 2, "features": 8, "dim": 2, "latent": 2, "num_shards": 2, "num_teachers": 2, "critic_batch": 2,
}  # fmt: skip
# What else must then be so, and why a number may end before its range does: see each method's `check`.
WITH = {
    "generator_every": lambda value: {"steps": max(2, value)},
    "shards_per_step": lambda value: {"num_shards": math.ceil(value), "spectral_norm": False} if value else {},
    "first_share": lambda value: {"splits": 0} if value == 1 else {},
    "top_k": lambda value: {"top_k": min(value, 784)},
    "projected": lambda value: {"projected": min(value, 784)},
}  # fmt: skip
FOLLOWING = ("batch_size", "num_shards", "num_teachers", "shards_per_step")


def numbers() -> list[tuple[str, dataclasses.Field]]:
    fields = [(name, field) for name in registry.names() for field in dataclasses.fields(registry.load(name).Hyper)]
    return [(name, field) for name, field in fields if str(field.type) in ("int", "float")]


NUMBERS = numbers()
IDS = [f"{name}.{field.name}" for name, field in NUMBERS]


FREE, PRIVATE = Budget(math.inf, 1e-5, "none"), Budget(10.0, 1e-5, "published")


def plan(name: str, field: str, value: float, budget: Budget = FREE) -> Plan:
    """Returns a plan for as many records as `value` needs, at the end of one number's range."""
    settings = harness.sizes(name, harness.TINY | LEAST) | {field: value} | WITH.get(field, lambda _: {})(value)
    records = max(60, math.ceil(value)) if field in FOLLOWING else 60
    return Plan.make(name, name, settings, PublicSpec("toy", (1, 28, 28), 10, records), budget, 0)


@pytest.mark.parametrize(("name", "field"), NUMBERS, ids=IDS)
def test_both_ends_are_stated_and_just_outside_is_refused(name: str, field: dataclasses.Field) -> None:
    low, high, kind = field.metadata["low"], field.metadata["high"], str(field.type)
    assert low is not None and high is not None and low <= high and low >= 0
    outside = [low - 1, high + 1] if kind == "int" else [math.nextafter(low, -1), math.nextafter(high, math.inf)]
    for value in [*outside, -1, -1e-300, 1e300, math.nan, math.inf, -math.inf, 10**400, -(10**5000)]:
        with pytest.raises(UserError, match=rf"{name}\.{field.name} must be") as refusal:
            registry.hyper(name, {field.name: value})
        assert len(str(refusal.value)) < 300


def test_the_smallest_values_all_together_are_planned_and_rehearsed(name: str) -> None:
    fields = {field.name: field.metadata["low"] for other, field in NUMBERS if other == name}
    # Of two weights one must be above 0.
    fields |= {"critic_weight": 1.0} if "critic_weight" in fields else {}
    settings = harness.sizes(name, LEAST) | fields
    rehearse(Plan.make(name, name, settings, PublicSpec("toy", (1, 28, 28), 10, 60), FREE, 0), CPU)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "field"), NUMBERS, ids=IDS)
@pytest.mark.parametrize("end", ["low", "high"])
def test_either_end_is_planned_with_its_noise_and_rehearsed(name: str, field: dataclasses.Field, end: str) -> None:
    if (name, field.name, end) == ("nonprivate", "shards_per_step", "high"):
        pytest.skip("it draws no shards")
    one = plan(name, field.name, field.metadata[end], FREE if name == "nonprivate" else PRIVATE)
    if wanted(one) is None:
        rehearse(one, CPU)


def test_a_method_says_what_it_rehearses_in_sizes_of_its_own(name: str) -> None:
    cls: type[Method] = registry.load(name)
    hp = registry.hyper(name, harness.sizes(name))
    tried = cls.rehearsal(hp)
    cls.check(tried, PublicSpec("toy", (1, 28, 28), 10, 60))
    sizes = {"batch_size", "width", "hidden", "channels", "latent", "features", "dim", "num_shards", "num_teachers"}
    for field in dataclasses.fields(hp):
        if field.name in sizes:
            assert getattr(tried, field.name) == getattr(hp, field.name)
