"""Epsilon of many noisy answers as an upper bound with its rounding counted, at any delta that a double can hold.

The loss is tilted (each mass times e^(t loss), Esscher) so that what matters at delta lies amid it, where a Fourier
transform's rounding is small against it; tilting commutes with composition. Everything uncertain is rounded up: the
grid (see `pairs`), the tails outside the window (Chernoff), and the transform's rounding, which is added to each mass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from methods.core.accounting import pairs
from methods.core.accounting.pairs import Masses, Query

# Share of delta that goes to losses which are cut off and count as infinite.
_CUT = 1e-7
# Grid cells to one standard deviation of one loss, at first; standard deviations of the sum in a window.
_CELLS, _WINDOW = 8, 16
# The grid is fine enough where halving it moves epsilon by less than this share, of at least so much.
_TOLERANCE, _SMALL = 1e-3, 1e-3
# Most points of a sum and losses of one use, and how many times more where one grid is asked for.
_MOST_POINTS, _MOST_LOSSES, _FINER = 2**20, 2**18, 4
# For each use, the relative error of a mass and the absolute one of a loss; for each stage of a transform, the error
# in units of the sum of what it adds.
_MASS_ERROR, _LOSS_ERROR, _STAGE_ERROR = 1e-11, 1e-15, 1e-15


class _Outline(NamedTuple):
    """How a plan's loss looks at the tilt `tilt`: mean and standard deviation of the sum."""

    tilt: float
    mean: float
    deviation: float


class _Part(NamedTuple):
    """The tilted loss of one query on the grid: masses that sum to 1 from `low` grid steps on, and its uses."""

    low: int
    masses: np.ndarray
    log_mean: float
    infinite: float
    count: int


def epsilon(queries: Sequence[Query], delta: float, grid: float | None = None) -> float:
    """Returns an upper bound on epsilon at `delta` of all uses of all queries, for delta from 1e-300 up to 1.

    The grid is halved until epsilon falls by less than a thousandth, or is `grid`; either way at most 2^22 points and
    2^20 losses a use are kept, so that a call takes seconds and 1 GiB at most, and a plan that asks for more gets a
    coarser, looser bound.
    """
    worlds = ("remove", "add") if any(len(pairs.directions(query)) > 1 for query in queries) else ("remove",)
    return max(_one_world(queries, delta, world, grid) for world in worlds)


def _one_world(queries: Sequence[Query], delta: float, world: str, grid: float | None) -> float:
    tail = delta * _CUT / sum(query.count for query in queries)
    outline = _outlined(queries, delta, world, tail)
    spans = [pairs.span(query, tail) for query in queries]
    finest = max(_WINDOW * outline.deviation / _MOST_POINTS, *((high - low) / _MOST_LOSSES for low, high in spans))
    if grid is not None:
        return _on_grid(queries, delta, world, outline, spans, max(grid, finest / _FINER))
    grid = max(outline.deviation / math.sqrt(sum(query.count for query in queries)) / _CELLS, finest)
    found, finer = math.inf, _on_grid(queries, delta, world, outline, spans, grid)
    while found - finer > _TOLERANCE * max(finer, _SMALL) and grid > finest:
        grid = max(grid / 2, finest)
        found, finer = finer, _on_grid(queries, delta, world, outline, spans, grid)
    return min(found, finer)


def _on_grid(
    queries: Sequence[Query], delta: float, world: str, outline: _Outline, spans: Sequence[tuple[float, float]],
    grid: float,
) -> float:  # fmt: skip
    if len(queries) == 1 and queries[0].pair == "laplace":
        # Half of the mass has the largest loss, which is best a grid point.
        grid = spans[0][1] / math.ceil(spans[0][1] / grid)
    parts = [_part(query, world, grid, outline.tilt, span) for query, span in zip(queries, spans, strict=True)]
    return _solved(_Composed(parts, outline, grid, delta), delta)


def _world(query: Query, world: str) -> str:
    return world if world in pairs.directions(query) else "remove"


def _outlined(queries: Sequence[Query], delta: float, world: str, tail: float) -> _Outline:
    # The tilt that makes Renyi DP's bound on epsilon smallest, from coarse losses: any tilt is right, a good one tight.
    parts = [
        (pairs.discrete(query, pairs.outline(query, tail), _world(query, world)), query.count) for query in queries
    ]
    logs = [(masses.losses[masses.masses > 0], np.log(masses.masses[masses.masses > 0]), n) for masses, n in parts]

    def bound(log_tilt: float) -> float:
        tilt = math.exp(log_tilt)
        total = sum(n * special.logsumexp(log + tilt * losses) for losses, log, n in logs)
        return float(total - math.log(delta)) / tilt

    tilt = math.exp(optimize.minimize_scalar(bound, bounds=(-35.0, 35.0), method="bounded").x)
    mean = variance = 0.0
    for losses, log, n in logs:
        weights = special.softmax(log + tilt * losses)
        centre = float(weights @ losses)
        mean, variance = mean + n * centre, variance + n * float(weights @ (losses - centre) ** 2)
    return _Outline(tilt, mean, math.sqrt(variance))


def _part(query: Query, world: str, grid: float, tilt: float, span: tuple[float, float]) -> _Part:
    low, high = math.floor(span[0] / grid), math.ceil(span[1] / grid) + 1
    loss = pairs.discrete(query, grid * np.arange(low, high + 1), _world(query, world))
    return _tilted(loss, grid, tilt, query.count)


def _tilted(loss: Masses, grid: float, tilt: float, count: int) -> _Part:
    with np.errstate(divide="ignore"):
        log = np.log(loss.masses) + tilt * loss.losses
    log_mean = float(special.logsumexp(log))
    return _Part(round(float(loss.losses[0]) / grid), np.exp(log - log_mean), log_mean, loss.infinite, count)


