"""A run can be watched while it trains: log.csv grows, one line says how far it is, and its results stay the same."""

from __future__ import annotations

import io
import resource
import sys
import time
from dataclasses import asdict
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toys import CPU, TINY_GAN, TOY, Killed, killed_at, toy_records

from methods.core import registry
from methods.core.accounting.calibration import epsilon
from methods.core.release import Budget
from methods.core.runs import live_line, train
from methods.core.runs.live_line import LiveLine
from methods.core.runs.live_log import LiveLog, log_csv
from methods.core.runs.plan import Plan
from workflow.common import live
from workflow.common.files import write_json
from workflow.common.live import Live, hear
from workflow.common.rounding import up

PLAN = Plan.make("gs_wgan", "mine", TINY_GAN | {"steps": 6}, TOY, Budget(10.0, 1e-5, "published"), seed=0)


def steps(folder) -> list[str]:
    header, *rows = (folder / "log.csv").read_text().split("\n")
    assert header == "step,noisy_gradient_norm" and rows.pop() == ""
    return [row.partition(",")[0] for row in rows]


def killed(folder, monkeypatch, step: int, **named) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, "gs_wgan", step)
        train.train(PLAN, toy_records(), folder, CPU, **named)


def test_a_run_killed_half_way_has_whole_lines_of_every_step_and_says_how_far_it_was(tmp_path, monkeypatch):
    killed(tmp_path, monkeypatch, 4)
    assert steps(tmp_path) == ["0", "1", "2", "3"]
    told = hear(tmp_path)
    assert (told.step, told.steps, list(told.values)) == (4, 6, ["noisy_gradient_norm"])
    assert not told.is_alive(time.time())


def test_lines_of_steps_that_are_done_once_more_go_first_and_the_finished_file_is_the_straight_runs(
    tmp_path, monkeypatch
):
    straight, broken, seen = tmp_path / "straight", tmp_path / "broken", []
    train.train(PLAN, toy_records(), straight, CPU)
    killed(broken, monkeypatch, 2, checkpoint_seconds=0)
    # No checkpoint follows this kill's steps.
    killed(broken, monkeypatch, 5)
    cls = registry.load("gs_wgan")
    whole = cls.step

    def watched(self, t, data, ledger):
        seen.append(steps(broken))
        return whole(self, t, data, ledger)

    monkeypatch.setattr(cls, "step", watched)
    train.train(PLAN, toy_records(), broken, CPU)
    assert seen[-4:] == [["0", "1"], ["0", "1", "2"], ["0", "1", "2", "3"], ["0", "1", "2", "3", "4"]]
    assert (broken / "log.csv").read_bytes() == (straight / "log.csv").read_bytes()
    assert not live.live_path(broken).exists()


def test_a_name_that_comes_later_gets_its_column_at_once(tmp_path):
    log, rows = LiveLog(tmp_path / "log.csv"), []
    for row in ({"step": 0, "loss": 0.5}, {"step": 1, "loss": 0.25, "rank": 3}, {"step": 2, "rank": 4}):
        rows.append(row)
        log.show(rows)
        assert (tmp_path / "log.csv").read_text() == log_csv(rows)
    assert log_csv(rows) == "step,loss,rank\n0,0.5,\n1,0.25,3\n2,,4\n"


def test_a_disk_that_refuses_costs_a_reader_some_lines_and_the_run_nothing(tmp_path):
    place = tmp_path / "gone"
    place.write_text("a file where the run's folder was")
    log = LiveLog(place / "log.csv")
    log.show([{"step": 0}])
    live.tell(place, Live(1, 2))
    place.unlink()
    log.show([{"step": 0}, {"step": 1}])
    assert (place / "log.csv").read_text() == "step\n0\n1\n"


