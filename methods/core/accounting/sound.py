"""The sound count: an upper bound on epsilon for any mechanism that does what its releases say.

Privacy loss distributions for drawn records, the exact Gaussian curve where nothing is drawn. It reads nothing but the
releases; sigma is a noise multiplier relative to the sensitivity.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import dp_accounting as dpa
import numpy as np
from dp_accounting.pld import common, pld_pmf
from dp_accounting.pld import privacy_loss_distribution as pld
from scipy import optimize, special, stats

from methods.core.accounting import tilted
from methods.core.accounting.pairs import Query
from methods.core.release import Release
from workflow.common.errors import UserError

# Losses are rounded to multiples of a grid, halved until epsilon moves by less than a relative tolerance.
_GRID, _GRID_TOLERANCE, _FINEST, _MOST_POINTS = 1.6e-2, 1e-3, 1e-4, 1e5
# Above this, e to the grid overflows.
_COARSEST = 100.0
# dp_accounting composes at larger deltas only, and no more points than these, of a sum and of one use.
_LEAST_DELTA, _MOST_COMPOSED, _MOST_LOSSES = 1e-9, 2**22, 2**19
_MOST_NOISE = 1e9
# Share of a delta below that, that goes to unlikely numbers of visits.
_TAIL = 1e-6


@functools.lru_cache(maxsize=256)
def epsilon(releases: tuple[Release, ...], delta: float) -> float:
    """A valid upper bound on epsilon for any method that does what its releases say. See `query` for the pairs.

    It holds at every delta in (0, 1), noise above 0 and number of uses. Where nothing is drawn it is the exact Gaussian
    curve, to 1e-9 of itself. Otherwise it is never below `tilted.epsilon`, whose grid, tails and rounding all err
    upwards: from delta 1e-9 on it is dp_accounting's number, composed on a grid twice as coarse, unless that one falls
    below; under 1e-9, where the rounding of dp_accounting's transform may exceed the delta, it is `tilted.epsilon`.
    Within 0.1 % of where it would settle on finer grids, but looser for very many uses with very unlike losses, whose
    memory (1 GiB) and time (30 s) are capped by coarser grids. Raises UserError for a plan that mixes adjacencies, or
    a release that no bound is known for.
    """
    relations = {release.adjacency for release in releases}
    if len(relations) > 1:
        raise UserError("no sound bound for a plan that mixes adjacencies; declare one for all its releases")
    queries = [query(release) for release in releases]
    # Giving the draws away bounds every Gaussian query, and is exact where nothing is drawn in secret.
    gaussian = all(query.pair != "laplace" for query in queries)
    bound = revealed(queries, delta) if gaussian else math.inf
    if all(query.pair == "revealed" for query in queries):
        return bound
    widest = max(_widest_loss(1 / query.sigma) for query in queries)
    if delta < _LEAST_DELTA or widest > _MOST_POINTS:
        return min(bound, tilted.epsilon(queries, delta))
    size = bound if gaussian else tilted.epsilon(queries, delta)
    first = max(_GRID, widest / _MOST_POINTS, size / _MOST_POINTS)
    found, grid = _settled(queries, delta, first, widest) if first < _COARSEST else (0.0, None)
    return min(bound, max(found, tilted.epsilon(queries, delta, grid)))


def _settled(queries: Sequence[Query], delta: float, grid: float, widest: float) -> tuple[float, float | None]:
    """Returns epsilon by dp_accounting on a grid so fine that a finer one would hardly lower it, and half that grid.

    Returns 0 and None where dp_accounting would take too many points.
    """
    coarse, fine = _composed(queries, delta, grid), _composed(queries, delta, grid / 2)
    if coarse is None or fine is None:
        return 0.0, None
    # Both are upper bounds, so stopping early is loose, never wrong.
    while abs(coarse - fine) > _GRID_TOLERANCE * fine and grid > _FINEST:
        finer = _composed(queries, delta, grid / 4) if widest / (grid / 4) < _MOST_LOSSES else None
        if finer is None:
            break
        grid /= 2
        coarse, fine = fine, finer
    return min(coarse, fine), grid / 4


def query(release: Release) -> Query:
    """Returns the normal form of a release for the sound accountant.

    Rows that are each a function of the data and share one draw are one query whose multiplier is noise / sqrt(rows).
    The pair, for a record that is in the draw with probability q, is:

    - all: the Gaussian pair, exact.
    - one shard of K, function, public state ("one_draw"): every answer, drawn or not, is some point of a ball as wide
      as the sensitivity, so by advanced joint convexity (Balle, Barthe, Gaboardi 2018) the curve is at most
      q * delta_gauss(log(1 + (e^eps - 1) / q)) for eps >= 0, and its mirror below. Replace-one, fixed shards.
    - the same with hidden state, or with a sum (whose undrawn shards may differ by more than the sensitivity):
      "revealed". Nothing is claimed from the draw's secrecy, only that a record's visits are binomial. Each shard's
      state remembers that shard alone.
    - poisson, add-or-remove: the Poisson-subsampled Gaussian pair of dp_accounting.
    - poisson, sum, replace-one ("substitution"): the undrawn record adds nothing, so both drawn answers lie within half
      the sensitivity of the undrawn one, and the ends of a diameter are the worst (proof: docs/privacy.md). Holds with
      hidden state too if each unit remembers only its own draws.
    - poisson, function, replace-one: the undrawn answer is only known to lie in the same ball: "one_draw".
    - poisson, function, hidden state: the state may carry any record into any answer, so the draw counts for nothing.

    Raises UserError for Laplace noise on drawn records.
    """
    # Less noise costs no less, and keeps the arithmetic finite.
    count, sigma = release.max_uses * release.answers, min(release.noise, _MOST_NOISE)
    if release.bounded == "function" and (release.draws == "per_row" or release.kind == "laplace"):
        count *= release.rows
    elif release.bounded == "function":
        sigma /= math.sqrt(release.rows)
    if release.kind == "laplace":
        if release.rate < 1:
            raise UserError(f"no sound bound for Laplace release {release.name} on drawn records; use sampling all")
        return Query("laplace", 1.0, sigma, count)
    forgets = release.sampling != "poisson" or release.bounded == "sum" or release.state == "public"
    return Query(pair_of(release), release.rate if forgets else 1.0, sigma, count)


def pair_of(release: Release) -> str:
    poisson_sum = release.sampling == "poisson" and release.bounded == "sum"
    if release.rate == 1 or (release.state == "hidden" and not poisson_sum):
        return "revealed"
    if release.sampling == "one_shard_of_k":
        return "revealed" if release.bounded == "sum" else "one_draw"
    if release.adjacency == "add_or_remove":
        return "poisson"
    return "substitution" if poisson_sum else "one_draw"


def _gauss_delta(eps: np.ndarray | float, mu: np.ndarray | float) -> np.ndarray:
    """delta(eps) of the Gaussian mechanism with sensitivity / noise = mu (Balle, Wang 2018), stable in the tails."""
    upper = special.log_ndtr(np.divide(mu, 2) - np.divide(eps, mu))
    lower = eps + special.log_ndtr(-np.divide(mu, 2) - np.divide(eps, mu))
    return np.exp(upper) * -np.expm1(np.minimum(lower - upper, 0.0))


def revealed(queries: Sequence[Query], delta: float) -> float:
    """Epsilon when all draws are public: the Gaussian curve averaged over the binomial numbers of visits."""
    squares, weights, lost = np.zeros(1), np.ones(1), 0.0
    for query in queries:
        visits, chance, rest = _visits(query.count, query.rate, delta)
        lost += rest
        if len(squares) * len(visits) > _MOST_COMPOSED:
            (squares, weights), (visits, chance) = _fewer(squares, weights), _fewer(visits, chance)
        squares = np.add.outer(squares, visits / query.sigma**2).ravel()
        weights = np.multiply.outer(weights, chance).ravel()
        kept = weights > min(1e-22, 1e-16 * delta)
        lost += float(weights[~kept].sum())
        squares, weights = squares[kept], weights[kept]
    some = squares > 0
    mu, weights = np.sqrt(squares[some]), weights[some]

    def excess(eps: float) -> float:
        return float(weights @ _gauss_delta(eps, mu)) + lost - delta

    if excess(0.0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2
    return float(optimize.brentq(excess, 0.0, high, xtol=1e-12, rtol=1e-12, maxiter=1000))


def _visits(count: int, rate: float, delta: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns the likely numbers of visits, their probabilities, and the probability of all others."""
    if rate == 1:
        return np.array([count]), np.ones(1), 0.0
    law = stats.binom(count, rate)
    if delta >= _LEAST_DELTA:
        visits = np.arange(int(law.ppf(1e-16)), int(law.isf(1e-16)) + 2)
        chance = law.pmf(visits)
        return visits, chance, max(0.0, 1.0 - float(chance.sum()))
    # Here the rounding of 1 could be all of delta, and SciPy's isf knows no smaller tails.
    least, most = int(law.ppf(_TAIL * delta)), count - int(stats.binom(count, 1 - rate).ppf(_TAIL * delta))
    visits = np.arange(least, most + 1)
    return visits, law.pmf(visits), float(law.cdf(least - 1) + law.sf(most))


