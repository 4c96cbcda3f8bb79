"""Preset own: every run has a plan for every number of records, of classes, and every size it is made for."""

from __future__ import annotations

import math
import re
from itertools import product
from pathlib import Path

import pytest
from toys import shipped

from methods.core import registry
from methods.core.release import Budget, PublicSpec
from methods.core.runs.configured import configured
from methods.core.runs.plan import Plan
from workflow.common.errors import UserError
from workflow.grid import Job

JOBS = {job.run: job for job in shipped("own").jobs}
RECORDS = (300, 500, 5_000, 60_000, 1_000_000)
LEAST = 64
ROOT = Path(__file__).resolve().parents[2]
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


def test_the_page_names_the_rows_that_cannot_be_released():
    page = " ".join((ROOT / "docs/your-own-images.md").read_text().split())
    but = re.search(r"Each of the rows in `workflow/config/own.yaml` can be released(.*?)\.(?= |$)", page)[1]
    refused = set()
    for run in JOBS:
        try:
            configured(run, "lesions", "own", None)
        except UserError:
            refused.add(run)
    assert set(re.findall(r"`(\w+)`", but)) == refused


def least(run: str) -> int:
    """Returns the fewest training records that a row takes."""
    job = JOBS[run]
    for records in range(LEAST, 0, -1):
        try:
            registry.load(job.method).check(registry.hyper(job.method, job.hyper, records), public(records))
        except UserError as error:
            assert f"at most {records}, the training records" in str(error)
            return records + 1
    return 1


def test_fewer_records_than_it_was_made_for_are_taken_as_the_pages_say():
    header = " ".join((ROOT / "workflow/config/own.yaml").read_text().split("preset:")[0].replace("#", "").split())
    page = " ".join((ROOT / "docs/your-own-images.md").read_text().split())
    table = (ROOT / "docs/running.md").read_text()
    made_for = f"made for {RECORDS[0]} to {RECORDS[-1]:,}"
    assert all(made_for in text for text in (header, page, table))
    assert f"Every row takes {LEAST} records and more" in header and f"every row takes {LEAST} and more" in page
    needs = {run: least(run) for run in JOBS}
    assert max(needs.values()) == needs.pop("dp_cgan") == LEAST
    others = needs.pop("dpgan"), needs["gs_wgan_sound"]
    assert "(`dp_cgan` needs {}, `dpgan` {}, the GANs of shards {})".format(LEAST, *others) in page
    assert max(needs.values()) == needs["gs_wgan_sound"] == needs["dpac_sound"]


@pytest.mark.parametrize("run", JOBS)
def test_every_method_takes_every_shape_and_number_of_classes(run):
    job = JOBS[run]
    for records, classes, shape in product((LEAST, *RECORDS), (2, 10, 100), SHAPES):
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
