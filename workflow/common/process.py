"""A command's process: Ctrl-C and closed pipes end it in one line or in silence, and it prints and draws anywhere.

A package whose modules are commands calls `begin()` in its `__init__.py`, the first of its code that runs.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from workflow.common.handover import hand_over
from workflow.common.pins import pin

INTERRUPTED = 128 + signal.SIGINT
CLOSED_PIPE = 128 + signal.SIGPIPE
LINE = "interrupted: the same command goes on from what is finished"
CLEAR = "\r\x1b[K"  # what a progress line, and the terminal's own ^C, have left on the last line goes
_quiet = False
_begun = 0, 0.0  # the process that was readied, and when


class Stopped(SystemExit):
    """How a command ends on a signal after it has stored what it did; `kept` is said in its one line."""

    def __init__(self, number: int, kept: str) -> None:
        super().__init__(128 + number)
        self.kept = kept


class Signals:
    """Notes signals for a block, in place of what they do elsewhere, so that it ends where it can be gone on from.

    What a block around this one has noted is noted here from the beginning. A block that ends as if no signal had come
    passes it on: what the signal does elsewhere happens then. What is ignored stays ignored, as in a background job.

    Args:
        numbers: of the signals; none given: SIGTERM and SIGINT.

    Attributes:
        received: the number of the last one that came; 0: none did.
    """

    def __init__(self, *numbers: int) -> None:
        self._numbers, self.received = numbers or (signal.SIGTERM, signal.SIGINT), 0

    def stop(self, kept: str) -> None:
        """Raises Stopped, with what is said to be kept, if a signal came."""
        if self.received:
            raise Stopped(self.received, kept)

    def note(self, number: int, _: Any) -> None:
        """Notes a signal, as its handler."""
        self.received = number

    def __enter__(self) -> Signals:
        heard = (number for number in self._numbers if signal.getsignal(number) is not signal.SIG_IGN)
        self._before = {number: signal.signal(number, self.note) for number in heard}
        for around in (getattr(handler, "__self__", None) for handler in self._before.values()):
            if isinstance(around, Signals):
                self.received = self.received or around.received
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.received and kind is None:
            signal.raise_signal(self.received)


def interrupted_line(kept: str = "") -> str:
    """Returns the one line with which Ctrl-C ends a command, in place of one that is half drawn on the terminal."""
    line = f"interrupted: {kept}" if kept else LINE
    with contextlib.suppress(OSError):
        return f"{CLEAR if os.isatty(2) else ''}{line}"
    return line


def begin() -> None:
    """Readies the process of `python -m`: Ctrl-C ends it in one line while its modules load, which takes seconds.

    Does nothing in a process that only imports the package.
    """
    # While Python looks for the module that -m names, this stands in the place of its path.
    if sys.argv[:1] == ["-m"]:
        ready()
        # Here, before anything else is imported, or both would be in vain.
        pin()
        hand_over()


def ready() -> None:
    """Readies this process, whatever started it."""
    global _begun
    _begun = os.getpid(), time.monotonic()
    print_anything()
    draw_anywhere()
    end_quietly()


def seconds_so_far() -> float:
    """Returns the seconds since this process was readied, before its imports; 0 where it was not, as in a notebook."""
    # One that was forked has the number of another.
    return time.monotonic() - _begun[1] if _begun[0] == os.getpid() else 0.0


def print_anything() -> None:
    """Lets stdout and stderr of any encoding take any text: what ASCII lacks is printed as \\xe9."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def draw_anywhere() -> None:
    """Draws into files, whatever a notebook or a desktop has set for its own windows."""
    os.environ["MPLBACKEND"] = "agg"


def end_quietly(again: bool = False) -> None:
    """Makes Ctrl-C end the process at once, where nothing is to be cleaned up: one line on stderr, exit code 130.

    Another handler than Python's own stays unless `again`: nohup and a shell's background jobs ignore the signal.
    """
    global _quiet
    if again or _handler() is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
        _quiet = True


def _end(*_: Any) -> None:
    os.write(2, f"{interrupted_line()}\n".encode())
    os._exit(INTERRUPTED)


def _handler() -> Any:
    main = threading.current_thread() is threading.main_thread()
    return signal.getsignal(signal.SIGINT) if main else None


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """After `end_quietly`: makes Ctrl-C a KeyboardInterrupt for a block, so that the block cleans up behind itself."""
    with _swapped(_end, signal.default_int_handler):
        yield


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Inside `raised`: as before it, for a block that only imports. Some libraries swallow a KeyboardInterrupt."""
    with _swapped(signal.default_int_handler, _end) if _quiet else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _swapped(expected: Any, other: Any) -> Iterator[None]:
    if _handler() is not expected:
        yield
        return
    signal.signal(signal.SIGINT, other)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, expected)


def is_closed(stream: Any) -> bool:
    """Returns whether `stream` is a pipe that nobody reads any more."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError, AttributeError):  # No file, or closed by its owner.
        return False


def end_with_the_reader() -> None:
    """Makes the process end in silence, exit code 141, where it prints into a pipe that nobody reads any more."""
    signal.signal(signal.SIGPIPE, lambda *_: os._exit(CLOSED_PIPE) if has_no_reader() else None)


def has_no_reader() -> bool:
    """Returns whether stdout or stderr is a pipe that nobody reads any more."""
    return is_closed(sys.stdout) or is_closed(sys.stderr)


def drop_output() -> None:
    """Sends nowhere what is still to be printed into closed pipes."""
    for stream in filter(is_closed, (sys.stdout, sys.stderr)):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
