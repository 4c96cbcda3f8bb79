"""The time left is read from expected costs, corrected by what has been measured."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from workflow import progress as progress_module
from workflow.common.durations import describe, steps_in
from workflow.common.live import STOPPED, Live, live_path, tell
from workflow.common.run_states import CALL, own_call
from workflow.progress import Progress, job_name, line, measured_seconds
from workflow.schedule import Schedule, Task


def test_before_anything_ends_the_work_is_shared_by_the_slots():
    tasks = {number: Task(60.0) for number in range(4)}
    assert Schedule(tasks, slots=2).seconds_left(0.0) == pytest.approx(120.0)


def test_a_chain_of_jobs_cannot_be_shared():
    tasks = {1: Task(100.0), 2: Task(100.0, frozenset({1})), 3: Task(10.0)}
    assert Schedule(tasks, slots=2).seconds_left(0.0) == pytest.approx(200.0)


def test_time_already_spent_on_a_running_job_is_taken_off():
    assert Schedule({1: Task(100.0, started=0.0)}, slots=1).seconds_left(30.0) == pytest.approx(70.0)


def test_an_overdue_job_is_not_reported_as_done():
    assert Schedule({1: Task(100.0, started=0.0)}, slots=1).seconds_left(500.0) == pytest.approx(50.0)
    assert Schedule({1: Task(100.0, started=0.0)}, slots=1).seconds_left(99.0) == pytest.approx(10.0)


def after(schedule: Schedule, *took: float) -> Schedule:
    """Lets the first jobs of a schedule end, each after so many seconds."""
    for key, seconds in enumerate(took):
        schedule.start(key, 0.0)
        schedule.end(key, seconds)
    return schedule


def test_a_slower_machine_lengthens_what_is_left():
    tasks = [Task(1000.0, rule="train", kind="dpac"), Task(100.0, rule="utility")]
    assert after(Schedule(dict(enumerate(tasks)), slots=1), 3000.0).seconds_left(3000.0) == pytest.approx(300, rel=0.02)


def test_once_jobs_of_a_rule_and_kind_have_ended_the_presets_seconds_no_longer_count():
    alike = [Task(100.0, rule="utility") for _ in range(3)]
    assert after(Schedule(dict(enumerate(alike)), slots=1), 7.0, 9.0).seconds_left(9.0) == 8.0


def test_a_method_that_has_not_ended_follows_the_pace_of_its_rule_and_not_of_others():
    tasks = [Task(1000.0, rule="train", kind="a"), Task(1000.0, rule="utility"), Task(500.0, rule="train", kind="b")]
    left = after(Schedule(dict(enumerate(tasks)), slots=1), 2000.0, 10.0).seconds_left(0.0)
    assert left == pytest.approx(1000.0, rel=0.02)


def test_no_job_is_split_between_cores():
    """Three equal jobs take two cores twice as long as one job, not one and a half times."""
    assert Schedule({number: Task(60.0) for number in range(3)}, slots=2).seconds_left(0.0) == 120.0


def test_a_job_of_two_threads_leaves_no_core_to_another():
    assert Schedule({1: Task(60.0, threads=2), 2: Task(30.0)}, slots=2).seconds_left(0.0) == 90.0
    assert Schedule({1: Task(60.0, threads=8)}, slots=2).seconds_left(0.0) == 60.0


def test_what_snakemake_begins_first_decides_how_the_cores_fill():
    """The short ones first: the long one then runs alone at the end."""
    tasks = {1: Task(100.0), **{number: Task(10.0, priority=9) for number in range(2, 12)}}
    assert Schedule(tasks, slots=2).seconds_left(0.0) == 150.0


def test_jobs_behind_a_failed_one_are_not_waited_for():
    tasks = {1: Task(10.0), 2: Task(50.0, frozenset({1})), 3: Task(50.0, frozenset({2})), 4: Task(20.0)}
    schedule = Schedule(tasks, slots=1)
    schedule.start(1, 0.0)
    schedule.fail(1, 5.0)
    assert schedule.seconds_left(5.0) == 20.0 and schedule.failed == 1 and schedule.done == 0
    schedule.start(1, 6.0)
    assert schedule.seconds_left(6.0) == 130.0 and schedule.failed == 0


def test_a_running_training_is_asked_and_one_with_a_checkpoint_is_half_done(tmp_path):
    schedule = Schedule({1: Task(1000.0, folder=tmp_path)}, slots=1)
    tell(tmp_path, Live(step=50, steps=200, rate=0.5, state=STOPPED))
    assert schedule.seconds_left(0.0) == 750.0
    schedule.start(1, 0.0)
    assert schedule.seconds_left(10.0) == 990.0
    tell(tmp_path, Live(step=60, steps=200, rate=0.5))
    assert schedule.seconds_left(10.0) == 280.0
    live_path(tmp_path).write_text("{half of")
    assert schedule.seconds_left(10.0) == 990.0


def test_the_line_counts_steps_and_names_what_runs():
    tasks = {1: Task(60.0, started=0.0, ended=60.0), 2: Task(600.0, name="train mnist dpac", started=60.0)}
    text = line(Schedule(tasks, slots=2), elapsed=60.0, now=60.0)
    assert text == "progress: 1/2 steps, 60 s elapsed, about 10 min left; running train mnist dpac"
    tasks[2].ended, tasks[2].failed = 70.0, True
    assert line(Schedule(tasks, slots=2), 70.0, 70.0) == "progress: 1/2 steps, 1 failed, 70 s elapsed, about 0 s left"


def test_where_nobody_knows_what_is_left_the_line_says_nothing_of_it():
    text = line(Schedule({1: Task(5.0, name="train", started=0.0)}, 1), 60.0, 60.0, float("inf"))
    assert text == "progress: 0/1 steps, 60 s elapsed; running train"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (89, "89 s"), (720, "12 min"), (12_000, "3 h 20 min")])
def test_durations_are_written_for_people(seconds, text):
    assert describe(seconds) == text


@pytest.mark.parametrize(
    ("steps", "seconds", "text"),
    [(1, 0.004, "1 step in less than 1 s"), (0, 3.0, "0 steps in 3 s"), (40, 61.4, "40 steps in 61 s")],
)
def test_steps_are_counted_for_people(steps, seconds, text):
    assert steps_in(steps, seconds) == text


def test_a_job_is_named_by_its_rule_and_wildcards():
    named = job_name("train", {"dataset": "mnist", "run": "dpac", "epsilon": "10", "seed": "0"})
    assert named == "train mnist dpac eps10 seed0"


class Job(SimpleNamespace):
    """As Snakemake's, a job is equal to itself alone."""

    __eq__, __hash__ = object.__eq__, object.__hash__


