"""What the first charges of a run spend, by both counts: to be shown over its course, in a fraction of a second.

The numbers that hold a run to its budget are those of `published` and `sound`; these are theirs but for the grid of
the sound one, which is not refined here, so that it may lie above by about a percent, never below.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from dp_accounting import rdp

from methods.core.accounting import published, sound
from methods.core.release import Release


@functools.lru_cache(maxsize=64)
def along(
    releases: tuple[Release, ...], delta: float, whole: tuple[float, float], points: int = 20
) -> tuple[tuple[int, float, float], ...]:
    """Returns (charges, published epsilon, sound epsilon) at most `points` times, from the first charge to the last.

    Args:
        releases: in the order in which their charges are made.
        whole: both epsilons of all charges, as the plan states them: the last point, and no point's sound one is above.
    """
    total = sum(release.max_uses for release in releases)
    counts = sorted({round(count) for count in np.linspace(1, total, min(points, total))})
    found = []
    for count in counts[:-1]:
        used = tuple(_first(releases, count))
        found.append((count, _published(used, delta), min(_sound(used, delta), whole[1])))
    return (*found, (total, *whole))


def spent(used: Sequence[Release], delta: float, count: str) -> float:
    """Returns what these releases, used max_uses times each, cost by one count, "published" or "sound".

    In a tenth of the time of `calibration.epsilon`, and theirs but for the grid, as above; 0 where none is used.
    """
    used = tuple(release for release in used if release.max_uses)
    if not used:
        return 0.0
    return _sound(used, delta) if count == "sound" else _published(used, delta)


def _first(releases: Sequence[Release], count: int) -> Iterator[Release]:
    """Yields the releases of the first `count` charges."""
    for release in releases:
        uses = min(count, release.max_uses)
        if uses:
            yield dataclasses.replace(release, max_uses=uses)
        count -= uses


def _sound(releases: tuple[Release, ...], delta: float) -> float:
    queries = [sound.query(release) for release in releases]
    if all(query.pair == "revealed" for query in queries):
        return sound.epsilon(releases, delta)
    widest = max(sound._widest_loss(1 / query.sigma) for query in queries)
    grid = max(sound._GRID, widest / sound._MOST_POINTS)
    if delta < sound._LEAST_DELTA or grid >= sound._COARSEST:
        return math.inf
    composed = sound._composed(queries, delta, grid)
    return math.inf if composed is None else composed


def _published(releases: tuple[Release, ...], delta: float) -> float:
    substituted = any(sound.pair_of(release) == "substitution" for release in releases)
    if all(published._is_ours(release, substituted) for release in releases):
        return _sound(releases, delta)
    if not all(release.sampling == "poisson" for release in releases):
        return published.epsilon(releases, delta)
    # Renyi DP adds, and its curve of one use takes nearly all the time.
    curve = sum(release.max_uses * _curve(dataclasses.replace(release, max_uses=1)) for release in releases)
    return float(rdp.compute_epsilon(published._REAL_ORDERS, curve, delta)[0])


@functools.lru_cache(maxsize=64)
def _curve(release: Release) -> np.ndarray:
    return published._poisson_curve([release], published._REAL_ORDERS)
