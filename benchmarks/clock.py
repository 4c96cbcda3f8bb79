"""Timing: alternating runs of two contestants, medians, and the spread of their paired ratios."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch

Run = Callable[[], object]
# A first run this many times longer than a block needs no second one to tell that it fills the block.
_SURELY = 4


def seconds(run: Run, device: torch.device, loops: int = 1) -> float:
    """Returns the wall seconds of one of `loops` runs in a row, with the device's queue empty at both ends."""
    _settle(device)
    started = time.perf_counter()
    for _ in range(loops):
        run()
    _settle(device)
    return (time.perf_counter() - started) / loops


def warm_up(run: Run, device: torch.device, least: float) -> int:
    """Returns how many runs in a row take `least` seconds, from one run or two that prepare the kernels as well."""
    if seconds(run, device) > _SURELY * least:
        return 1
    return max(1, math.ceil(least / seconds(run, device)))


def alternate(ours: Run, other: Run, device: torch.device, repeats: int, least: float) -> Comparison:
    """Times two runs in turn, A B A B ..., so that whatever else the machine does meets both alike.

    After a warm-up of each come `repeats` pairs of blocks of at least `least` seconds.
    """
    return Comparison(*in_turn([ours, other], device, repeats, least))


def in_turn(runs: Sequence[Run], device: torch.device, repeats: int, least: float) -> list[tuple[float, ...]]:
    """Returns the seconds of each run, `repeats` of them: entry i of all was measured one right after the other."""
    sides = [(run, warm_up(run, device, least)) for run in runs]
    rounds = [tuple(seconds(run, device, loops) for run, loops in sides) for _ in range(repeats)]
    return list(zip(*rounds, strict=True))


@dataclass(frozen=True)
class Comparison:
    """Seconds of paired runs; entry i of both was measured one right after the other."""

    ours: tuple[float, ...]
    other: tuple[float, ...]

    @property
    def speedup(self) -> float:
        """The ratio of medians, the other over ours: above 1, ours is faster."""
        return median(self.other) / median(self.ours)

    @property
    def spread(self) -> tuple[float, float]:
        """The smallest and the largest ratio of a pair."""
        ratios = [slow / fast for fast, slow in zip(self.ours, self.other, strict=True)]
        return min(ratios), max(ratios)


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
