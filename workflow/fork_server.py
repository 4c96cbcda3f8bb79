"""A process that forks for each step of a call of Snakemake: their libraries are imported once, not hundreds of times.

`running()` keeps one for a block. It listens on one socket for each package of commands; at the first command of a
package it forks a server of this package, which imports its libraries and then forks for each command. No command is
begun in a process that another one has run in.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workflow.common import process
from workflow.common.handover import BEGUN, ENDED, LENGTH, THREADS, VARIABLE

# What the commands of a package import that takes long. Training has a server of its own, for the memory that a run
# reports is that of its process: it must not hold what only scores need.
LIBRARIES: Mapping[str, Sequence[str]] = {
    "methods": ("torch", "torch._dynamo", "yaml", "dp_accounting"),
    "evaluation": (
        *("torch", "torch._dynamo", "yaml", "pandas", "scipy.linalg", "scipy.stats", "sklearn.neural_network"),
        "torch_fidelity",
    ),
}


@contextlib.contextmanager
def running(libraries: Mapping[str, Sequence[str]] = LIBRARIES) -> Iterator[None]:
    """Keeps a fork server for a block, and names it in the environment.

    Elsewhere than on Linux, and where no folder takes sockets, does nothing: each command loads its own libraries.
    """
    if sys.platform != "linux" or (found := _sockets(libraries)) is None:
        yield
        return
    folder, sockets = found
    ends, keeper = os.pipe()
    command = [sys.executable, "-m", "workflow.fork_server", str(ends)]
    command += [f"{package}={one.fileno()}={','.join(libraries[package])}" for package, one in sockets.items()]
    server = subprocess.Popen(
        command, pass_fds=[ends, *(one.fileno() for one in sockets.values())], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": THREADS},
    )  # fmt: skip
    os.close(ends)
    for one in sockets.values():
        one.close()
    os.environ[VARIABLE] = folder
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        os.close(keeper)
        server.wait()
        # A server that was killed could not.
        shutil.rmtree(folder, ignore_errors=True)


def _sockets(packages: Iterable[str]) -> tuple[str, dict[str, socket.socket]] | None:
    """Returns a new folder and in it a socket for each package, None where none can be made."""
    # A path of more than 107 bytes names no socket, so the user's own folder for such files may not do.
    for parent in (None, "/tmp"):
        with contextlib.suppress(OSError):
            folder = tempfile.mkdtemp(prefix="fork-server-", dir=parent)
            try:
                return folder, {package: _listening(folder, package) for package in packages}
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)
    return None


def _listening(folder: str, package: str) -> socket.socket:
    one = socket.socket(socket.AF_UNIX)
    one.bind(str(Path(folder, package)))
    one.listen(128)
    return one


class _Waiting:
    """Waits for files, for processes that end, and for the end of the call that keeps the server."""

    def __init__(self, keeper: int) -> None:
        self.selector = selectors.DefaultSelector()
        self.keeper = keeper
        self.kept = True
        self._heeded = signal.getsignal(signal.SIGINT)
        self.woken, self._wakes = os.pipe()
        os.set_blocking(self._wakes, False)
        signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self.let_go())
        # Those that it would end have it from the terminal themselves.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in (self.woken, keeper):
            self.selector.register(number, selectors.EVENT_READ)

    def let_go(self) -> None:
        """Notes that no further command comes."""
        if self.kept:
            self.kept = False
            self.selector.unregister(self.keeper)

    def ready(self) -> Iterator[Any]:
        """Yields the registered files that can be read, once there is one or a process has ended."""
        for key, _ in self.selector.select():
            if key.fileobj == self.woken:
                os.read(self.woken, 4096)
            elif key.fileobj == self.keeper:
                self.let_go()
            else:
                yield key.fileobj

    def forget(self) -> None:
        """In a forked process: leaves no trace of this one's signals and files."""
        signal.set_wakeup_fd(-1)
        for key in list(self.selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self.selector.close()
        for number in (self.woken, self._wakes):
            os.close(number)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, self._heeded)