@pytest.fixture
def clock(monkeypatch):
    """The time that LiveLine sees."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(live_line, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_where_stderr_is_no_terminal_one_line_a_minute_says_it_all(tmp_path, clock, capsys):
    half = tuple(release.used(3) for release in PLAN.releases)
    ledger = SimpleNamespace(spent=lambda: half)
    with LiveLine(PLAN, tmp_path, 0, 600) as line:
        for step in range(1, 301):
            clock.now += 0.5
            line.ended(step, ledger, {"step": step - 1, "noisy_gradient_norm": -1.5} if step == 118 else None)
    first, second = capsys.readouterr().err.splitlines()
    spent = epsilon(half, 1e-5, "published")
    assert first == (
        "mine toy: step 120 of 600, noisy_gradient_norm -1.5, 2 steps/s, about 4 min left,"
        f" epsilon {up(spent, '.3g')} of 10 spent (published count)"
    )
    assert second.startswith("mine toy: step 240 of 600, noisy_gradient_norm -1.5, 2 steps/s, about 3 min left, ")
    assert hear(tmp_path).epsilon == pytest.approx(spent, rel=0.02)


def test_a_run_without_privacy_speaks_of_none(tmp_path, clock, capsys):
    plan = Plan.make("nonprivate", "nonprivate", {}, TOY, Budget(float("inf"), 1e-5, "none"), seed=0)
    with LiveLine(plan, tmp_path, 0, 10) as line:
        clock.now += 61
        line.ended(1, None, {"step": 0, "loss": float("nan")})
    assert capsys.readouterr().err == "nonprivate toy: step 1 of 10, loss nan, 61 s/step, about 9 min left\n"
    # JSON has no such number.
    assert hear(tmp_path).values == {}


def test_counting_epsilon_takes_a_hundredth_of_the_time_at_most(tmp_path, clock, monkeypatch):
    counted = []

    def slow(*_):
        counted.append(clock.now)
        clock.now += 3.0
        return 1.0

    monkeypatch.setattr(live_line.along, "spent", slow)
    with LiveLine(PLAN, tmp_path, 0, 1000) as line:
        for step in range(1, 700):
            clock.now += 1.0
            line.ended(step, SimpleNamespace(spent=tuple), None)
    assert [later - before for before, later in pairwise(counted)] == [300.0, 300.0]


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [(SystemExit(130), live.STOPPED, ""), (ValueError("no\nroom"), live.FAILED, "no room"),
     (MemoryError(), live.FAILED, "MemoryError")],
)  # fmt: skip
def test_how_a_run_ends_before_its_last_step_is_told(tmp_path, error, state, reason):
    with pytest.raises(type(error)), LiveLine(PLAN, tmp_path, 3, 6):
        assert hear(tmp_path).is_alive(time.time())
        raise error
    told = hear(tmp_path)
    assert (told.step, told.state, told.reason) == (3, state, reason) and not told.is_alive(time.time())


def test_a_run_tells_which_steps_its_checkpoint_keeps(tmp_path):
    with pytest.raises(KeyboardInterrupt), LiveLine(PLAN, tmp_path, 3, 6) as line:
        assert hear(tmp_path).checkpoint == 3
        line.ended(4, None, None)
        line.saved()
        assert (hear(tmp_path).step, hear(tmp_path).checkpoint) == (4, 4)
        line.ended(5, None, None)
        raise KeyboardInterrupt
    assert (hear(tmp_path).step, hear(tmp_path).checkpoint) == (5, 4)
    # A run of before told nothing of it.
    told = {**asdict(Live(5, 10, updated=1000.0, host="another", pid=1))}
    del told["checkpoint"]
    write_json(live.live_path(tmp_path), told)
    assert hear(tmp_path).checkpoint is None


def test_a_run_of_another_machine_is_taken_for_gone_once_it_is_silent():
    there = Live(5, 10, rate=1.0, updated=1000.0, host="another", pid=1)
    assert there.is_alive(1060.0) and not there.is_alive(1100.0)
    slow = Live(5, 10, rate=0.01, updated=1000.0, host="another", pid=1)
    assert slow.is_alive(1900.0) and not slow.is_alive(2100.0)


@pytest.mark.parametrize(
    "told",
    [{"step": 11}, {"pid": 2**40}, {"values": {"loss\x1b[2J": 1.0}}, {"checkpoint": 6}, {"checkpoint": "x"}],
    ids=["beyond the end", "no process", "an escape", "a checkpoint ahead", "a checkpoint in words"],
)
def test_what_no_run_can_have_told_is_nothing_told(tmp_path, told):
    whole = {**asdict(Live(5, 10, rate=1.0, updated=1000.0, host="another", pid=1)), **told}
    write_json(live.live_path(tmp_path), whole)
    assert hear(tmp_path) is None


@pytest.mark.parametrize("rate", [5e-324, 1e-308])
def test_a_rate_too_low_for_an_end_says_none(rate):
    slow = Live(5, 2**60, rate=rate, updated=1000.0, host="another", pid=1)
    assert slow.seconds_left is None and slow.line(10.0, "sound") == f"step 5 of {2**60}"
    assert slow.is_alive(1000.0)


def test_half_a_line_that_a_full_disk_took_does_not_stay(tmp_path):
    path = tmp_path / "log.csv"
    log, rows = LiveLog(path), [{"step": 0, "loss": 0.5}, {"step": 1, "loss": 0.25}]
    log.show(rows)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The limit stands for the disk: room for two letters more.
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 2, before[1]))
    try:
        log.show([*rows, {"step": 2, "loss": 0.125}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == log_csv(rows)
    rows += [{"step": 2, "loss": 0.125}, {"step": 3, "loss": 0.0}]
    log.show(rows)
    assert path.read_text() == log_csv(rows)


def test_numbers_of_numpy_and_torch_are_told_and_continue_as_pythons_do(tmp_path, monkeypatch):
    cls = registry.load("gs_wgan")
    whole = cls.step

    def telling(self, t, data, ledger):
        return {**whole(self, t, data, ledger), "a": np.float64(0.5), "b": torch.tensor(0.25), "c": 3}

    monkeypatch.setattr(cls, "step", telling)
    monkeypatch.setattr(live_line, "TOLD_SECONDS", 0.0)
    killed(tmp_path, monkeypatch, 3, checkpoint_seconds=0)
    assert {name: hear(tmp_path).values[name] for name in "abc"} == {"a": 0.5, "b": 0.25, "c": 3}
    train.train(PLAN, toy_records(), tmp_path, CPU)
    assert [line.split(",")[-3:] for line in (tmp_path / "log.csv").read_text().split()] == [
        ["a", "b", "c"], *[["0.5", "0.25", "3"]] * 6
    ]  # fmt: skip


def test_a_line_that_cannot_be_printed_ends_no_training(tmp_path, clock, monkeypatch):
    class Refuses(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stderr", Refuses())
    with LiveLine(PLAN, tmp_path, 0, 10) as line:
        clock.now += 61.0
        line.ended(1, SimpleNamespace(spent=tuple), None)
    assert hear(tmp_path).step == 1
