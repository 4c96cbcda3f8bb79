"""Preset own: every run has a plan for every number of records, of classes, and every size it is made for."""

from __future__ import annotations

import math
from itertools import product

import pytest
from toys import shipped

from methods.core import registry
from methods.core.release import Budget, PublicSpec
from methods.core.runs.plan import Plan
from workflow.grid import Job

JOBS = {job.run: job for job in shipped("own").jobs}
RECORDS = (300, 500, 5_000, 60_000, 1_000_000)
SHAPES = tuple((colours, size, size) for colours, size in product((1, 3), (28, 32, 64)))


def public(records: int, classes: int = 2, shape: tuple[int, int, int] = (3, 64, 64)) -> PublicSpec:
    return PublicSpec("lesions", shape, classes, records)


def plan(job: Job, records: int, epsilon: float) -> Plan:
    budget = Budget(epsilon, 1e-7 if records > 100_000 else 1e-5, job.accounting)
    return Plan.make(job.method, job.run, job.hyper, public(records), budget, job.seed)


def test_the_user_gives_the_data_sets_and_every_run_is_sound():
    assert {job.accounting for job in JOBS.values()} == {"sound", "none"}
    assert {job.epsilon for job in JOBS.values()} == {10.0, math.inf}
    assert {job.method for job in JOBS.values()} == set(registry.names())


@pytest.mark.parametrize("run", JOBS)
def test_every_method_takes_every_shape_and_number_of_classes(run):
    job = JOBS[run]
    for records, classes, shape in product(RECORDS, (2, 10, 100), SHAPES):
        spec = public(records, classes, shape)
        registry.load(job.method).check(registry.hyper(job.method, job.hyper, records), spec)


# Calibrations of seconds.
LONG = {(run, RECORDS[-1]) for run in ("dp_cgan", "dp_sinkhorn", "dpgan")}
ENDS = [
    pytest.param(*case, marks=[pytest.mark.slow] if case in LONG else [])
    for case in product(JOBS, (RECORDS[0], RECORDS[-1]))
]


@pytest.mark.parametrize(("run", "records"), ENDS)
def test_the_smallest_and_the_largest_set_have_a_plan_that_epsilon_one_pays_for(run, records):
    job = JOBS[run]
    assert plan(job, records, min(job.epsilon, 1.0) if job.accounting == "sound" else math.inf).releases


# Ends of the usual sizes; those between cost a calibration each.
SIZES = [RECORDS[1:4:2], pytest.param(RECORDS[1:4], marks=pytest.mark.slow)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("run", sorted(set(JOBS) - {"nonprivate"}))
def test_more_records_need_no_more_noise_for_each_of_them(run, sizes):
    """At the preset's epsilon: what reaches the generator gets clearer as records are added, or stays as it is."""
    job = JOBS[run]
    shares = []
    for records in sizes:
        made = plan(job, records, 10.0)
        release = made.releases[-1]
        one_release = {"dp_gauss": records, "dp_merf": records, "dp_ntk": records}
        # Its last release are steps of a classifier, that a tenth of the records join.
        one_release["dpac_scatter"] = records / 10
        units = (one_release | {"dp_cgan": 0, "dpgan": 0, "dp_sinkhorn": 1}).get(job.method)
        if units is None:
            units = getattr(made.hyper, "num_teachers", None) or made.hyper.shards_per_step
        shares.append(release.scale / (units or made.hyper.batch_size))
    assert shares == sorted(shares, reverse=True)
