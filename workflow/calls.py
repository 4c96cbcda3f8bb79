"""One call of Snakemake in a folder: who holds the results, what a killed call left, and how Ctrl-C ends one.

The kernel's lock on a file says whether a call still runs: it goes with its process, however that ends.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import gc
import logging
import os
import re
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from workflow import cluster, fork_server
from workflow.common import process
from workflow.common.errors import UserError, short
from workflow.common.run_states import CALL

PATIENCE = 60.0


@contextlib.contextmanager
def held(root: str, local: bool = True, kept: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Holds the results under `root` for a block, after tidying up what a killed call left of them.

    Run in the folder in which Snakemake runs. Where its file system has no locks nothing is held and nothing tidied.
    `local` says that the steps run on this machine, so that Ctrl-C ends them here; else Snakemake cancels them. `kept`
    returns what Ctrl-C says it leaves.

    Raises UserError if another call holds them, or steps of a killed one do not end.
    """
    path = Path(".snakemake/owners", Path(root).name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        if not _lock(file, root):
            yield
            return
        file.seek(0)
        # An orderly end leaves the file empty.
        if killed := file.read().strip():
            _end_steps(killed)
            if tidy(root):
                print(f"notice: the lock of a call that was killed is removed from {root}", file=sys.stderr, flush=True)
        os.environ[CALL] = uuid.uuid4().hex
        _write(file, os.environ[CALL])
        try:
            with _interruptible(root, file, kept) if local else contextlib.nullcontext():
                yield
        finally:
            _write(file, "")


def _lock(file: Any, root: str) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"another call is making {root} in {Path.cwd()}; wait for its end, or choose another preset or folder"
        ) from None
    except OSError:
        return False
    return True


def _write(file: Any, text: str) -> None:
    file.truncate(0)
    file.write(text)
    file.flush()
    os.fsync(file.fileno())


def tidy(root: str) -> bool:
    """Removes what a call that is gone left in .snakemake: its locks on `root`, and doubts about finished trainings.

    Returns whether there was a lock. Only for whoever holds `root`: no other call has locks on it then.
    """
    locks = [path for path in Path(".snakemake/locks").glob("*.lock") if _names(path, root)]
    for path in locks:
        path.unlink(missing_ok=True)
    for record in Path(root, "runs").glob("*/*/*/*/run.json"):
        # The record is written last and its ledger goes after it: this training is whole, and to train again costs
        # privacy again.
        if not (record.parent / "private" / "ledger.jsonl").exists():
            for name in ("run.json", "log.csv", "generator.safetensors"):
                _doubts(record.parent / name).unlink(missing_ok=True)
    return bool(locks)


def _names(lock: Path, root: str) -> bool:
    return any(line.startswith(f"{root}/") for line in lock.read_text(encoding="utf-8", errors="replace").splitlines())


def _doubts(path: Path) -> Path:
    """Returns where Snakemake keeps that a file may be half-written."""
    return _noted("incomplete", path)


def is_recorded(path: Path) -> bool:
    """Returns whether Snakemake knows here what a file was made from.

    It does not of results that were copied without .snakemake, and takes them for what it would make.
    """
    return _noted("metadata", path).exists()


def _noted(what: str, path: Path) -> Path:
    return Path(".snakemake", what, base64.b64encode(os.fspath(path).encode()).decode())


def steps(call: str) -> list[int]:
    """Returns the processes of a call's steps that run on this machine."""
    wanted, found = f"{CALL}={call}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return sorted(found)


def _end_steps(call: str, patience: float = PATIENCE) -> None:
    running = steps(call)
    if not running:
        return
    print("notice: steps of a call that was killed still run; they end at their next checkpoint",
          file=sys.stderr, flush=True)  # fmt: skip
    _signal(running, signal.SIGTERM)
    end = time.monotonic() + patience
    while running := _alive(running, call):
        if time.monotonic() > end:
            raise UserError(f"steps of a call that was killed still run: end processes {', '.join(map(str, running))}")
        time.sleep(0.05)


def _alive(before: list[int], call: str) -> list[int]:
    """Returns those of the processes `before` that still run, and further steps of the call.

    A process that ends loses its environment first and the locks on its files after that.
    """
    return sorted({*(number for number in before if not _has_ended(number)), *steps(call)})


def _has_ended(number: int) -> bool:
    try:
        text = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return text.rpartition(")")[2].split()[0] in ("Z", "X")


def _signal(numbers: list[int], number: int) -> None:
    for running in numbers:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(running, number)