def _fewer(squares: np.ndarray, weights: np.ndarray, most: int = 2**10) -> tuple[np.ndarray, np.ndarray]:
    # Neighbours count as the largest of them, which costs most.
    order = np.argsort(squares)
    starts = np.arange(0, len(order), -(-len(order) // most))
    return np.maximum.reduceat(squares[order], starts), np.add.reduceat(weights[order], starts)


def _composed(queries: Sequence[Query], delta: float, grid: float) -> float | None:
    """Returns epsilon by dp_accounting; None where that takes more than `_MOST_COMPOSED` points."""
    # dp_accounting's tail bounds may overflow at large orders, which it then does not choose.
    with np.errstate(over="ignore"):
        losses = [(_dense(_loss(query, grid)), query.count) for query in queries]
        if sum(_points(loss, count) for loss, count in losses) > _MOST_COMPOSED:
            return None
        total = pld.identity(grid)
        for loss, count in losses:
            total = total.compose(loss.self_compose(count))
    return float(total.get_epsilon_for_delta(delta))


def _points(loss: pld.PrivacyLossDistribution, count: int) -> int:
    # As dp_accounting cuts the tails, by a few of the orders that it tries.
    masses = loss._pmf_remove._probs
    orders = np.array([-20, -4, -1, 1, 4, 20]) / len(masses)
    low, high = common.compute_self_convolve_bounds(masses, count, 1e-15, orders)
    return high - low


def _dense(loss: pld.PrivacyLossDistribution) -> pld.PrivacyLossDistribution:
    # Of a thousand points or fewer dp_accounting makes a dictionary, which it composes a thousand times slower.
    remove, add = loss._pmf_remove.to_dense_pmf(), loss._pmf_add.to_dense_pmf()
    return pld.PrivacyLossDistribution(remove) if loss._symmetric else pld.PrivacyLossDistribution(remove, add)


def _loss(query: Query, grid: float) -> pld.PrivacyLossDistribution:
    """Privacy loss distribution of one query, rounded up to multiples of `grid`."""
    if query.pair == "laplace":
        return pld.from_laplace_mechanism(query.sigma, value_discretization_interval=grid)
    if query.pair == "poisson":
        return pld.from_gaussian_mechanism(query.sigma, value_discretization_interval=grid, sampling_prob=query.rate)
    if query.pair == "substitution":
        # dp_accounting doubles the sensitivity for REPLACE_ONE; ours is the doubled one already.
        return pld.from_gaussian_mechanism(
            2 * query.sigma, value_discretization_interval=grid, sampling_prob=query.rate,
            neighboring_relation=dpa.NeighboringRelation.REPLACE_ONE,
        )  # fmt: skip
    return _mirrored(query, grid)


def _widest_loss(mu: float) -> float:
    # Ten standard deviations above the mean of the undrawn loss; what lies beyond is counted as infinity mass.
    return mu**2 / 2 + 10 * mu


def _mirrored(query: Query, grid: float) -> pld.PrivacyLossDistribution:
    """Loss of a pair that is its own mirror image, from its curve delta(eps) at eps >= 0 ("one_draw", "revealed").

    Connect-the-dots (Doroshenko et al. 2022): the discrete loss whose curve meets the true one at every grid point and
    is linear in e^eps between them, hence above it.
    """
    q, mu = query.rate, 1 / query.sigma
    top = _widest_loss(mu)
    if query.pair == "one_draw":
        top = np.logaddexp(math.log1p(-q), math.log(q) + top)
    eps = grid * np.arange(math.ceil(top / grid) + 2)
    inner = eps if query.pair == "revealed" else eps + np.log1p(-(1 - q) * np.exp(-eps)) - math.log(q)
    curve = q * _gauss_delta(inner, mu)
    steps = np.diff(curve)
    upper = (steps[1:] - math.exp(grid) * steps[:-1]) / math.expm1(grid)
    upper = np.maximum(np.append(upper, steps[-1] / math.expm1(-grid)), 0.0)
    lower = upper * np.exp(-eps[1:])
    middle = max(0.0, 1.0 - upper.sum() - lower.sum() - curve[-1])
    masses = np.concatenate([lower[::-1], [middle], upper])
    return pld.PrivacyLossDistribution(
        pld_pmf.DensePLDPmf(grid, -len(upper), masses, float(curve[-1]), pessimistic_estimate=True)
    )
