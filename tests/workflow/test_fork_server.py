"""A step whose libraries a fork server has loaded behaves as one that loads them itself, however it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workflow import fork_server
from workflow.common.handover import LENGTH, VARIABLE

ROOT = Path(__file__).resolve().parents[2]
# What takes long to import says in which process it was.
LIBRARY = "import os\nPROCESS = os.getpid()\n"
COMMAND = """
import os, signal, sys, time
import library

def wait():
    # Whole when it is there, and a signal that comes meanwhile is not lost in the end of a file that nobody closed.
    with open("waits.new", "w") as file:
        file.write(str(os.getpid()))
    os.replace("waits.new", "waits")
    time.sleep(60)

def note(*_):
    with open("signals", "a") as file:
        file.write("x")

what = sys.argv[1]
if what == "tell":
    print("shared" if library.PROCESS == os.getppid() else "alone" if library.PROCESS == os.getpid() else "?")
    print(__name__, sys.argv[1:], os.getcwd(), os.environ.get("OWN"), sys.stdin.read())
    print("to stderr", file=sys.stderr)
    sys.exit(7)
elif what == "fail":
    raise ValueError("no such thing")
elif what == "die":
    os.kill(os.getpid(), signal.SIGSEGV)
elif what == "wait":
    wait()
elif what == "note":
    signal.signal(signal.SIGINT, note)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    wait()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch) -> Path:
    package = tmp_path / "toy"
    package.mkdir()
    (package / "__init__.py").write_text("from workflow.common import process\nprocess.begin()\n")
    (package / "__main__.py").write_text(COMMAND)
    (tmp_path / "library.py").write_text(LIBRARY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


@pytest.fixture
def served(here: Path) -> Iterator[Path]:
    with fork_server.running({"toy": ["library"]}):
        yield here


def toy(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "toy", *arguments], capture_output=True, text=True, timeout=60, **options
    )


def waiting(here: Path, what: str) -> tuple[subprocess.Popen, int]:
    """Starts a command that waits, in a process group of its own; returns it and the process in which it runs."""
    step = subprocess.Popen([sys.executable, "-m", "toy", what], stderr=subprocess.PIPE, text=True, process_group=0)
    until((here / "waits").exists)
    return step, int((here / "waits").read_text())


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def gone(process: int) -> bool:
    until(lambda: not Path(f"/proc/{process}").exists())
    return True


def test_a_command_has_its_own_arguments_folder_environment_streams_and_exit_code(served: Path):
    (served / "elsewhere").mkdir()
    found = toy("tell", "a b", cwd=served / "elsewhere", env={**os.environ, "OWN": "mine"}, input="typed")
    first, second = found.stdout.splitlines()
    assert first == "shared"
    assert second == f"__main__ ['tell', 'a b'] {served / 'elsewhere'} mine typed"
    assert (found.stderr, found.returncode) == ("to stderr\n", 7)