def _ended() -> Iterator[tuple[int, int]]:
    """Yields (process, exit code or minus signal) of the children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while True:
            child, status = os.waitpid(-1, os.WNOHANG)
            if not child:
                return
            yield child, os.waitstatus_to_exitcode(status)


def _start_servers(keeper: int, packages: dict[socket.socket, Sequence[str]]) -> None:
    """Forks the server of a package when its first command comes, until the keeper ends and they do."""
    waiting, servers = _Waiting(keeper), set()
    folders = {str(Path(listener.getsockname()).parent) for listener in packages}
    for listener in packages:
        waiting.selector.register(listener, selectors.EVENT_READ)
    while waiting.kept or servers:
        for listener in waiting.ready():
            waiting.selector.unregister(listener)
            server = os.fork()
            if not server:
                waiting.forget()
                _serve(keeper, listener, packages[listener])
                return
            servers.add(server)
            listener.close()
        servers.difference_update(child for child, _ in _ended())
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _serve(keeper: int, listener: socket.socket, libraries: Sequence[str]) -> None:
    """Forks for each command of a package, until the keeper ends and they have ended.

    In a forked process it runs the command and leaves by its SystemExit.
    """
    waiting = _Waiting(keeper)
    _load(libraries)
    waiting.selector.register(listener, selectors.EVENT_READ)
    commands: dict[int, socket.socket] = {}
    while waiting.kept or commands:
        for one in waiting.ready():
            if one is listener:
                # It is heard when it asks: one that stops before must not hold up the others.
                waiting.selector.register(listener.accept()[0], selectors.EVENT_READ)
                continue
            waiting.selector.unregister(one)
            if one in commands.values():
                # Who asked is gone, or says what nobody asked for: its command has no one to serve.
                _kill(commands, one)
                continue
            connection = one
            if (asked := _received(connection)) is None:
                connection.close()
                continue
            try:
                child = os.fork()
            except OSError:  # No room for a further process: who asked hears of none, and goes on alone.
                child = None
            if child == 0:
                waiting.forget()
                _become(connection, *asked)
            for number in asked[1]:
                os.close(number)
            if child is None:
                connection.close()
                continue
            commands[child] = connection
            waiting.selector.register(connection, selectors.EVENT_READ)
        for child, code in _ended():
            connection = commands.pop(child)
            with contextlib.suppress(KeyError):
                waiting.selector.unregister(connection)
            with contextlib.suppress(OSError):
                connection.sendall(f"{ENDED} {code}\n".encode())
            connection.close()


def _load(libraries: Sequence[str]) -> None:
    if "torch_fidelity" in libraries:
        importlib.import_module("workflow.common.torchvision_guard").ensure_torchvision()
    for name in libraries:
        with contextlib.suppress(Exception):  # The commands that need it will say what is wrong with it.
            importlib.import_module(name)
    # What all processes share is not gone through again by any, which would copy it.
    gc.collect()
    gc.freeze()


def _kill(commands: dict[int, socket.socket], connection: socket.socket) -> None:
    for child in [child for child, other in commands.items() if other is connection]:
        os.kill(child, signal.SIGKILL)


def _received(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Returns a request, and its standard streams and what lets it go on; None if who asks is gone already."""
    try:
        head, files, _, _ = socket.recv_fds(connection, LENGTH.size, 4)
        with connection.makefile("rb") as file:
            return json.loads(file.read(LENGTH.unpack(head)[0])), files
    except (OSError, ValueError, struct.error):
        return None


def _become(connection: socket.socket, request: dict[str, Any], files: list[int]) -> None:
    """Runs a command in this process, as `python -m` would have, and ends it."""
    *streams, may_go = files
    # From here on Ctrl-C reaches this process too, and it waits until one of the two heeds it.
    process.end_quietly()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        os.setpgid(0, request["group"])
        os.chdir(request["folder"])
    except OSError:
        # Who asked hears of no process, and goes on alone.
        os._exit(1)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["environment"])
    _open_streams()
    connection.sendall(f"{BEGUN} {os.getpid()}\n".encode())
    connection.close()
    if not os.read(may_go, 1):
        os._exit(1)  # Who asked was ended before it could pass on what ends a command.
    os.close(may_go)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    package, *arguments = request["arguments"]
    sys.argv, sys.path[0], sys.orig_argv = (
        ["-m", *arguments],
        request["folder"],
        [sys.executable, "-m", package, *arguments],
    )
    runpy.run_module(package, run_name="__main__", alter_sys=True)
    raise SystemExit


def _open_streams() -> None:
    """Opens Python's standard streams anew: they have noted of the server's what differs, such as that it can seek."""
    raw = bool(os.environ.get("PYTHONUNBUFFERED"))
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        before, mode = getattr(sys, name), "rb" if name == "stdin" else "wb"
        binary = os.fdopen(number, mode, 0 if raw and number else -1, closefd=False)
        lines = number == 2 or os.isatty(number)
        stream = io.TextIOWrapper(binary, before.encoding, before.errors, line_buffering=lines, write_through=raw)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def main() -> None:
    """Serves on the sockets that the command line names until the pipe that it names first is closed."""
    keeper, *packages = sys.argv[1:]
    found = {}
    for text in packages:
        _, number, libraries = text.split("=")
        found[socket.socket(fileno=int(number))] = libraries.split(",")
    _start_servers(int(keeper), found)


if __name__ == "__main__":
    main()
