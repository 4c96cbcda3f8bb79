"""How commands end where something outside stops them, and what they print where ASCII alone can be printed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from workflow.common import process
from workflow.common.errors import UserError, command

ROOT = Path(__file__).resolve().parents[2]
# What Python has in argv[0] while it imports the package of `python -m package.module`.
START = "import os, signal, sys; sys.argv[0] = '-m'; import evaluation; from workflow.common import errors, process;"
PACKAGES = ("workflow", "methods", "evaluation", "benchmarks")


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_of_commands_readies_its_process_first(package):
    lines = [line for line in (ROOT / package / "__init__.py").read_text().splitlines() if line]
    assert lines[1:] == ["from workflow.common import process", "process.begin()"]


def test_every_command_goes_through_the_door_that_reports():
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text()
            if '__name__ == "__main__"' in text and path.name not in ("snakemake.py", "fork_server.py"):
                assert "@command\ndef main(" in text and "raise SystemExit(main())" in text, path


def test_a_full_disk_behind_the_output_is_named_so_in_one_line():
    with open("/dev/full", "w") as full:
        code = f"{START}\nmain = errors.command(lambda argv: print('much'))\nraise SystemExit(main())"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    line = "error: cannot write the output: No space left on device; make room, or send it elsewhere\n"
    assert (done.returncode, done.stderr) == (2, line)


def test_ctrl_c_among_the_imports_is_one_line():
    done = run(f"{START} os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(9)")
    assert (done.returncode, done.stderr) == (130, f"{process.LINE}\n")


def test_ctrl_c_later_lets_the_command_clean_up_and_is_one_line():
    main = "main = errors.command(lambda argv: step())\ndef step():\n    try:\n        "
    kill = "os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(9)\n    finally:\n        print('cleaned')\n"
    done = run(f"{START}\n{main}{kill}raise SystemExit(main())")
    assert (done.returncode, done.stdout, done.stderr) == (130, "cleaned\n", f"{process.LINE}\n")


def test_a_background_job_goes_on_ignoring_it():
    code = f"signal.signal(signal.SIGINT, signal.SIG_IGN); {START} os.kill(os.getpid(), signal.SIGINT); print('on')"
    assert run(f"import signal; {code}").stdout == "on\n"


def test_a_process_that_only_imports_keeps_its_own_ways():
    code = "import signal, evaluation, methods; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert run(code).stdout == "True\n"


def test_a_command_s_seconds_are_counted_from_before_its_imports_and_not_in_what_it_forks():
    code = f"import time; {START} time.sleep(0.2); print(0.2 <= process.seconds_so_far() < 60, flush=True)\n"
    fork = "if not os.fork(): print(process.seconds_so_far(), flush=True); os._exit(0)\nos.wait()"
    assert run(code + fork).stdout == "True\n0.0\n"
    assert run("from workflow.common import process; print(process.seconds_so_far())").stdout == "0.0\n"


def test_training_that_ctrl_c_ends_at_a_checkpoint_says_so_too(capsys):
    @command
    def main(argv=None):
        raise SystemExit(130)

    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130 and capsys.readouterr().err == f"{process.LINE}\n"


@pytest.fixture
def heard():
    """What SIGTERM has done outside of any block that notes it, in this order."""
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    yield came
    signal.signal(signal.SIGTERM, before)


def test_a_noted_signal_ends_a_block_where_it_asks_for_it_and_says_what_is_kept(heard):
    with pytest.raises(process.Stopped) as end, process.Signals() as signals:
        signals.stop("nothing came")
        signal.raise_signal(signal.SIGTERM)
        signals.stop("a checkpoint")
    assert (end.value.code, end.value.kept, heard) == (128 + signal.SIGTERM, "a checkpoint", [])


def test_a_signal_that_a_block_does_not_end_by_is_passed_on(heard):
    with process.Signals():
        signal.raise_signal(signal.SIGTERM)
        assert not heard
    assert heard == [signal.SIGTERM]


def test_an_inner_block_knows_what_came_before_it_and_an_outer_one_what_came_in_it(heard):
    with process.Signals(signal.SIGTERM) as outer:
        with process.Signals() as inner:
            signal.raise_signal(signal.SIGTERM)
        assert inner.received == outer.received == signal.SIGTERM
        with process.Signals() as inner:
            assert inner.received == signal.SIGTERM
    assert heard == [signal.SIGTERM]


def test_what_is_ignored_stays_ignored(heard):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with process.Signals() as signals:
        signal.raise_signal(signal.SIGTERM)
    assert not signals.received


@pytest.mark.parametrize(
    ("arguments", "stream"),
    [
        (["evaluation.protocol"], "stdout"), (["workflow.record", "--help"], "stdout"),
        (["workflow.record", "--root", "gone", "--out", "gone"], "stderr"),
    ],
)  # fmt: skip
def test_output_into_a_closed_pipe_ends_in_silence(arguments, stream):
    reader, writer = os.pipe()
    os.close(reader)
    other = {"stdout": "stderr", "stderr": "stdout"}[stream]
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, **{stream: writer, other: subprocess.PIPE}, check=False
    )
    os.close(writer)
    # argparse itself passes over what it cannot print.
    assert done.returncode in (process.CLOSED_PIPE, 0 if "--help" in arguments else process.CLOSED_PIPE)
    assert getattr(done, other) == b""


def test_a_broken_pipe_of_another_kind_is_not_hidden():
    @command
    def main(argv=None):
        raise BrokenPipeError("a socket")

    with pytest.raises(BrokenPipeError):
        main()


def test_what_ascii_lacks_is_printed_as_its_escape():
    code = f"{START} print('ε ≤ 10'); errors.print_error(errors.UserError('wörk'))"
    done = run(code, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\u03b5 \\u2264 10\n", "error: w\\xf6rk\n")


@pytest.mark.parametrize("backend", ["module://ipykernel.pylab.backend_inline", "nonsense"])
def test_figures_need_no_display_and_no_notebook(backend):
    code = f"{START} import matplotlib; matplotlib.rcParams['backend'] = matplotlib.get_backend(); print('drawn')"
    assert run(code, MPLBACKEND=backend).stdout == "drawn\n"


def test_an_error_is_one_line_and_exit_code_2(capsys):
    @command
    def main(argv=None):
        raise UserError("a\nb")

    assert main() == 2 and capsys.readouterr().err == "error: a b\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
