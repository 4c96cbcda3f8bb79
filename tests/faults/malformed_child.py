"""Runs cases in a forked process of bounded memory, each within a time limit; what ends or stalls it is found too."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

MEMORY = 1 << 30  # bytes that a case may have beyond what the process has when it begins
WAIT = 4  # times as long by the clock as by the processor
GRACE = 10.0  # seconds after a case's limit in which Python's own alarm must have ended it


@dataclass(frozen=True)
class Outcome:
    """How a case ended: refused, accepted, traceback, hang, wrong (accepted, but out of range) or lines (not one)."""

    kind: str
    detail: str = ""


Case = Callable[[Path], Outcome]


class Hang(BaseException):
    """What the alarm raises."""


def run(cases: Sequence[Case], files: Path, seconds: float, copied: bool = True) -> Iterator[Outcome]:
    """Yields the outcome of each case, called in a folder of its own with all that is in `files`.

    Not `copied`, the files are linked, which takes less: for cases that write into none of them.
    """
    done = 0
    while done < len(cases):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _serve(cases[done:], files, seconds, copied, writing)
        os.close(writing)
        with open(reading, "rb") as stream:
            for outcome in _received(stream, WAIT * seconds + GRACE):
                yield outcome
                done += 1
                if outcome.kind == "hang":
                    os.kill(child, signal.SIGKILL)
                    break
        _, status = os.waitpid(child, 0)
        if status and done < len(cases) and not os.WIFSIGNALED(status):
            yield Outcome("traceback", f"the process ended with status {status}")
            done += 1


def _received(stream: io.BufferedReader, patience: float) -> Iterator[Outcome]:
    while True:
        if not select.select([stream], [], [], patience)[0]:
            yield Outcome("hang", "nothing heard: stuck in a library")
            return
        try:
            yield pickle.load(stream)
        except EOFError:
            return


def _serve(cases: Sequence[Case], files: Path, seconds: float, copied: bool, writing: int) -> None:
    try:
        _confine()
        with open(writing, "wb", buffering=0) as stream, tempfile.TemporaryDirectory(prefix="malformed-") as base:
            for case in cases:
                stream.write(pickle.dumps(_outcome(case, files, Path(base), seconds, copied)))
    finally:
        os._exit(0)


def _confine() -> None:
    # After a fork libraries' threads are gone; one thread needs none.
    torch.set_num_threads(1)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    for name in ("create_connection", "getaddrinfo"):
        setattr(socket, name, _no_network)
    from workflow.datasets import downloads

    downloads.cached = _not_at_hand
    downloads.reachable = lambda address: False


def _no_network(*arguments: object, **named: object) -> None:
    raise OSError("no network here")


def _not_at_hand(*arguments: object) -> None:
    from workflow.datasets import downloads

    raise downloads.Unavailable("no network here")


def _outcome(case: Case, files: Path, base: Path, seconds: float, copied: bool) -> Outcome:
    # Deep enough that a path which climbs stays inside.
    top = base / "case"
    folder = top / "a/b/c/here"
    shutil.copytree(files, folder, symlinks=True, copy_function=shutil.copy if copied else os.link)
    os.chdir(folder)
    np.random.seed(0)
    previous = [signal.signal(number, _stop) for number in (signal.SIGALRM, signal.SIGPROF)]
    # By the processor's time, so that a busy machine makes no hang; by the clock for what waits for ever.
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, WAIT * seconds)
    try:
        with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8")):
            return case(folder)
    except Hang:
        return Outcome("hang", traceback.format_exc(limit=-3))
    except BaseException as error:
        return Outcome("traceback", _where(error))
    finally:
        for timer in (signal.ITIMER_REAL, signal.ITIMER_PROF):
            signal.setitimer(timer, 0)
        for number, handler in zip((signal.SIGALRM, signal.SIGPROF), previous, strict=True):
            signal.signal(number, handler)
        os.chdir(base)
        shutil.rmtree(top, ignore_errors=True)


def _stop(number: int, frame: object) -> None:
    raise Hang


def _where(error: BaseException) -> str:
    """Returns the last line of this repository's in the traceback, and the error."""
    root = str(Path(__file__).resolve().parents[2])
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(root)]
    frames = [frame for frame in frames if "/faults/" not in frame.filename]
    place = f"{os.path.relpath(frames[-1].filename, root)}:{frames[-1].lineno}" if frames else "outside"
    return f"{place}: {type(error).__name__}: {str(error)[:200]!r}"


def judged_command(run_command: Callable[[], int | None], codes: Sequence[int]) -> Outcome:
    """Returns how a command ended: 2 must come with one line `error: ...` on stderr and nothing else that says so."""
    heard = io.StringIO()
    with contextlib.redirect_stderr(heard):
        try:
            code = run_command()
        except SystemExit as end:
            code = end.code
    text = heard.getvalue()
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    if code == 2 and (len(lines) != 1 or "usage: " in text or not text.rstrip("\n").endswith(lines[0])):
        return Outcome("lines", f"{len(lines)} lines of error: {text[-300:]!r}")
    if code == 2:
        return Outcome("refused", lines[0])
    if code not in codes or lines:
        return Outcome("lines", f"exit code {code!r} with {text[-300:]!r}")
    return Outcome("accepted")


if sys.platform != "linux":
    raise ImportError("the limits on memory need Linux")
