"""A command of several parts says how far it is: as each begins, and once a minute in between, as the graph does."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from types import TracebackType

from workflow.common.process import CLEAR
from workflow.progress import EVERY_SECONDS, FALLBACK_SECONDS, line
from workflow.schedule import Schedule, Task


class Parts:
    """The parts of one call, which come one after the other; a block around them all ends with a last line.

    Args:
        seconds: name -> the seconds of a core that are expected of each part, None where nobody knows. They count as
            much longer or shorter as the parts took that have ended here.
    """

    def __init__(self, seconds: Mapping[str, float | None]) -> None:
        expected = {name: FALLBACK_SECONDS if one is None else one for name, one in seconds.items()}
        self._keys = {name: key for key, name in enumerate(seconds)}
        tasks = {self._keys[name]: Task(one, name=name, kind=name) for name, one in expected.items()}
        self._schedule = Schedule(tasks, slots=1)
        self.seconds = sum(expected.values()) if None not in seconds.values() else math.inf
        self._begun = time.monotonic()
        self._lock, self._over = threading.Lock(), threading.Event()

    def __len__(self) -> int:
        return len(self._keys)

    def __enter__(self) -> Parts:
        threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        if error is None:
            self.report()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Says that a part begins, and notes when the block around it has ended well."""
        with self._lock:
            self._schedule.start(self._keys[name], time.monotonic())
        self.report()
        yield
        with self._lock:
            self._schedule.end(self._keys[name], time.monotonic())

    def report(self) -> None:
        """Prints the progress line."""
        now = time.monotonic()
        with self._lock:
            left = None if math.isfinite(self.seconds) else math.inf
            text = line(self._schedule, now - self._begun, now, left)
        # A bar of an epoch's own may be half drawn on the terminal. One that was closed ends nothing.
        with contextlib.suppress(OSError):
            print(f"{CLEAR if os.isatty(2) else ''}{text}", file=sys.stderr, flush=True)

    def _tick(self) -> None:
        while not self._over.wait(EVERY_SECONDS):
            self.report()
