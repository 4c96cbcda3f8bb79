"""The presets that are shipped: each is valid against the methods, data sets and evaluation settings that exist."""

from __future__ import annotations

import dataclasses
import math

import pytest

from evaluation.protocol import Protocol
from methods.core import registry
from methods.core.plan import make_plan
from methods.core.privacy import Budget, PublicSpec
from workflow import datasets
from workflow.common import config
from workflow.common.errors import UserError


class Methods:
    names = staticmethod(registry.names)
    check = staticmethod(registry.hyper)

    def fields(self, method):
        return [field.name for field in dataclasses.fields(registry.load(method).Hyper)]


def load(preset: str) -> config.Config:
    keys = [field.name for field in dataclasses.fields(Protocol)]
    return config.load({"preset": preset}, datasets=datasets.NAMES, methods=Methods(), protocol_keys=keys)


@pytest.mark.parametrize("preset", config.presets())
def test_a_shipped_preset_is_valid(preset):
    loaded = load(preset)
    assert loaded.preset == preset, "the name inside the file is the file's"
    Protocol(**loaded.protocol)
    for job in loaded.jobs:
        published = registry.paper_settings(job.method, job.dataset, job.epsilon) if job.paper else {}
        registry.hyper(job.method, {**published, **job.hyper})


def test_there_is_a_preset_for_each_purpose():
    assert set(config.presets()) >= {"smoke", "quick", "long", "paper"}


def test_smoke_needs_no_network():
    assert load("smoke").datasets == ("digits",)


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_epsilon_is_ten_or_none(preset):
    assert {job.epsilon for job in load(preset).jobs} == {10.0, math.inf}


def test_long_adds_epsilon_one():
    assert {job.epsilon for job in load("long").jobs} == {10.0, 1.0, math.inf}


@pytest.mark.parametrize("preset", ["quick", "long", "paper", "smoke"])
def test_one_run_alone_exceeds_its_budget_and_is_refused_without_its_opt_in(preset):
    jobs = [job for job in load(preset).jobs if job.over_budget]
    assert {job.run for job in jobs} == {"dpac_as_released"}
    job = jobs[0]
    published = registry.paper_settings(job.method, job.dataset, job.epsilon) if job.paper else {}
    public = PublicSpec(job.dataset, (1, 28, 28), 10, 60_000)
    settings = job.method, job.run, {**published, **job.hyper}, public
    plan = make_plan(*settings, Budget(job.epsilon, 1e-5, job.accounting, over_budget=True), job.seed)
    assert plan["accounting"] == "published" and plan["eps_sound"] > plan["eps_published"] > 1.2 * job.epsilon
    with pytest.raises(UserError, match="over_budget: true"):
        make_plan(*settings, Budget(job.epsilon, 1e-5, job.accounting), job.seed)


@pytest.mark.parametrize("preset", ["quick", "long", "paper"])
def test_the_ablations_of_table_4_run_on_fashion_mnist_alone(preset):
    found = {job.run: job.dataset for job in load(preset).jobs if "_wo_" in job.run}
    assert set(found) == {f"dpac_wo_{name}" for name in ("g2r", "r2g", "seq", "seq_mixed", "init")}
    assert set(found.values()) == {"fashion_mnist"}
