"""One run of a trial: the graph's commands in turn, each measured in seconds of a core and held to its limit."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tuned_results import CELLS, CONFIG, row

from workflow.common.errors import UserError
from workflow.common.files import write_text
from workflow.tune import one_run, search
from workflow.tune.one_run import Commands, Failed, Outcome, Place, Stopped
from workflow.tune.trials import OVER_TIME, REFUSED, SCORED

SCORES = """import pathlib, sys
pathlib.Path(sys.argv[1], "utility.json").write_text('{"g2r_cnn": 0.75}')"""


@pytest.fixture
def made(tmp_path, monkeypatch) -> Callable[..., Place]:
    """Returns a place whose runs are Python files of the given texts in place of the graph's commands."""

    def make(limit: float, *texts: str) -> Place:
        for number, text in enumerate(texts):
            write_text(tmp_path / f"made_{number}.py", text)
        modules = [f"made_{number}" for number in range(len(texts))]
        monkeypatch.setattr(Place, "_commands", lambda self, *of: iter([[name, str(of[-1])] for name in modules]))
        return Place(tmp_path, CONFIG, limit, 0)

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return make


def tried(place: Place, commands: Commands | None = None) -> Outcome:
    return place.run(row(), 3, CELLS[0], {}, commands or Commands())


def test_a_run_is_its_commands_in_turn_and_costs_what_they_take_together(tmp_path, made):
    burn = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    found = tried(made(60, burn, burn, SCORES))
    assert (found.outcome, found.score) == (SCORED, 0.75) and found.seconds >= 0.6
    # Nothing of it stays but the log.
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_command_is_ended_when_the_run_has_had_its_seconds_of_a_core(made):
    found = tried(made(1, "while True: pass", SCORES))
    assert found.outcome == OVER_TIME and found.score is None and found.seconds >= 0.7


def test_a_warm_start_counts_as_the_row_s_time_and_not_as_the_run_s(made, monkeypatch):
    burn = "import time\nend = time.process_time() + 1.5\nwhile time.process_time() < end: pass"
    place = made(1, burn, SCORES)
    assert tried(place).outcome == OVER_TIME
    monkeypatch.setattr(one_run, "SHARED", ["made_0"])
    monkeypatch.setattr(Place, "_commands", lambda self, *of: iter([["made_0"], ["made_1", str(of[-1])]]))
    found = tried(place)
    assert found.outcome == SCORED and found.seconds >= 1.5


class Timed:
    """Commands that take so many seconds each, and keep what they were and how long each might take.

    They end with code 0, but for those of the given names.
    """

    def __init__(self, cost: float, **codes: int) -> None:
        self.cost, self.run, self.code, self.codes = cost, [], 0, codes

    def seconds(self, arguments: list[str], log: Path, limit: float) -> tuple[int, float]:
        name = arguments[1] if arguments[0] == "methods" else arguments[0]
        self.run.append((name, limit))
        if arguments[0] == "evaluation.utility":
            write_text(arguments[-1], '{"g2r_cnn": 0.75}')
        return self.codes.get(name, self.code), self.cost


def test_each_command_has_what_those_before_it_left_and_a_warm_start_an_hour(tmp_path):
    gan, place, timed = row("gs_wgan"), Place(tmp_path, CONFIG, 90, 0), Timed(10)
    found = place.run(gan, 0, CELLS[0], gan.before, timed)
    assert timed.run == [
        ("plan", 90), ("warm-start", 3600), ("train", 80), ("sample", 70), ("evaluation.utility", 60)
    ]  # fmt: skip
    assert found == Outcome(SCORED, 50, 0.75)


def test_a_training_has_seconds_of_its_own_that_no_other_command_is_held_to(tmp_path):
    gan, timed = row("gs_wgan"), Timed(30)
    found = Place(tmp_path, CONFIG, 200, 0, train_limit=40).run(gan, 0, CELLS[0], gan.before, timed)
    assert dict(timed.run)["train"] == 40 and {name for name, limit in timed.run if limit <= 40} == {"train"}
    assert found.outcome == SCORED
    found = Place(tmp_path, CONFIG, 200, 0, train_limit=25).run(gan, 1, CELLS[0], gan.before, Timed(30))
    assert found == Outcome(OVER_TIME, 90, None)


def test_a_run_that_had_more_than_its_seconds_when_it_ended_is_out(tmp_path):
    # The system counts whole seconds, so that a command may end well after its time.
    found = Place(tmp_path, CONFIG, 25, 0).run(row(), 1, CELLS[0], {}, Timed(13))
    assert found == Outcome(OVER_TIME, 26, None)


