"""The time left is read from expected costs, corrected by what has been measured."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from workflow.progress import Progress, Schedule, Task, describe, job_name, line, measured_seconds


def test_before_anything_ends_the_work_is_shared_by_the_slots():
    tasks = {number: Task(60.0) for number in range(4)}
    assert Schedule(tasks, slots=2).seconds_left(0.0) == pytest.approx(120.0)


def test_a_chain_of_jobs_cannot_be_shared():
    tasks = {1: Task(100.0), 2: Task(100.0, frozenset({1})), 3: Task(10.0)}
    assert Schedule(tasks, slots=2).seconds_left(0.0) == pytest.approx(200.0)


def test_time_already_spent_on_a_running_job_is_taken_off():
    assert Schedule({1: Task(100.0, started=0.0)}, slots=1).seconds_left(30.0) == pytest.approx(70.0)


def test_an_overdue_job_is_not_reported_as_done():
    assert Schedule({1: Task(100.0, started=0.0)}, slots=1).seconds_left(500.0) == pytest.approx(10.0)


def test_a_slower_machine_lengthens_what_is_left():
    tasks = {1: Task(1000.0, started=0.0, ended=3000.0), 2: Task(100.0)}
    assert Schedule(tasks, slots=1).seconds_left(3000.0) == pytest.approx(300.0, rel=0.02)


def test_the_line_counts_steps_and_names_what_runs():
    tasks = {1: Task(60.0, started=0.0, ended=60.0), 2: Task(600.0, name="train mnist dpac", started=60.0)}
    text = line(Schedule(tasks, slots=2), elapsed=60.0, now=60.0)
    assert text == "progress: 1/2 steps, 60 s elapsed, about 10 min left; running train mnist dpac"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (89, "89 s"), (720, "12 min"), (12_000, "3 h 20 min")])
def test_durations_are_written_for_people(seconds, text):
    assert describe(seconds) == text


def test_a_job_is_named_by_its_rule_and_wildcards():
    named = job_name("train", {"dataset": "mnist", "run": "dpac", "epsilon": "10", "seed": "0"})
    assert named == "train mnist dpac eps10 seed0"


def test_an_earlier_calls_measurement_comes_before_the_configured_cost(tmp_path):
    job = SimpleNamespace(
        rule=SimpleNamespace(name="train"), wildcards=SimpleNamespace(run="dpac"), benchmark=tmp_path / "b.tsv"
    )
    progress = Progress({"train": {"dpac": 300, "dp_merf": 60}}, lambda wildcards: wildcards.run)
    assert progress.expected(job) == 300
    (tmp_path / "b.tsv").write_text("s\th:m:s\n12.5\t0:00:12\n")
    assert progress.expected(job) == 12.5


def test_a_method_without_a_configured_cost_counts_as_the_longest():
    job = SimpleNamespace(rule=SimpleNamespace(name="train"), wildcards=SimpleNamespace(run="foo"), benchmark=None)
    assert Progress({"train": {"dpac": 300, "dp_merf": 60}}, lambda w: w.run).expected(job) == 300


@pytest.mark.parametrize("content", [None, "", "s\n", "s\nnothing\n", "x\n1\n"])
def test_a_missing_or_broken_measurement_is_no_measurement(tmp_path, content):
    path = tmp_path / "b.tsv"
    if content is not None:
        path.write_text(content)
    assert measured_seconds(path) is None
