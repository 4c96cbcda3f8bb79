"""The benchmark through a real Slurm of one node: what it submits, and what it does when a job is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.slurm import loopback, one_node

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory):
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="pip install -r requirements-slurm.txt")
    if why := one_node.lacking():
        pytest.skip(why)
    with one_node.running(tmp_path_factory.mktemp("daemons")) as name:
        yield name


def test_smoke_through_slurm_has_the_scores_of_a_local_call(node: str, tmp_path: Path) -> None:
    assert loopback.same(tmp_path, runs="", target=[]) == []


def test_a_killed_job_a_lost_node_and_a_time_limit_cost_nothing(node: str, tmp_path: Path) -> None:
    assert loopback.cases(tmp_path, node, steps=3000) == []
