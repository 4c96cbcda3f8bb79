"""A call of Snakemake holds its results: two at once, one that is killed, and one that Ctrl-C ends."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy_project import ROOT, Project

from workflow import calls
from workflow.common import process
from workflow.common.errors import UserError

OURS = "results/long/runs/mnist/dpac/eps1/seed3"
LOCKS = (".snakemake/locks/0.input.lock", ".snakemake/locks/4.output.lock")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with locks on results/long and results/longer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(calls.CALL, "")
    for path, text in ((LOCKS[0], f"methods/a.py\n{OURS}/plan.json\n"), (LOCKS[1], f"{OURS}/run.json\n")):
        write(Path(path), text)
    write(Path(".snakemake/locks/1.output.lock"), "results/longer/scores.csv\n")
    return tmp_path


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def owner(text: str) -> None:
    write(Path(".snakemake/owners/long"), text)


def locks() -> int:
    return len(list(Path(".snakemake/locks").iterdir()))


def test_the_locks_of_a_call_that_was_killed_are_removed_and_no_others(here, capsys):
    owner("a call that is gone")
    with calls.held("results/long"):
        assert Path(".snakemake/owners/long").read_text() == os.environ[calls.CALL] != ""
    assert Path(".snakemake/owners/long").read_text() == "" and locks() == 1
    assert "the lock of a call that was killed is removed from results/long" in capsys.readouterr().err


def test_locks_of_whom_nothing_is_known_stay(here):
    for text in (None, ""):
        if text is not None:
            owner(text)
        with calls.held("results/long"):
            assert locks() == 3


def test_a_call_that_runs_keeps_its_locks_and_refuses_a_second_one(here):
    owner("a call that runs")
    with Path(".snakemake/owners/long").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another call is making results/long in"), calls.held("results/long"):
            pytest.fail("two at once")
        assert locks() == 3
        with calls.held("results/longer"):
            pass
    with calls.held("results/long"), pytest.raises(UserError), calls.held("results/long"):
        pass


def test_only_a_training_that_is_whole_is_not_doubted(here):
    marks = {}
    for seed, working in ((1, True), (2, False)):
        folder = Path(f"results/long/runs/mnist/dpac/eps1/seed{seed}")
        for name in ("run.json", "log.csv", "generator.safetensors", *(["private/ledger.jsonl"] if working else [])):
            write(folder / name)
        for name in ("run.json", "samples.npz"):
            path = folder / name
            marks[seed, name] = Path(".snakemake/incomplete", base64.b64encode(str(path).encode()).decode())
            write(marks[seed, name])
    owner("killed")
    with calls.held("results/long"):
        pass
    assert {key for key, path in marks.items() if not path.exists()} == {(2, "run.json")}


def test_the_steps_of_a_killed_call_end_before_the_next_begins(here, capsys):
    environment = {**os.environ, calls.CALL: "killed-77"}
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(90)"], env=environment) as step:
        while calls.steps("killed-77") != [step.pid]:
            time.sleep(0.01)
        owner("killed-77")
        # This process is their parent, and must see that they are gone.
        signal.signal(signal.SIGCHLD, lambda *_: step.poll())
        try:
            with calls.held("results/long"):
                assert step.poll() == -signal.SIGTERM
        finally:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    assert "steps of a call that was killed still run" in capsys.readouterr().err


def test_a_step_that_has_lost_its_environment_and_not_yet_its_files_still_runs(here, monkeypatch):
    looks = iter([[os.getpid()], [], []])
    monkeypatch.setattr(calls, "steps", lambda call: next(looks))
    monkeypatch.setattr(calls, "_signal", lambda *_: None)
    with pytest.raises(UserError, match=f"still run: end processes {os.getpid()}$"):
        calls._end_steps("killed-78", patience=-1)


def test_a_folder_that_cannot_be_written_is_one_line(here):
    calls.check_folder()
    (here / ".snakemake").rename(here / "kept")
    (here / ".snakemake").write_text("a file where Snakemake has its folder")
    with pytest.raises(UserError, match=r"^cannot write in .*: .*; name another folder by -d FOLDER"):
        calls.check_folder()


RUN = "results/quick/runs/mnist/beta_short/eps10/seed5/run.json"


WAIT = """
import atexit, os, sys, time

