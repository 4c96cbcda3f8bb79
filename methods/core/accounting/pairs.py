"""Dominating pairs of one noisy answer, and their privacy loss on a grid, rounded up so that every count stays a bound.

In each pair (P, Q) the loss L = log P/Q is drawn under P. Outcomes of Gaussian pairs are in units of the noise.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import special


class Query(NamedTuple):
    """A Gaussian (or Laplace) query repeated `count` times, in the normal form that the sound accountant composes.

    `pair` names the dominating pair of distributions of one use for neighbouring data sets: "revealed" (the draw is
    given away), "one_draw", "poisson", "substitution" or "laplace"; `rate` is the probability that the record counts;
    `sigma` is the noise relative to the sensitivity.
    """

    pair: str
    rate: float
    sigma: float
    count: int


class Masses(NamedTuple):
    """A discrete loss: its probabilities [points] at `losses` [points], ascending, and at infinity.

    The hockey-stick curve of these is at or above the pair's own at every epsilon, so its compositions are too
    (Doroshenko et al. 2022, "Connect the dots").
    """

    losses: np.ndarray
    masses: np.ndarray
    infinite: float


def directions(query: Query) -> tuple[str, ...]:
    """The two worlds of a pair that is not its own mirror image: a record is removed, or added; else one."""
    return ("remove", "add") if query.pair == "poisson" and query.rate < 1 else ("remove",)


def reach(query: Query, tail: float) -> float:
    """Returns how many units of noise an answer lies off its centre, with a probability below `tail` above that."""
    return float(-special.ndtri(max(tail, 1e-300)))


def span(query: Query, tail: float) -> tuple[float, float]:
    """Returns the least and largest finite losses to keep: what lies beyond has a probability of at most `tail`."""
    if query.pair == "laplace":
        return -1 / query.sigma, 1 / query.sigma
    far = reach(query, tail)
    low, high = _loss(query, np.array([-far - _centre(query), far + _centre(query)]))
    if query.pair == "one_draw":
        low = 0.0
    return min(float(low), 0.0), float(high)


def outline(query: Query, tail: float) -> np.ndarray:
    """Returns some thousand losses, ascending, that lie dense where the loss has its mass."""
    low, high = span(query, tail)
    if query.pair == "laplace":
        return np.linspace(low, high, 401)
    far, centre = reach(query, tail), _centre(query)
    around = np.linspace(-far, far, 1001)
    points = np.concatenate([around - centre, around, around + centre])
    losses = np.unique(np.append(_loss(query, points), 0.0))
    return losses[(losses >= low) & (losses <= high) & np.isfinite(losses)]


def discrete(query: Query, edges: np.ndarray, direction: str) -> Masses:
    """Returns the loss of one use, moved to `edges` [points] (ascending, with 0) so that mass and E[e^-L] are kept.

    What lies above the last edge counts as infinite, what lies below the first moves up to it. A "one_draw" is its own
    mirror image, and takes edges from 0 on.
    """
    log_p, log_q = _cells(query, edges)
    if direction == "add":
        return _moved(-edges[::-1], log_q[::-1], log_p[::-1])
    moved = _moved(edges, log_p, log_q)
    if query.pair == "one_draw":
        return _mirrored(edges, moved, log_p, log_q)
    if query.pair == "revealed" and query.rate < 1:
        masses = query.rate * moved.masses
        masses[np.searchsorted(edges, 0.0)] += 1 - query.rate
        return Masses(edges, masses, query.rate * moved.infinite)
    return moved


def _moved(edges: np.ndarray, log_p: np.ndarray, log_q: np.ndarray) -> Masses:
    # A cell's mass p splits between its ends so that E[e^-L], which is its mass q in the other world, is kept too.
    gaps = np.diff(edges)
    cell, other = np.exp(log_p[1:-1]), log_q[1:-1]
    with np.errstate(invalid="ignore", over="ignore"):
        share = (np.exp(other + edges[:-1] - log_p[1:-1]) - np.exp(-gaps)) / -np.expm1(-gaps)
    # A cell without mass has no share; rounding must not move mass below its cell.
    down = np.where(cell > 0, np.clip(np.nan_to_num(share), 0.0, 1.0), 0.0) * cell
    masses = np.zeros(len(edges))
    masses[0] = math.exp(log_p[0])
    masses[:-1] += down
    masses[1:] += cell - down
    return Masses(edges, masses, math.exp(log_p[-1]))


def _mirrored(edges: np.ndarray, upper: Masses, log_p: np.ndarray, log_q: np.ndarray) -> Masses:
    # Losses above 0 are those of "poisson"; below it stand their mirror images, and what is left of P has loss 0.
    lower = _moved(-edges[::-1], np.append(log_q[:0:-1], -math.inf), np.append(log_p[:0:-1], -math.inf))
    kept = upper.masses - (np.arange(len(edges)) == 0) * math.exp(log_p[0])
    rest = math.exp(log_p[0]) - math.exp(float(special.logsumexp(log_q[1:])))
    masses = np.concatenate([lower.masses[:-1], kept])
    masses[len(edges) - 1] += lower.masses[-1] + max(rest, 0.0)
    return Masses(np.concatenate([-edges[:0:-1], edges]), masses, upper.infinite)


def _cells(query: Query, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the logarithms of the masses under P and under Q of losses below, between and above `edges`."""
    if query.pair == "laplace":
        return _laplace_cells(1 / query.sigma, edges)
    points = np.concatenate([[-math.inf], _outcome(query, edges), [math.inf]])
    shift = _centre(query)
    undrawn, drawn = _log_between(points), _log_between(points - shift)
    if query.pair == "revealed" or query.rate == 1:
        return drawn, _log_between(points + shift) if query.pair == "substitution" else undrawn
    stay, go = math.log1p(-query.rate), math.log(query.rate)
    mixed = np.logaddexp(stay + undrawn, go + drawn)
    if query.pair == "substitution":
        return mixed, np.logaddexp(stay + undrawn, go + _log_between(points + shift))
    return mixed, undrawn


