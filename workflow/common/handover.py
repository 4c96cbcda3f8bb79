"""Hands a step's command over to a process that has its libraries loaded, where a call of Snakemake keeps one.

Importing torch and what it brings takes a command one to three seconds, and a benchmark is hundreds of commands. The
fork server (`workflow/fork_server.py`) imports once and forks for each. Only the standard library is imported here.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import sys
from typing import Any

# In a step's environment: the folder with one socket for each package whose commands are served.
VARIABLE = "IMAGE_BENCH_FORK_SERVER"
# A server's libraries have settled on this many threads when they were loaded.
THREADS = "1"
# What a server answers: the process that runs the command, and how it ended.
BEGUN, ENDED = "begun", "ended"
LENGTH = struct.Struct("!Q")


def hand_over() -> None:
    """Lets a fork server run this process's `python -m` command, and ends as that ends; returns where none does.

    The command has this process's arguments, folder, environment, standard streams and process group, so Ctrl-C
    reaches it by itself; SIGTERM and SIGHUP are passed on. If this process is killed, so is the command, which does
    nothing before this process is ready to pass on.
    """
    folder = os.environ.pop(VARIABLE, "")
    arguments = sys.orig_argv[2:] if sys.orig_argv[1:2] == ["-m"] else []
    if not folder or not arguments or os.environ.get("OMP_NUM_THREADS") != THREADS or not _streams_open():
        return
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(os.path.join(folder, arguments[0].split(".")[0]))
            go = _ask(connection, arguments)
            answers = connection.makefile("rb")
            running = _number(answers, BEGUN)
        except (OSError, ValueError):
            # No server, or it could not: this process loads the libraries itself.
            return
        _end_as(_wait(running, go, answers))


def _streams_open() -> bool:
    """Returns whether stdin, stdout and stderr are files: else the connection takes a closed one's place.

    The command would then hold the connection open as its own stream, and outlive this process.
    """
    try:
        for number in range(3):
            os.fstat(number)
    except OSError:
        return False
    return True


def _ask(connection: socket.socket, arguments: list[str]) -> int:
    """Sends the request; returns the file into which a byte lets the command go on, once it has begun."""
    umask = os.umask(0)
    os.umask(umask)
    request = json.dumps(
        {
            "arguments": arguments,
            "folder": os.getcwd(),
            "environment": dict(os.environ),
            "umask": umask,
            "group": os.getpgrp(),
        }
    ).encode()
    may_go, go = os.pipe()
    socket.send_fds(connection, [LENGTH.pack(len(request))], [0, 1, 2, may_go])
    os.close(may_go)
    connection.sendall(request)
    return go


def _wait(running: int, go: int, answers: Any) -> int:
    """Returns the exit code of the process `running`, or minus the signal that ended it."""

    def pass_on(number: int, _: Any) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(running, number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        # What was passed on may have ended it already; its answer says so.
        with contextlib.suppress(BrokenPipeError):
            os.write(go, b".")
        return _number(answers, ENDED)
    except (OSError, ValueError):
        # The server is gone, and nobody would hear how the command ends.
        pass_on(signal.SIGKILL, None)
        return -signal.SIGKILL


def _number(answers: Any, kind: str) -> int:
    """Returns the number in the next answer; raises ValueError where it is of another kind, or none comes."""
    found, _, number = answers.readline().decode().partition(" ")
    if found != kind:
        raise ValueError(found)
    return int(number)


def _end_as(code: int) -> None:
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler to reset.
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
