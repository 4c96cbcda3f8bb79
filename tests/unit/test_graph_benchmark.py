"""What the graph benchmark asks of Snakemake, and what it reads from the answer."""

from __future__ import annotations

import csv
import json

import pytest

from benchmarks import graph
from methods.core import registry
from workflow import datasets, presets
from workflow.common.errors import UserError

OUTPUT = """Job stats:
job          count
---------  -------
plan            31
train           31
total          180

rule train:
    output: results/quick/runs/mnist/total/run.json
"""


def test_the_largest_grid_has_forty_times_the_runs_of_the_smallest():
    counts = {}
    for times in graph.SIZES:
        asked = graph.arguments(times, "folder")
        overrides = dict(pair.split("=", 1) for pair in asked[asked.index("--config") + 1 :])
        config = presets.load(overrides, datasets=datasets.NAMES, methods=registry, protocol_keys=None)
        counts[times] = len(config.jobs)
    assert counts == {times: 31 * times for times in (1, 4, 16, 40)}


def test_the_jobs_of_a_dry_run_are_read_from_its_table():
    assert graph.planned(OUTPUT) == (31, 180)
    with pytest.raises(UserError, match="Nothing to be done"):
        graph.planned("Building DAG of jobs...\nNothing to be done.\n")


def test_the_command_writes_the_median_of_each_size(tmp_path, monkeypatch, capsys):
    seconds = iter([5.0, 3.0, 4.0])
    monkeypatch.setattr(graph, "measure", lambda times: graph.Size(times, 124, 645, next(seconds), 9.0, 300.0))
    graph.main(["--times", "4", "--repeats", "3", "--out", str(tmp_path / "graph.csv")])
    (row,) = csv.DictReader((tmp_path / "graph.csv").open())
    assert row == {
        "times": "4", "runs": "124", "jobs": "645", "seconds": "4", "waited": "9", "peak_memory_mib": "300",
    }  # fmt: skip
    assert json.loads((tmp_path / "provenance.json").read_text())["repeats"] == 3
    assert "645 jobs: 4.0 s, 300 MiB" in capsys.readouterr().out