def a_job(rule: str, folder, **wildcards: str) -> Job:
    """What Progress asks of a job of Snakemake."""
    return Job(
        rule=SimpleNamespace(name=rule), wildcards=SimpleNamespace(**wildcards), wildcards_dict=wildcards, threads=1,
        priority=0, output=[str(folder / "run.json")], benchmark=folder / "b.tsv",
    )  # fmt: skip


TRAINING_COSTS = {"train": {"dpac": 300, "dp_merf": 60}, "utility": 20}


def test_the_preset_says_what_is_expected_until_the_same_job_has_been_measured(tmp_path):
    progress, job = Progress(TRAINING_COSTS, lambda wildcards: wildcards.run), a_job("train", tmp_path, run="dpac")
    task = progress.task(job)
    assert (task.seconds, task.kind, task.measured, task.folder) == (300, "dpac", None, tmp_path)
    (tmp_path / "b.tsv").write_text("s\th:m:s\n12.5\t0:00:12\n")
    assert progress.task(job).measured == 12.5
    # It was resumed: Snakemake measured the end of it alone.
    (tmp_path / "run.json").write_text('{"train_seconds": 80.5}')
    assert progress.task(job).measured == 80.5


def test_a_method_without_a_configured_cost_counts_as_the_longest(tmp_path):
    progress = Progress(TRAINING_COSTS, lambda wildcards: wildcards.run)
    assert progress.task(a_job("train", tmp_path, run="foo")).seconds == 300
    assert progress.task(a_job("utility", tmp_path)).seconds == 20
    assert progress.task(a_job("scores_tables", tmp_path)).seconds == 5


@pytest.mark.parametrize("content", [None, "", "s\n", "s\nnothing\n", "x\n1\n"])
def test_a_missing_or_broken_measurement_is_no_measurement(tmp_path, content):
    path = tmp_path / "b.tsv"
    if content is not None:
        path.write_text(content)
    assert measured_seconds(path) is None