def _laplace_cells(most: float, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Half of P has the largest loss, and exp(-most) / 2 the smallest; between them its density is exp((L - most) / 2).
    ends = np.concatenate([[-math.inf], edges, [math.inf]])
    inside = np.clip(ends, -most, most)
    with np.errstate(divide="ignore"):
        width = np.log(-np.expm1(-np.diff(inside) / 2)) - math.log(2)
        log_p, log_q = width + (inside[1:] - most) / 2, width - (inside[:-1] + most) / 2
    top, bottom = np.searchsorted(edges, [most, -most])
    log_p[top] = np.logaddexp(log_p[top], -math.log(2))
    log_q[top] = np.logaddexp(log_q[top], -most - math.log(2))
    log_p[bottom] = np.logaddexp(log_p[bottom], -most - math.log(2))
    log_q[bottom] = np.logaddexp(log_q[bottom], -math.log(2))
    return log_p, log_q


def _centre(query: Query) -> float:
    # Two answers that may differ by the sensitivity lie at its ends, or on both sides of an undrawn one.
    return 1 / (2 * query.sigma) if query.pair == "substitution" else 1 / query.sigma


def _log_between(points: np.ndarray) -> np.ndarray:
    """Returns log P(a < Z < b) of a standard normal Z for neighbours a < b among `points`, precise in both tails."""
    # Cells above 0 are mirrored, so that no small mass is a difference of large ones.
    above = points[:-1] > 0
    low = np.where(above, -points[1:], points[:-1])
    high = np.where(above, -points[:-1], points[1:])
    log_low, log_high = special.log_ndtr(low), special.log_ndtr(high)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(low < high, log_high + np.log(-np.expm1(log_low - log_high)), -math.inf)


def _loss(query: Query, outcome: np.ndarray) -> np.ndarray:
    shift = _centre(query)

    def ratio(shift: float) -> np.ndarray:
        drawn = shift * outcome - shift**2 / 2
        if query.rate == 1 or query.pair == "revealed":
            return drawn
        return np.logaddexp(math.log1p(-query.rate), math.log(query.rate) + drawn)

    return ratio(shift) - ratio(-shift) if query.pair == "substitution" else ratio(shift)


def _outcome(query: Query, loss: np.ndarray) -> np.ndarray:
    """Returns the outcome [points] at which the loss is `loss`; minus infinity for losses that none has."""
    shift = _centre(query)
    if query.pair == "substitution":
        if query.rate == 1:
            return loss / (2 * shift)
        with np.errstate(divide="ignore"):
            half = np.abs(loss) / 2
            log_sinh = half + np.log(-np.expm1(-2 * half)) - math.log(2)
        sine = log_sinh + math.log1p(-query.rate) - math.log(query.rate) + shift**2 / 2
        return (loss / 2 + np.sign(loss) * np.logaddexp(sine, np.logaddexp(0.0, 2 * sine) / 2)) / shift
    if query.rate == 1 or query.pair == "revealed":
        return loss / shift + shift / 2
    # log(e^loss - 1 + rate), in the form that keeps small losses, or large ones.
    with np.errstate(divide="ignore"):
        small = np.log(np.maximum(np.expm1(np.minimum(loss, 1.0)) + query.rate, 0.0))
    large = loss + np.log1p(-(1 - query.rate) * np.exp(-np.maximum(loss, 1.0)))
    return (np.where(loss < 1, small, large) - math.log(query.rate)) / shift + shift / 2