class _Composed:
    """The sum of all uses' tilted losses in a window around its mean, as upper bounds on its masses."""

    def __init__(self, parts: Sequence[_Part], outline: _Outline, grid: float, delta: float) -> None:
        self.parts, self.grid, self.tilt = parts, grid, outline.tilt
        centre = sum(part.count * float(part.masses @ (part.low + np.arange(len(part.masses)))) for part in parts)
        longest = sum(part.count * (len(part.masses) - 1) for part in parts) + 1
        wanted = min(longest, math.ceil(_WINDOW * outline.deviation / grid) + 64)
        self.log_mean = sum(part.count * part.log_mean for part in parts)
        most = _FINER * _MOST_POINTS
        self.points = min(2 ** math.ceil(math.log2(max(wanted, 64))), most)
        self.first = round(centre) - self.points // 2
        above = self._above()
        # Losses that are seldom and large reach further than a normal's.
        while above > _CUT * delta and self.points < most:
            self.points *= 2
            self.first = round(centre) - self.points // 2
            above = self._above()
        self.masses = self._masses()
        self.all = float(self.masses.sum())
        self.lost = above - math.expm1(sum(part.count * math.log1p(-part.infinite) for part in parts))

    def _masses(self) -> np.ndarray:
        stage = _STAGE_ERROR * math.log2(self.points)
        transforms = [np.fft.rfft(self._folded(part), self.points) for part in self.parts]
        with np.errstate(divide="ignore"):
            logs = [np.log(transform) for transform in transforms]
            product = np.exp(sum(part.count * log for part, log in zip(self.parts, logs, strict=True)))
        composed = np.fft.irfft(np.nan_to_num(product), self.points)
        start = self.first - sum(part.count * part.low for part in self.parts)
        composed = np.roll(composed, -(start % self.points))
        return np.maximum(composed, 0.0) + self._rounding(transforms, stage)

    def _folded(self, part: _Part) -> np.ndarray:
        return np.bincount(np.arange(len(part.masses)) % self.points, part.masses, self.points)

    def _rounding(self, transforms: Sequence[np.ndarray], stage: float) -> float:
        # Each coefficient is off by `stage` at most (its summands' sizes add up to 1), each power by count times that.
        sizes = [np.log(np.abs(transform) + stage) for transform in transforms]
        product = np.exp(sum(part.count * size for part, size in zip(self.parts, sizes, strict=True)))
        errors = sum(
            part.count * 2 * stage * np.exp(-size) * product for part, size in zip(self.parts, sizes, strict=True)
        )
        return float(2 * np.sum(errors + stage * product) / self.points)

    def _above(self) -> float:
        # Chernoff's bound on the untilted mass above the window, by larger tilts.
        top = (self.first + self.points - 1) * self.grid
        bounds = []
        for more in (2.0, 4.0, 8.0, 16.0, 32.0):
            tilt = self.tilt + more / (self.points * self.grid / _WINDOW)
            log = -tilt * top
            for part in self.parts:
                losses = (part.low + np.arange(len(part.masses))) * self.grid
                with np.errstate(divide="ignore"):
                    tilted = np.log(part.masses) + (tilt - self.tilt) * losses
                log += part.count * (part.log_mean + float(special.logsumexp(tilted)))
            bounds.append(log)
        last = sum(part.count * (part.low + len(part.masses) - 1) for part in self.parts)
        return 0.0 if last * self.grid <= top else math.exp(min(*bounds, 0.0))

    def log_delta(self, epsilon: float) -> float:
        """Returns the logarithm of an upper bound on delta at an epsilon inside the window."""
        above = max(math.floor(epsilon / self.grid) + 1 - self.first, 0)
        # Larger losses weigh e^-50 at most, all together.
        last = min(self.points, above + math.ceil(min(50 / (self.tilt * self.grid), self.points)))
        losses = (self.first + np.arange(above, last)) * self.grid - epsilon
        total = float(self.masses[above:last] @ (np.exp(-self.tilt * losses) * -np.expm1(-losses)))
        total += math.exp(-50) * (last < self.points) * self.all
        errors = (_MASS_ERROR + _LOSS_ERROR * self.tilt) * sum(part.count for part in self.parts)
        inside = self.log_mean - self.tilt * epsilon + math.log(max(total, 1e-300)) + errors
        return float(np.logaddexp(inside, math.log(max(self.lost, 1e-320))))


def _solved(composed: _Composed, delta: float) -> float:
    low = max(composed.first * composed.grid, 0.0)
    high = (composed.first + composed.points - 1) * composed.grid
    target = math.log(delta)
    if high <= low or composed.log_delta(low) <= target:
        return low
    if composed.log_delta(high) > target:
        return _renyi(composed, delta)
    # The Renyi bound is one too, and near.
    near = _renyi(composed, delta)
    if low < near < high and composed.log_delta(near) <= target:
        high = near
    root = optimize.brentq(lambda eps: composed.log_delta(eps) - target, low, high, xtol=1e-12, rtol=1e-10)
    step = 1e-12 + 1e-10 * root
    while composed.log_delta(root) > target:
        root, step = root + step, 2 * step
    return min(root, near)


def _renyi(composed: _Composed, delta: float) -> float:
    """Epsilon by the Renyi divergence of order 1 + tilt of the same discrete loss; infinite if too much is cut off."""
    infinite = -math.expm1(sum(part.count * math.log1p(-part.infinite) for part in composed.parts))
    if infinite >= delta:
        return math.inf
    return max(0.0, composed.log_mean - math.log(delta - infinite)) / composed.tilt
