"""Scaling: the engine's time and memory against shards, steps, images a step, critic width and image size.

The settings are small, so that costs that do not shrink with the sizes show. Every point is a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

import torch

from benchmarks.point import Point, in_own_process
from benchmarks.sizes import Axis, Sizes
from benchmarks.table import Row

PART = "scaling"
# What each kind of axis calls its seconds.
QUANTITIES = {"warm_start": "warm_start_seconds", "total": "total_seconds", "step": "step_seconds"}


def measure(sizes: Sizes, repeats: int, device: torch.device) -> Iterator[list[Row]]:
    """Yields the rows of one point after the other; `repeats` does not matter, a point's steps are its repeats."""
    for axis in sizes.axes:
        for value in axis.values:
            yield rows(axis, value, *in_own_process(point(axis, value, sizes), torch.get_num_threads(), device))


def count(sizes: Sizes, device: torch.device) -> int:
    """Returns how often `measure` yields."""
    return sum(len(axis.values) for axis in sizes.axes)


def point(axis: Axis, value: int, sizes: Sizes) -> Point:
    """Returns the point of an axis at a value: the small settings with that one changed."""
    steps = {"warm_start": 0, "total": value, "step": sizes.steps}[axis.measures]
    if axis.name == "image_size":
        return Point(dict(sizes.scaled), value, sizes.shard_size, steps)
    # The steps of a run are those that its noise is calibrated for; how many of them are timed is the point's own.
    changed = {} if axis.measures == "total" else {axis.name: value}
    return Point({**sizes.scaled, **changed}, 28, sizes.shard_size, steps)


def rows(axis: Axis, value: int, seconds: list[float], peak_memory_mib: float) -> list[Row]:
    """Returns a point's seconds (of the whole, or the median step with its range) and its peak memory."""
    name = QUANTITIES[axis.measures]
    if axis.measures == "step":
        time = Row(PART, axis.name, value, name, median(seconds), "s", min(seconds), max(seconds))
    else:
        time = Row(PART, axis.name, value, name, sum(seconds), "s")
    return [time, Row(PART, axis.name, value, "peak_memory", peak_memory_mib, "MiB")]