def test_two_commands_never_share_a_process(served: Path):
    steps = [subprocess.Popen([sys.executable, "-m", "toy", "tell"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True) for _ in range(4)]  # fmt: skip
    assert [step.communicate()[0].split()[0] for step in steps] == ["shared"] * 4


def test_an_error_is_reported_as_without_a_server(served: Path):
    found = toy("fail")
    assert found.returncode == 1 and found.stderr.endswith("ValueError: no such thing\n")


def test_a_command_that_a_signal_ends_ends_its_caller_likewise(served: Path):
    assert toy("die").returncode == -signal.SIGSEGV


def test_termination_reaches_the_command(served: Path):
    step, process = waiting(served, "note")
    step.terminate()
    assert step.wait(30) == 3 and process != step.pid and gone(process)


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_command_does_nothing_before_its_caller_can_pass_on_what_ends_it(served: Path, goes_on: bool):
    request = {"arguments": ["toy", "wait"], "folder": str(served), "environment": {"PYTHONPATH": str(ROOT)},
               "umask": 0o22, "group": os.getpgrp()}  # fmt: skip
    text = json.dumps(request).encode()
    may_go, go = os.pipe()
    with socket.socket(socket.AF_UNIX) as connection, open(go, "wb", buffering=0) as caller:
        connection.connect(str(Path(os.environ[VARIABLE], "toy")))
        socket.send_fds(connection, [LENGTH.pack(len(text))], [0, 1, 2, may_go])
        os.close(may_go)
        connection.sendall(text)
        begun, process = connection.recv(100).decode().split()
        assert begun == "begun" and not (served / "waits").exists()
        if goes_on:
            caller.write(b".")
            until((served / "waits").exists)
        else:
            caller.close()
            assert gone(int(process)) and not (served / "waits").exists()


def test_ctrl_c_reaches_the_command_once(served: Path):
    step, process = waiting(served, "note")
    os.killpg(step.pid, signal.SIGINT)
    until(lambda: (served / "signals").exists() and (served / "signals").read_text())
    step.terminate()
    assert step.wait(30) == 3 and gone(process)
    assert (served / "signals").read_text() == "x"


def test_a_killed_caller_takes_the_command_with_it(served: Path):
    step, process = waiting(served, "wait")
    step.kill()
    assert gone(process)


def test_a_command_ends_the_wait_for_it_when_it_is_killed(served: Path):
    step, process = waiting(served, "wait")
    os.kill(process, signal.SIGKILL)
    assert step.wait(30) == -signal.SIGKILL


def test_a_command_alone_where_there_is_no_server_or_its_threads_are_others(served: Path):
    assert toy("tell", input="", env={**os.environ, VARIABLE: str(served)}).stdout.startswith("alone")
    assert toy("tell", input="", env={**os.environ, "OMP_NUM_THREADS": "2"}).stdout.startswith("alone")


def test_the_server_leaves_nothing_behind_and_outlives_no_command(here: Path):
    with fork_server.running({"toy": ["library"]}):
        folder = Path(os.environ[VARIABLE])
        assert toy("tell", input="").stdout.startswith("shared")
        assert [path.name for path in folder.iterdir()] == ["toy"]
    assert not folder.exists() and VARIABLE not in os.environ


def test_a_library_that_does_not_load_is_left_to_the_command(here: Path):
    (here / "library.py").write_text("raise RuntimeError('broken')\n")
    with fork_server.running({"toy": ["library"]}):
        found = toy("tell")
    assert found.returncode == 1 and found.stderr.endswith("RuntimeError: broken\n")


def test_a_folder_for_short_lived_files_too_long_to_name_a_socket_is_passed_over(here: Path, monkeypatch):
    deep = here.joinpath(*["a-folder-with-a-long-name"] * 5)
    deep.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with fork_server.running({"toy": ["library"]}):
        assert toy("tell", input="").stdout.startswith("shared")
    assert not list(deep.iterdir())


def test_commands_run_alone_where_no_folder_takes_sockets(here: Path, monkeypatch):
    def refused(*_, **__):
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "mkdtemp", refused)
    with fork_server.running({"toy": ["library"]}):
        assert VARIABLE not in os.environ
        assert toy("tell", input="").stdout.startswith("alone")


def test_a_killed_server_leaves_no_folder(here: Path, monkeypatch):
    started, popen = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **named: started.append(popen(*a, **named)) or started[-1])
    with fork_server.running({"toy": ["library"]}):
        folder = Path(os.environ[VARIABLE])
        started[0].kill()
        started[0].wait()
    assert not folder.exists()


def test_a_caller_that_stops_before_it_asks_holds_up_no_other(served: Path):
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.connect(str(Path(os.environ[VARIABLE], "toy")))
        assert toy("tell", input="").stdout.startswith("shared")


def test_a_server_that_cannot_fork_leaves_the_command_to_its_caller_and_goes_on(here: Path):
    (here / "library.py").write_text(
        LIBRARY
        + """
forked, forks = os.fork, []

def fork():
    forks.append(0)
    if len(forks) == 1:
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return forked()

os.fork = fork
"""
    )
    with fork_server.running({"toy": ["library"]}):
        assert [toy("tell", input="").stdout.split()[0] for _ in range(2)] == ["alone", "shared"]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_command_with_a_closed_stream_is_not_handed_over_for_the_connection_would_take_its_place(
    served: Path, closed: str
):
    line = f'exec "$0" -m toy wait {closed}'
    step = subprocess.Popen(["sh", "-c", line, sys.executable], stderr=subprocess.DEVNULL, process_group=0)
    until((served / "waits").exists)
    step.kill()
    step.wait()
    assert int((served / "waits").read_text()) == step.pid


def test_termination_before_the_command_may_go_on_ends_its_caller_likewise(served: Path):
    late = (
        "import os, signal, sys, time; from workflow.common import handover\n"
        "write = os.write\n"
        "def stopped(*given): os.kill(os.getpid(), signal.SIGTERM); time.sleep(1); write(*given)\n"
        "os.write = stopped; sys.orig_argv = [sys.executable, '-m', 'toy', 'tell']; handover.hand_over()"
    )
    step = subprocess.run([sys.executable, "-c", late], stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    assert (step.returncode, step.stdout) == (-signal.SIGTERM, b"")