@contextlib.contextmanager
def _interruptible(root: str, file: Any, kept: Callable[[], str]) -> Iterator[None]:
    """Lets Ctrl-C end the call in one line, and a closed pipe in silence.

    No step is begun, those that run end, and nothing is left to unlock.
    """

    def end(number: int, _: Any) -> None:
        if number == signal.SIGPIPE and not process.has_no_reader():
            return
        process.end_quietly(again=True)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        logging.getLogger("snakemake.logging").disabled = True
        if number == signal.SIGINT:
            with contextlib.suppress(OSError):
                os.write(2, f"{process.interrupted_line(kept())}\n".encode())
        _leave(root, file)
        os._exit(128 + number)

    # Who ignores Ctrl-C, as in the background of a shell, goes on ignoring it.
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    before = {number: signal.signal(number, end) for number in (signal.SIGPIPE, *([] if ignored else [signal.SIGINT]))}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(root: str, file: Any) -> None:
    call, ends = os.environ[CALL], time.monotonic() + 1
    # At a terminal the steps have the signal too, and end by themselves.
    while steps(call) and time.monotonic() < ends:
        time.sleep(0.05)
    _signal(running := steps(call), signal.SIGTERM)
    while running := _alive(running, call):
        time.sleep(0.05)
    tidy(root)
    _write(file, "")


def check_folder() -> None:
    """Raises UserError where nothing can be written in the working folder: a dry run, too, leaves notes there."""
    try:
        Path(".snakemake").mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=".snakemake") as file:
            file.write(b"room")
    except OSError as error:
        raise UserError(f"cannot write in {Path.cwd()}: {error.strerror}; name another folder by -d FOLDER") from None


def no_rule(error: Exception, root: str) -> UserError:
    """Returns the error for a target that no rule makes, from Snakemake's own, with what a target may be."""
    named = re.search(r"No rule to produce (\S+)", str(error))
    what = short(named[1]) if named else "a target"
    return UserError(
        f"nothing makes {what}; a target is `all`, `print_config`, or a file of {root} such as {root}/scores.csv, which"
        " snakemake -n lists"
    )


def lift_default_limit(scheduling: Any) -> None:
    """Takes away Snakemake's default limit of 100 jobs a second; one that a user sets stays.

    It makes Snakemake look at every waiting job again each second, once for each job that has ended: half an hour of
    jobs later that is a tenth of a core and grows.
    """
    limit = getattr(scheduling, "max_jobs_per_timespan", None)
    if limit is not None and (limit.max_jobs, limit.timespan) == (100, 1):
        scheduling.max_jobs_per_timespan = None


def collect_seldom() -> None:
    """Lets Python look for cycles of garbage a tenth as often: a graph is objects by the hundred thousand that stay."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


def _runs_a_group(workflow: Any, settings: Any) -> bool:
    """Returns whether this call, inside a cluster's job, runs several steps itself."""
    if settings.dryrun_exec or not settings.local_exec or not workflow.remote_exec:
        return False
    return len(workflow.dag_settings.target_jobs) > 1


def guard(workflow: Any, root: str, fail: Callable[[Exception], Any], progress: Any) -> None:
    """Makes a Snakemake workflow hold `root` while it executes; `fail` ends the call with an error's one line.

    `progress` has the words for an end by Ctrl-C, and the last line of a call that has made all it was asked for, or
    of a dry run.

    A dry run changes nothing and holds nothing, nor does a step that Snakemake starts as a call of its own. Several
    steps that a cluster runs as one job share their imports as those of a local call do.
    """
    execute = workflow.execute
    collect_seldom()

    def holding(*arguments: Any, executor_plugin: Any, **named: Any) -> Any:
        try:
            check_folder()
        except UserError as error:
            return fail(error)
        from snakemake.exceptions import LockException, MissingRuleException

        lift_default_limit(workflow.scheduling_settings)
        settings = executor_plugin.common_settings
        try:
            if not workflow.is_main_process:
                cluster.leave_retries_to_the_caller(workflow)
            if settings.dryrun_exec or not workflow.is_main_process or not workflow.execution_settings.lock:
                with fork_server.running() if _runs_a_group(workflow, settings) else contextlib.nullcontext():
                    made = execute(*arguments, executor_plugin=executor_plugin, **named)
                if settings.dryrun_exec and (expected := progress.expected(workflow)):
                    print(expected, file=sys.stderr, flush=True)
                return made
            if not settings.local_exec:
                cluster.prepare(workflow, named.get("executor_settings"))
            libraries = fork_server.running() if settings.local_exec else contextlib.nullcontext()
            with held(root, settings.local_exec, progress.kept), libraries, process.raised():
                made = execute(*arguments, executor_plugin=executor_plugin, **named)
                print(progress.results(workflow), file=sys.stderr, flush=True)
                return made
        except LockException:
            return fail(UserError(
                f"{Path.cwd()}/.snakemake/locks holds a lock of a call that is not known here; if none runs in this"
                " folder, remove it by the same command with --unlock at its end"
            ))  # fmt: skip
        except MissingRuleException as error:
            return fail(no_rule(error, root))
        except UserError as error:
            return fail(error)

    workflow.execute = holding