def test_a_training_that_the_system_ended_for_its_time_is_over_time_though_it_reports_fewer_seconds(tmp_path):
    # Of a core that others use too, the samples by which the system counts were 2 to 4% off.
    timed = Timed(80.5, train=-signal.SIGXCPU)
    found = Place(tmp_path, CONFIG, 300, 0, train_limit=85).run(row(), 1, CELLS[0], {}, timed)
    assert found == Outcome(OVER_TIME, 161.0, None) and list((tmp_path / "runs").iterdir()) == []


def test_a_machine_too_slow_for_the_settings_before_the_search_tunes_no_row(tmp_path):
    gan = row("gs_wgan")
    with pytest.raises(Failed, match=r"gs_wgan-trial0-mnist_val-eps10: .*train takes more than the 25 s.*time-factor"):
        Place(tmp_path, CONFIG, 200, 0, train_limit=25).run(gan, 0, CELLS[0], gan.before, Timed(30))
    with pytest.raises(Failed, match=r"python -m evaluation\.utility takes more than the 10 s"):
        Place(tmp_path, CONFIG, 70, 0).run(row(), 0, CELLS[0], row().before, Timed(20))


@pytest.mark.parametrize("code", [1, -signal.SIGKILL, -signal.SIGTERM])
def test_a_training_that_broke_just_before_its_time_is_not_over_time(tmp_path, code):
    with pytest.raises(Failed, match=f"ended with code {code}; see"):
        Place(tmp_path, CONFIG, 300, 0, train_limit=85).run(row(), 1, CELLS[0], {}, Timed(84.9, train=code))


def test_where_a_command_may_not_be_given_its_seconds_it_broke_and_no_settings_were_refused(made, monkeypatch):
    # As in a shell whose own limit is lower.
    monkeypatch.setattr(one_run, "_LIMITED", f"ulimit -t 5; {one_run._LIMITED}")
    monkeypatch.setattr(one_run, "REFUSING", (["made_0"],))
    place = made(60, SCORES)
    monkeypatch.setattr(Place, "_commands", lambda *_: iter([["made_0"]]))
    with pytest.raises(Failed, match="ended with code 125; see"):
        tried(place)


def test_a_warm_start_that_takes_too_long_ends_the_trial_and_its_time_counts(made, monkeypatch):
    place = made(60, "while True: pass", SCORES)
    monkeypatch.setattr(one_run, "SHARED", ["made_0"])
    monkeypatch.setattr(one_run, "LONGEST", 1)
    monkeypatch.setattr(Place, "_commands", lambda self, *of: iter([["made_0"], ["made_1", str(of[-1])]]))
    found = tried(place)
    assert (found.outcome, found.score) == (OVER_TIME, None) and found.seconds >= 0.7


@pytest.mark.parametrize("code", [1, -signal.SIGTERM])
def test_a_warm_start_counts_once_though_the_run_that_made_it_ended_without_a_result(tmp_path, code):
    gan, place = row("gs_wgan"), Place(tmp_path, CONFIG, 90, 0)
    for _ in range(2):
        with pytest.raises(Failed):
            place.run(gan, 0, CELLS[0], gan.before, Timed(10, train=code))
    # Three warm starts, of which no run is held to the seconds, and what the run itself took.
    timed = Timed(10)
    assert place.run(gan, 0, CELLS[0], gan.before, timed) == Outcome(SCORED, 70, 0.75)
    assert dict(timed.run)["train"] == 80
    assert place.run(gan, 0, CELLS[1], gan.before, Timed(10)) == Outcome(SCORED, 50, 0.75)


def test_one_row_does_not_pay_for_the_warm_start_of_another(tmp_path):
    gan, dpac, place = row("gs_wgan"), row("dpac"), Place(tmp_path, CONFIG, 90, 0)
    with pytest.raises(Failed):
        place.run(gan, 0, CELLS[0], gan.before, Timed(10, train=1))
    assert place.run(dpac, 0, CELLS[0], dpac.before, Timed(10)) == Outcome(SCORED, 50, 0.75)


# It starts another process, which holds a lock and would tell if it came to its end, and waits for nothing.
HANGS = """import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", '''
import fcntl, pathlib, sys, time
held = pathlib.Path(sys.argv[1], "held").open("w")
fcntl.flock(held, fcntl.LOCK_EX)
pathlib.Path(sys.argv[1], "ready").touch()
time.sleep(5)
pathlib.Path(sys.argv[1], "outlived").touch()
''', sys.argv[1]])
time.sleep(60)"""
ENDS = HANGS.replace(
    "time.sleep(60)", 'import pathlib\nwhile not pathlib.Path(sys.argv[1], "ready").exists(): time.sleep(0.01)'
)


def outlived(folder: Path) -> bool:
    """Waits for the process that HANGS has started; returns whether it came to its end."""
    with (folder / "held").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
    return (folder / "outlived").exists()


