"""Work over many files in order, with a progress bar, by one thread or by several."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
SIZE = 64


def threads() -> int:
    """Returns $OMP_NUM_THREADS, which the workflow sets for each job, or else the number of cores at hand."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal():
        return max(1, int(given))
    # macOS does not say which cores a process may use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_chunks(count: int, work: Callable[[slice], T], title: str, workers: int = 1) -> Iterator[T]:
    """Yields `work(slice)` for slices of 64 that cover 0..count, in order; the first error in that order is raised.

    Several `workers` are threads: Pillow lets go of Python's lock while it decodes, which pays for large pictures.
    For small files they only wait for each other.
    """
    slices = [slice(start, min(start + SIZE, count)) for start in range(0, count, SIZE)]
    pool = ThreadPoolExecutor(workers) if workers > 1 else None
    try:
        results = map(work, slices) if pool is None else pool.map(work, slices)
        with tqdm(total=count, desc=title, unit="picture", disable=None) as bar:
            for part, done in zip(slices, results, strict=True):
                bar.update(part.stop - part.start)
                yield done
    finally:
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
