"""Independent pieces of work on a processor's threads.

Small operations gain little from sharing one between threads; whole pieces side by side use each thread in full.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Item = TypeVar("Item")


def for_each(work: Callable[[Item], None], items: Sequence[Item], device: torch.device) -> None:
    """Calls `work` for each item: as many at a time as torch has threads, each with one thread; on a GPU in turn.

    What `work` computes must not depend on the other items. The first error ends the call, once the items that are at
    work are done, and is raised; items not begun are left.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        for item in items:
            work(item)
        return
    # Threads of a number of their own: torch counts them for each calling thread.
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        running = [pool.submit(work, item) for item in items]
        for done in wait(running, return_when=FIRST_EXCEPTION).done:
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
