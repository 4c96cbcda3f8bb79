"""Throughput: whole iterations, and the warm start, of the project's engine against the textbook loop."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.clock import Comparison, alternate
from benchmarks.contestants import our_steps, our_warm_start, records, textbook_steps, textbook_warm_start
from benchmarks.sizes import Case, Sizes
from benchmarks.table import Row, compared

PART = "throughput"
NAMES = ("ours", "textbook", "speedup")


def measure(sizes: Sizes, repeats: int, device: torch.device) -> Iterator[list[Row]]:
    """Yields the rows of one case after the other."""
    for name, case in sizes.iterations.items():
        yield compared(PART, name, _iterations(case, sizes, repeats, device), NAMES)
    for name, case in sizes.warm_start.items():
        yield compared(PART, name, _warm_starts(case, sizes, repeats, device), NAMES)


def count(sizes: Sizes, device: torch.device) -> int:
    """Returns how often `measure` yields."""
    return len(sizes.iterations) + len(sizes.warm_start)


def _iterations(case: Case, sizes: Sizes, repeats: int, device: torch.device) -> Comparison:
    data = records(sizes.num_train)
    theirs = textbook_steps(case, *data, device)
    with our_steps(case, *data, device) as ours:
        return alternate(ours, theirs, device, repeats, sizes.seconds)


def _warm_starts(case: Case, sizes: Sizes, repeats: int, device: torch.device) -> Comparison:
    data = records(case.hp.num_shards * sizes.shard_size)
    ours, theirs = (partial(run, case, *data, device) for run in (our_warm_start, textbook_warm_start))
    return alternate(ours, theirs, device, repeats, sizes.seconds)