def wait(module):
    if module == 'methods train' and os.path.exists('WAIT'):
        tests = open('WAIT').read()
        os.rename('WAIT', 'WAITS')
        while os.path.exists(f'/proc/{tests}'):
            time.sleep(0.1)
        sys.exit(1)
    elif module == 'methods train' and os.path.exists('DIE'):
        os.rename('DIE', 'DIED')
        atexit.register(os.kill, os.getpid(), 9)
    elif module == 'methods train':
        open('TRAINED', 'w').close()
"""


@contextmanager
def running(project: Project, module: str = "snakemake"):
    """A call that makes RUN, in its training, which goes on as long as these tests do unless it is ended."""
    project.edit("toy.py", "def main(module):", "def main(module):\n    wait(module)\n")
    write(project.folder / "toy.py", WAIT + (project.folder / "toy.py").read_text())
    write(project.folder / "WAIT", str(os.getpid()))
    (project.folder / "WAITS").unlink(missing_ok=True)
    with (project.folder / "out.txt").open("w") as out, subprocess.Popen(
        [sys.executable, "-m", module, "--cores", "2", "--quiet", "rules", "host", "--", RUN], cwd=project.folder,
        env=project.environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
    ) as call:  # fmt: skip
        while not (project.folder / "WAITS").exists():
            assert call.poll() is None, (project.folder / "out.txt").read_text()
            time.sleep(0.02)
        yield call


def test_after_a_kill_the_same_call_goes_on_and_meanwhile_a_second_one_is_refused(fresh: Project):
    with running(fresh) as first:
        second = fresh.snakemake("--quiet", "rules", "host", "--", RUN)
        assert second.returncode == 2 and "Traceback" not in second.stdout
        (error,) = (line for line in second.stdout.splitlines() if line.startswith("error: "))
        assert "another call is making results/quick" in error
        assert list(fresh.folder.glob(".snakemake/locks/*"))
        first.kill()
    write(fresh.folder / "DIE")
    done = fresh.snakemake("--quiet", "rules", "host", "--", RUN)
    assert done.returncode == 0, done.stdout
    assert "the lock of a call that was killed is removed" in done.stdout and (fresh.folder / RUN).exists()
    # The training was killed once more, after its last file: it is whole, and is not begun again.
    assert (fresh.folder / "DIED").exists() and not (fresh.folder / "TRAINED").exists()


@pytest.mark.slow
def test_ctrl_c_ends_a_call_in_one_line_and_the_next_goes_on(fresh: Project):
    for module in ("snakemake", "workflow.snakemake"):
        with running(fresh, module) as call:
            os.killpg(call.pid, signal.SIGINT)
        assert call.returncode == 130
        shown = (fresh.folder / "out.txt").read_text()
        *_, last = shown.splitlines()
        assert re.fullmatch(
            r"interrupted: \d of [14] steps are finished and kept in results/quick, a training that ran as far as it"
            " came; the same command continues", last,
        )  # fmt: skip
        assert shown.count("interrupted") == 1 and "Error" not in shown and "failed" not in shown
        assert not list(fresh.folder.glob(".snakemake/locks/*"))
    done = fresh.snakemake("--quiet", "rules", "host", "--", RUN)
    assert done.returncode == 0 and "lock" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.1, 0.4, 0.8, 1.5])
def test_ctrl_c_while_the_graph_is_read_is_one_line(fresh: Project, seconds):
    call = subprocess.Popen(
        [sys.executable, "-m", "workflow.snakemake", "--cores", "1", "-n", "--quiet", "all"], cwd=fresh.folder,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    time.sleep(seconds)
    call.send_signal(signal.SIGINT)
    _, error = call.communicate()
    assert "Traceback" not in error
    assert call.returncode == 0 or (call.returncode == 130 and error.endswith(f"{process.LINE}\n"))


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("-n",), ("--quiet", "rules", "host")])
def test_a_call_whose_output_nobody_reads_ends_in_silence_and_the_next_goes_on(fresh: Project, arguments):
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments, "--", RUN]
    with subprocess.Popen(
        command, cwd=fresh.folder, env=fresh.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as call:
        call.stdout.readline()
        call.stdout.close()
    assert call.returncode == process.CLOSED_PIPE and not list(fresh.folder.glob(".snakemake/locks/*"))
    done = fresh.snakemake("--quiet", "rules", "host", "--", RUN)
    assert done.returncode == 0 and "lock" not in done.stdout


def test_make_calls_snakemake_through_the_door_that_ctrl_c_knows():
    """The shell of the recipe outlives Ctrl-C, so that make does not report its end as a failure."""
    dry = subprocess.run(
        ["make", "--dry-run", "tables", "PRESET=smoke"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "-m workflow.snakemake --quiet rules host --cores all --config preset=smoke" in dry.stdout
    assert "trap 'interrupted=1' INT; " in dry.stdout


def test_the_last_line_says_where_the_results_are(finished: Project):
    *_, last = (finished.folder / "output.txt").read_text().splitlines()
    assert last == (
        "results: open results/quick/report.html; tables are in results/quick/tables/, figures in"
        " results/quick/figures/, all numbers in results/quick/scores.csv"
    )
    graph = json.loads((finished.folder / "results/quick/logs/graph.json").read_text())
    assert len(graph["runs"]) == 4 and graph["line"].startswith("ended: progress: ")
    one = finished.snakemake("--quiet", "rules", "host", "--", RUN)
    assert one.stdout.splitlines()[-1] == f"results: {RUN}"


@pytest.mark.parametrize(("arguments", "limited"), [((), False), (("--max-jobs-per-timespan", "7/1m"), True)])
def test_the_default_limit_of_jobs_a_second_is_lifted_and_a_users_own_stays(here, monkeypatch, arguments, limited):
    """With a limit Snakemake wakes each second once for each job that has ended."""
    from snakemake.cli import get_argument_parser

    parsed = get_argument_parser().parse_args(["--cores", "1", *arguments])
    scheduling = SimpleNamespace(max_jobs_per_timespan=parsed.max_jobs_per_timespan)
    seen = []
    workflow = SimpleNamespace(
        scheduling_settings=scheduling, is_main_process=True, execution_settings=SimpleNamespace(lock=True),
        execute=lambda **_: seen.append(scheduling.max_jobs_per_timespan),
    )  # fmt: skip
    assert parsed.max_jobs_per_timespan is not None
    calls.guard(workflow, "results/long", fail=pytest.fail, progress=SimpleNamespace(expected=lambda _: ""))
    plugin = SimpleNamespace(common_settings=SimpleNamespace(dryrun_exec=True))
    workflow.execute(executor_plugin=plugin)
    assert [limit is not None for limit in seen] == [limited]


@pytest.mark.parametrize(("local", "remote", "steps", "served"), [
    (True, True, 5, True),  # The innermost call of a submission with the steps of one run.
    (True, True, 1, False), (False, True, 5, False), (True, False, 5, False),
])  # fmt: skip
def test_the_steps_of_one_submission_share_their_imports(here, monkeypatch, local, remote, steps, served):
    seen = []

    @contextmanager
    def running():
        seen.append("begun")
        yield
        seen.append("ended")

    monkeypatch.setattr(calls.fork_server, "running", running)
    workflow = SimpleNamespace(
        scheduling_settings=None, is_main_process=False, remote_exec=remote, execute=lambda **_: seen.append("steps"),
        dag_settings=SimpleNamespace(target_jobs=frozenset(range(steps))), rules=[SimpleNamespace(restart_times=1)],
    )  # fmt: skip
    calls.guard(workflow, "results/long", fail=pytest.fail, progress=None)
    settings = SimpleNamespace(dryrun_exec=False, local_exec=local)
    workflow.execute(executor_plugin=SimpleNamespace(common_settings=settings))
    assert seen == (["begun", "steps", "ended"] if served else ["steps"])
    # Whoever made the call tries again; this one may have been told to end.
    assert workflow.rules[0].restart_times == 0


def test_the_log_of_a_training_that_is_killed_stays(fresh: Project):
    """Snakemake removes what a failed job declares as its output."""
    killed = """def main(module):
    if module == "methods train":
        out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
        out.mkdir(parents=True, exist_ok=True)
        (out / "log.csv").write_text("step,loss\\n0,1.5\\n")
        import os
        os.kill(os.getpid(), 9)
"""
    fresh.edit("toy.py", "def main(module):\n", killed)
    assert fresh.snakemake("--quiet", "rules", "host", "--", RUN).returncode
    assert (fresh.folder / RUN).with_name("log.csv").read_text() == "step,loss\n0,1.5\n"