@pytest.fixture
def clock(tmp_path, monkeypatch) -> list[float]:
    """Lets a command's time by the clock be over once there is a file `ready`; returns what it would have had."""
    given = []

    class Due(threading.Thread):
        def __init__(self, seconds: float, function: Callable[..., None], arguments: list) -> None:
            super().__init__()
            self.end, self.over = functools.partial(function, *arguments), threading.Event()
            given.append(seconds)

        def run(self) -> None:
            while not (tmp_path / "ready").exists():
                if self.over.wait(0.01):
                    return
            self.end()

        def cancel(self) -> None:
            self.over.set()

    monkeypatch.setattr(one_run.threading, "Timer", Due)
    return given


def test_a_command_that_hangs_broke_and_leaves_nothing_behind(tmp_path, made, monkeypatch, clock):
    place, commands = made(100, HANGS), Commands()
    monkeypatch.setattr(Place, "_commands", lambda *_: iter([["made_0", str(tmp_path)]]))
    with pytest.raises(Failed, match=r"^python -m made_0 hangs: after 60 min by the clock .* of 100 s of a core.*log$"):
        tried(place, commands)
    assert clock == [3600] and not commands.running
    assert not outlived(tmp_path)


def test_what_a_command_has_started_ends_with_it(tmp_path, made):
    made(100, ENDS)
    assert Commands().seconds(["made_0", str(tmp_path)], tmp_path / "log", 60)[0] == 0
    assert not outlived(tmp_path)


def test_a_data_set_whose_command_hangs_ends_the_search_in_one_line(tmp_path, monkeypatch):
    def hangs(*_: object) -> None:
        raise Failed("python -m workflow.datasets hangs")

    monkeypatch.setattr(Commands, "seconds", hangs)
    with pytest.raises(UserError, match=r"data set mnist_val could not be made: python -m workflow.datasets hangs"):
        one_run.prepare(Place(tmp_path, CONFIG, 60, 0), Commands())


def test_the_time_by_the_clock_is_many_times_that_of_a_core_and_an_hour_at_least():
    # A whole run of quick has 300 s of a core, and what is left of them may be next to nothing.
    assert [one_run.clock_seconds(limit) for limit in (1, 300, 3600)] == [3600, 7200, 86400]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_search_that_is_told_to_end_while_it_makes_its_data_ends_that_too(monkeypatch, number):
    stopped = []
    monkeypatch.setattr(Commands, "stop", lambda _: stopped.append(number))
    monkeypatch.setattr(search, "prepare", lambda *_: signal.raise_signal(number))
    # Under nohup a hang-up is ignored, and a search leaves it so.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as end:
            search._at_once([], None, None, 1)
        assert (end.value.code, stopped, signal.getsignal(number)) == (128 + number, [number], signal.SIG_DFL)
    finally:
        signal.signal(number, before)


def test_settings_that_a_plan_refuses_end_the_trial_and_any_other_error_the_row(made, monkeypatch):
    place = made(60, "raise SystemExit(2)", SCORES)
    with pytest.raises(Failed, match=r"ended with code 2; see .*dp_gauss-trial3-mnist_val-eps10\.log"):
        tried(place)
    monkeypatch.setattr(one_run, "REFUSING", (["made_0"],))
    monkeypatch.setattr(Place, "_commands", lambda *_: iter([["made_0"]]))
    assert tried(place).outcome == REFUSED
    # The first trial's are the preset's: its refusal would be followed by that of every other until the time is up.
    with pytest.raises(Failed, match="ended with code 2"):
        place.run(row(), 0, CELLS[0], {}, Commands())


def test_a_search_that_stops_ends_what_runs_and_begins_nothing(made):
    place, commands = made(60, "import time\ntime.sleep(60)", SCORES), Commands()
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(tried, place, commands)
        while not commands.running:
            time.sleep(0.01)
        commands.stop()
        assert isinstance(working.exception(), Stopped)
    with pytest.raises(Stopped):
        tried(place, commands)


DEAF = f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{HANGS}"


def is_ready(folder: Path) -> None:
    while not (folder / "ready").exists():
        time.sleep(0.01)


def test_a_search_that_stops_waits_for_no_command_that_hangs(tmp_path, made, monkeypatch):
    made(60, DEAF)
    monkeypatch.setattr(one_run, "GRACE", 0.1)
    commands = Commands()
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(commands.seconds, ["made_0", str(tmp_path)], tmp_path / "log", 60)
        is_ready(tmp_path)
        commands.stop()
        assert isinstance(working.exception(), Stopped)
    assert not commands.running and not outlived(tmp_path)