class Clock:
    """Stands for the time, which passes only where it is told so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


def test_jobs_that_end_together_do_not_each_look_ahead_through_the_whole_graph(monkeypatch, capsys):
    clock, looks = Clock(), []
    monkeypatch.setattr(progress_module, "time", clock)
    progress = Progress({})
    progress.schedule = Schedule({number: Task(60.0) for number in range(100)}, slots=1)

    def looking(self: Schedule, now: float) -> float:
        looks.append(now)
        clock.now += 1.0
        return 600.0

    monkeypatch.setattr(Schedule, "seconds_left", looking)
    for _ in range(20):
        progress.report()
    assert len(looks) == 1
    # A look of a second may be taken again when fifty have passed; until then what it saw runs down.
    clock.now += 40.0
    progress.report()
    assert len(looks) == 1 and capsys.readouterr().err.splitlines()[-1].endswith("about 9 min left")
    clock.now += 10.0
    progress.report()
    assert len(looks) == 2


def test_the_last_job_always_says_that_nothing_is_left(monkeypatch, capsys):
    progress = Progress({})
    progress.schedule = Schedule({1: Task(60.0, started=0.0, ended=60.0)}, slots=1)
    progress.due, progress.left = float("inf"), 60.0
    progress.report()
    assert "1/1 steps" in (shown := capsys.readouterr().err) and "about 0 s left" in shown


def test_of_many_running_jobs_the_line_names_the_first():
    schedule = Schedule({number: Task(10, name=f"train run{number}", started=0) for number in range(11)}, 20)
    assert line(schedule, 1, 1).endswith("train run6, train run7 and 3 more")
    del schedule.tasks[10], schedule.tasks[9], schedule.tasks[8]
    assert line(schedule, 1, 1).endswith("train run6, train run7")


def test_the_steps_of_one_submission_begin_and_fail_together():
    progress = Progress({"plan": 2, "train": 100})
    progress.schedule = Schedule({number: Task(10) for number in range(3)}, 1)
    progress.emit(SimpleNamespace(event="group_info", jobs=[SimpleNamespace(jobid=0), SimpleNamespace(jobid=1)]))
    assert [task.started is not None for task in progress.schedule.tasks.values()] == [True, True, False]
    progress.emit(SimpleNamespace(event="group_error", job_error_info=[{"jobid": 0}, {"jobid": 1}, {"jobid": 7}]))
    assert progress.schedule.failed == 2


def test_of_what_a_preset_has_not_measured_no_seconds_are_told():
    progress = Progress({"train": {"dpac": 40}, "sample": 3}, lambda wildcards: wildcards)
    assert [progress.seconds("train", run) for run in ("dpac", "other")] == [40, 40]
    assert progress.seconds("sample", "") == 3
    assert progress.seconds("utility", "") is None


@pytest.mark.parametrize(
    ("cores", "jobs", "cluster", "said"),
    [
        (2, None, False, "about 2 min on 2 cores"),
        (2, 8, False, "about 2 min on 2 cores"),
        # `snakemake -n -j 3` has one core, and the call itself three.
        (1, 3, False, "about 80 s on 3 cores"),
        (1, 2**63 - 1, False, "about 40 s on 6 cores"),
        (1, None, False, "about 4 min on 1 core"),
        # Each submission has so many cores.
        (4, 3, True, "about 80 s with 3 at once"),
        (4, 2**63 - 1, True, "about 40 s with 6 at once"),
    ],
)
def test_a_dry_run_counts_with_what_the_call_itself_would_have(tmp_path, cores, jobs, cluster, said):
    made = {a_job("train", tmp_path, run="dpac"): number for number in range(6)}
    dag = SimpleNamespace(
        jobs=made, jobid=made.get, needrun_jobs=lambda exclude_finished: made, dependencies=dict.fromkeys(made, ())
    )
    settings = SimpleNamespace(use_threads=cluster)
    workflow = SimpleNamespace(dag=dag, cores=cores, nodes=jobs, execution_settings=settings)
    workflow.output_settings = SimpleNamespace(quiet=None)
    progress = Progress({"train": {"dpac": 40}}, lambda wildcards: wildcards.run)
    assert progress.expected(workflow) == f"expected: 6 steps, {said}"


def test_a_call_that_goes_on_tells_how_many_of_all_steps_are_its_own(tmp_path, monkeypatch, capsys):
    made = {a_job("train", tmp_path, run=name): number for number, name in enumerate("abc")}
    made[a_job("all", tmp_path)] = 3
    waiting = [job for job, number in made.items() if number]
    dag = SimpleNamespace(
        jobs=made, jobid=made.get, needrun_jobs=lambda exclude_finished: waiting, dependencies=dict.fromkeys(made, ())
    )
    workflow = SimpleNamespace(dag=dag, cores=1, nodes=None, local_exec=True, output_settings=SimpleNamespace(quiet=()))
    monkeypatch.setenv(CALL, "mine")
    progress = Progress({}, lambda wildcards: wildcards.run, str(tmp_path))
    progress.start(workflow)
    progress.stop()
    told = own_call(tmp_path)
    assert (told["steps"], told["all_steps"]) == (2, 3) and 0 <= time.time() - told["begun"] < 60
    monkeypatch.setenv(CALL, "another")
    assert own_call(tmp_path) == {}
