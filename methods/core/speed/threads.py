"""Independent pieces of work on a processor's threads.

Small operations gain little from sharing one between threads; whole pieces side by side use each thread in full.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

from methods.core.speed.choices import CHOICES

Item = TypeVar("Item")
GoOn = Callable[[], None]


class Stopped(Exception):
    """The call that this piece of work belongs to has failed elsewhere or was interrupted."""


def for_each(work: Callable[[Item, GoOn], None], items: Sequence[Item], device: torch.device) -> None:
    """Calls `work(item, go_on)` for each item, as many at a time as torch has threads, each with one thread.

    What `work` computes must not depend on the other items; on a GPU, or with one thread, they come in turn. The first
    error, or an interruption of the caller, ends the call and is raised: items not begun are left, and those at work
    end where they next call `go_on`, which then raises Stopped.
    """
    threads, stop = torch.get_num_threads(), threading.Event()

    def go_on() -> None:
        if stop.is_set():
            raise Stopped

    if device.type != "cpu" or threads == 1 or not CHOICES.threads:
        for item in items:
            work(item, go_on)
        return
    # Threads of a number of their own: torch counts them for each calling thread.
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        running = [pool.submit(work, item, go_on) for item in items]
        for done in wait(running, return_when=FIRST_EXCEPTION).done:
            done.result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