def test_a_search_that_is_killed_leaves_no_command_behind(tmp_path, made):
    made(60, DEAF)
    text = (
        "import pathlib, sys\nfrom workflow.tune.one_run import Commands\n"
        "folder = pathlib.Path(sys.argv[1])\nCommands().seconds(['made_0', str(folder)], folder / 'log', 60)"
    )
    with subprocess.Popen([sys.executable, "-c", text, str(tmp_path)], cwd=one_run.ROOT) as searching:
        is_ready(tmp_path)
        searching.kill()
    assert not outlived(tmp_path)


def test_what_waits_beside_a_command_for_the_end_of_the_search_takes_nothing_from_it(tmp_path, made):
    made(60, "import os, sys\nassert sys.stdin.read() == ''\ntry: os.fstat(3)\nexcept OSError: raise SystemExit(7)")
    code, _ = Commands().seconds(["made_0"], tmp_path / "log", 60)
    assert code == 7, (tmp_path / "log").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process ask for orphans")
def test_the_first_process_of_a_container_keeps_nothing_of_a_command_that_has_ended(tmp_path, made):
    made(60, "import subprocess\nsubprocess.Popen(['sleep', '60'])")
    text = (
        "import ctypes, os, pathlib, sys\nfrom workflow.tune.one_run import Commands\n"
        "PR_SET_CHILD_SUBREAPER = 36\nassert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0\n"
        "print(Commands().seconds(['made_0'], pathlib.Path(sys.argv[1]), 60)[0])\n"
        "try: print(os.waitpid(-1, 0))\nexcept ChildProcessError: print('none')"
    )
    call = [sys.executable, "-c", text, str(tmp_path / "log")]
    assert subprocess.run(call, cwd=one_run.ROOT, capture_output=True, text=True).stdout.split() == ["0", "none"]


@pytest.mark.parametrize("text", [DEAF, HANGS], ids=["deaf", "ends alone"])
def test_a_command_whose_wait_a_signal_broke_off_leaves_nothing_behind(tmp_path, made, monkeypatch, text):
    made(60, text)

    def interrupt(*_: object) -> None:
        is_ready(tmp_path)
        raise SystemExit

    commands = Commands()
    monkeypatch.setattr(Commands, "_ended", interrupt)
    with pytest.raises(SystemExit):
        commands.seconds(["made_0", str(tmp_path)], tmp_path / "log", 60)
    monkeypatch.setattr(one_run.time, "sleep", interrupt)
    with contextlib.suppress(SystemExit):
        commands.stop()
    assert not outlived(tmp_path)
    commands.running.pop().wait()


def test_the_commands_are_the_graph_s_and_a_warm_start_is_shared_by_a_row_s_trials(tmp_path):
    place = Place(tmp_path, CONFIG, 60.0, 0)
    dpac = row("dpac")
    first, second = (
        list(place._commands(dpac, ("mnist_val", 1.0), dpac.settings(trial, 0), tmp_path / "r")) for trial in (0, 5)
    )
    assert [command[:2] for command in first[:4]] == [
        ["methods", verb] for verb in ("plan", "warm-start", "train", "sample")
    ]
    assert first[4][0] == "evaluation.utility" and json.loads(first[4][6]) == CONFIG.protocol
    assert first[0][first[0].index("--accounting") + 1] == "published"
    assert first[1] == second[1] and first[0] != second[0]
    assert first[2][first[2].index("--warm-start") + 1] == first[1][-1]
    others = list(place._commands(row("gs_wgan"), ("mnist_val", 1.0), row("gs_wgan").before, tmp_path / "r"))
    assert others[1][-1] != first[1][-1]
    # Each row pays for its own, one of the same method too.
    other = dataclasses.replace(dpac, run=dataclasses.replace(dpac.run, name="other"))
    assert list(place._commands(other, ("mnist_val", 1.0), dpac.before, tmp_path / "r"))[1][-1] != first[1][-1]
    without = list(place._commands(row(), CELLS[0], {}, tmp_path / "r"))
    assert [command[1] for command in without[:3]] == ["plan", "train", "sample"]


def test_a_search_begins_with_its_data_sets_and_without_what_a_killed_one_left(tmp_path):
    place, timed = Place(tmp_path, CONFIG, 60, 0), Timed(10)
    write_text(tmp_path / "runs/dpac-trial3/samples.npz", "")
    write_text(tmp_path / "data/mnist_val/card.json", "{}")
    one_run.prepare(place, timed)
    assert not (tmp_path / "runs").exists() and timed.run == [("workflow.datasets", 3600)]
    timed.code = 1
    with pytest.raises(UserError, match=r"fashion_mnist_val could not be made; see .*data-fashion_mnist_val\.log"):
        one_run.prepare(place, timed)
