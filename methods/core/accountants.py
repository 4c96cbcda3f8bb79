"""What a plan of releases costs, counted two ways, and the noise that fits a budget.

`published` counts in the way of the methods' authors (for DP-MERF and DP-CGAN with their arithmetic mended: the exact
Gaussian cost, and the noise multiplier that was really used). `sound` is a valid upper bound on epsilon for what the
releases describe. Both read nothing but the releases; sigma below is a noise multiplier relative to the sensitivity.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import dp_accounting as dpa
import numpy as np
from dp_accounting import rdp
from dp_accounting.pld import pld_pmf
from dp_accounting.pld import privacy_loss_distribution as pld
from scipy import optimize, special, stats

from methods.core.release import Budget, Release
from workflow.common.errors import UserError, unknown

# Integer orders of the published count: all small ones, then a geometric grid for small epsilon.
_ORDERS = np.unique(np.concatenate([np.arange(2, 129), np.geomspace(129, 8192, 80).astype(int)]))
# Orders of the Poisson count: Opacus's, and larger ones for small epsilon.
_REAL_ORDERS = [1 + x / 10 for x in range(1, 100)] + list(range(11, 64)) + [80, 128, 256, 512]
# Losses are rounded to multiples of a grid, halved until epsilon moves by less than a relative tolerance.
_GRID, _GRID_TOLERANCE, _FINEST, _MOST_POINTS = 1.6e-2, 1e-3, 1e-4, 1e5
_NOISE_TOLERANCE = 1e-3


class Query(NamedTuple):
    """A Gaussian (or Laplace) query repeated `count` times, in the normal form that the sound accountant composes.

    `pair` names the dominating pair of distributions of one use for neighbouring data sets: "revealed" (the draw is
    given away), "one_draw", "poisson", "substitution" or "laplace"; `rate` is the probability that the record counts.
    """

    pair: str
    rate: float
    sigma: float
    count: int


def epsilon(releases: Iterable[Release], delta: float, accounting: str) -> float:
    """Returns epsilon at `delta` of using every release max_uses times, as "published" or "sound" counts it.

    Infinity where a used release has no noise. Raises UserError for another accounting, or where no sound bound is
    known for a release.
    """
    if accounting not in ("published", "sound"):
        raise unknown("accounting", accounting, ("published", "sound"))
    used = tuple(release for release in releases if release.max_uses)
    if not used:
        return 0.0
    if any(release.kind == "none" or release.noise == 0 for release in used):
        return math.inf
    return (_published if accounting == "published" else _sound)(used, delta)


def classic(releases: Iterable[Release], delta: float, orders: Sequence[float] = ()) -> float:
    """Returns epsilon at `delta` by Renyi DP converted as rdp + log(1 / delta) / (order - 1), as older codes convert.

    The count of authors who did so where `published` converts by dp_accounting (Poisson batches) or is exact (one
    Gaussian answer). `orders`, above 1, are those that the authors tried for Poisson batches; without any, many.
    Infinity where a used release has no noise. Raises UserError for Laplace noise on drawn records.
    """
    used = tuple(release for release in releases if release.max_uses)
    if any(release.kind == "none" or release.noise == 0 for release in used):
        return math.inf
    if any(release.sampling == "poisson" for release in used):
        orders = orders or _REAL_ORDERS
        # The accountant keeps the sum of all releases here, and converts it in another way.
        curve = np.asarray(_poisson_accountant(used, orders)._rdp)
    else:
        orders, curve = _ORDERS, _summed_curve(used)
    return float(np.min(curve + math.log(1 / delta) / (np.asarray(orders) - 1)))


def calibrate(make_releases: Callable[[float], Sequence[Release]], budget: Budget) -> float:
    """Returns the smallest noise, within 0.1 % above, at which `make_releases(noise)` fits the budget.

    `make_releases` returns a plan whose cost falls as the noise multiplier grows. Returns 0.0 for accounting "none".
    Raises UserError where even a multiplier of 1e6 does not fit.
    """
    if budget.accounting == "none":
        return 0.0

    def excess(log_noise: float) -> float:
        cost = epsilon(make_releases(math.exp(log_noise)), budget.delta, budget.accounting)
        # Logarithms make the curve nearly straight; the floor keeps a cost of exactly 0 finite.
        return math.log(max(cost, 1e-9) / budget.epsilon)

    low, high = _bracket(excess, math.log(1.0), math.log(1e6), math.log(1e-4))
    if high is None:
        raise UserError(f"no noise fits epsilon {budget.epsilon:g} at delta {budget.delta:g}; use fewer uses or rows")
    if low is None:
        return math.exp(high)
    root = float(optimize.brentq(excess, low, high, xtol=_NOISE_TOLERANCE / 4))
    while excess(root) > 0:
        root += _NOISE_TOLERANCE / 4
    return math.exp(root)


def _bracket(
    excess: Callable[[float], float], start: float, largest: float, smallest: float
) -> tuple[float | None, float | None]:
    low = high = None
    point, stride = start, math.log(2.0)
    while low is None or high is None:
        if not smallest <= point <= largest:
            break
        if excess(point) > 0:
            low, point = point, point + stride
        else:
            high, point = point, point - stride
    return low, high


# ---------------------------------------------------------------- published


@functools.lru_cache(maxsize=256)
def _published(releases: tuple[Release, ...], delta: float) -> float:
    """The authors' kind of count.

    One shard of K: every row draws its own shard, amplified by Wang, Balle, Kasiviswanathan 2019 (Theorem 9, sampling
    without replacement, replace-one), converted as epsilon = rdp + log(1 / delta) / (order - 1): what autodp computes
    in GS-WGAN's and DP-GAN-DPAC's privacy_analysis.py. Not a bound where the rows of a step share one draw. Poisson:
    dp_accounting's RDP accountant (add-or-remove). No draw, one Gaussian answer: its exact curve. No draw, many
    answers, as teachers give: Renyi DP with that conversion, and order * 2 / noise^2 for a Laplace answer, which
    charges twice the one count that moves (PATE-GAN's pate_gan.py). A Poisson sum over fixed shards is this suite's own
    mechanism, whose authors' count is the sound one.
    """
    if all(_pair(release) == "substitution" for release in releases):
        return _sound(releases, delta)
    undrawn = all(release.sampling == "all" for release in releases)
    if undrawn and [_published_count(release) for release in releases] == [1] and releases[0].kind == "gaussian":
        return _revealed([_query(releases[0])], delta)
    if undrawn or any(release.sampling == "one_shard_of_k" for release in releases):
        return float(np.min(_summed_curve(releases) + math.log(1 / delta) / (_ORDERS - 1)))
    return float(_poisson_accountant(releases).get_epsilon(delta))


def _summed_curve(releases: Sequence[Release]) -> np.ndarray:
    return sum((_published_curve(release) for release in releases), np.zeros(len(_ORDERS)))


def _poisson_accountant(releases: Sequence[Release], orders: Sequence[float] = _REAL_ORDERS) -> rdp.RdpAccountant:
    accountant = rdp.RdpAccountant(list(orders))
    # Orders that overflow, or whose series does not converge, are passed over; dp_accounting warns of each.
    with np.errstate(over="ignore"), _errors_only(logging.getLogger("absl")):
        for release in releases:
            accountant.compose(_event(release), _published_count(release))
    return accountant


@contextlib.contextmanager
def _errors_only(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _published_count(release: Release) -> int:
    return release.max_uses * release.answers * (release.rows if release.bounded == "function" else 1)


def _event(release: Release) -> dpa.DpEvent:
    laplace = release.kind == "laplace"
    event = dpa.LaplaceDpEvent(release.noise) if laplace else dpa.GaussianDpEvent(release.noise)
    return dpa.PoissonSampledDpEvent(release.rate, event) if release.sampling == "poisson" else event


def _published_curve(release: Release) -> np.ndarray:
    count = _published_count(release)
    if release.kind == "laplace":
        if release.rate < 1:
            raise UserError(f"no published count for Laplace release {release.name} on drawn records; use sampling all")
        return count * _ORDERS * 2 / release.noise**2
    if release.sampling == "one_shard_of_k":
        return count * wang_rdp(release.rate, release.noise)
    return count * np.array([_poisson_rdp(release.rate, release.noise, int(order)) for order in _ORDERS])


def _poisson_rdp(rate: float, sigma: float, order: int) -> float:
    # Mironov, Talwar, Zhang 2019, integer orders.
    if rate == 1:
        return order / (2 * sigma**2)
    j = np.arange(order + 1)
    log_chance = _log_binomial(order, j) + j * math.log(rate) + (order - j) * math.log1p(-rate)
    terms = log_chance + j * (j - 1) / (2 * sigma**2)
    return float(special.logsumexp(terms)) / (order - 1)


@functools.lru_cache(maxsize=64)
def _order_table() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    # One flat list of the summands of all orders: (order, j, log C(order, j)), and where each order starts.
    order = np.repeat(_ORDERS, _ORDERS - 1)
    starts = np.concatenate([[0], np.cumsum(_ORDERS - 1)[:-1]])
    j = np.arange(len(order)) - np.repeat(starts, _ORDERS - 1) + 2
    return order, j, _log_binomial(order, j), starts


def _log_binomial(n: np.ndarray | int, k: np.ndarray) -> np.ndarray:
    return special.gammaln(np.add(n, 1)) - special.gammaln(k + 1) - special.gammaln(np.subtract(n, k) + 1)


def wang_rdp(rate: float, sigma: float) -> np.ndarray:
    """Returns Renyi DP at the orders `_ORDERS` of one Gaussian query on a subset drawn without replacement.

    Wang, Balle, Kasiviswanathan, "Subsampled Renyi differential privacy and analytical moments accountant" (2019),
    Theorem 9, for a mechanism without a pure-DP bound; never more than the query without the draw.
    """
    _, j, log_choose, starts = _order_table()
    base = 1 / (2 * sigma**2)
    # Summand j: rate^j C(order, j) 2 exp((j - 1) rdp(j)), and a tighter constant for j = 2.
    second = 2 * base
    constant = np.where(j == 2, min(math.log(4) + _log_expm1(second) - second, math.log(2)), math.log(2))
    terms = log_choose + j * math.log(rate) + (j - 1) * j * base + constant
    peak = np.maximum(np.maximum.reduceat(terms, starts), 0.0)
    total = np.add.reduceat(np.exp(terms - np.repeat(peak, _ORDERS - 1)), starts) + np.exp(-peak)
    return np.minimum(_ORDERS * base, (np.log(total) + peak) / (_ORDERS - 1))


def _log_expm1(x: float) -> float:
    return x + math.log(-math.expm1(-x))


# ---------------------------------------------------------------- sound


@functools.lru_cache(maxsize=256)
def _sound(releases: tuple[Release, ...], delta: float) -> float:
    """A valid upper bound on epsilon for any method that does what its releases say. See `_query` for the pairs."""
    relations = {release.adjacency for release in releases}
    if len(relations) > 1:
        raise UserError("no sound bound for a plan that mixes adjacencies; declare one for all its releases")
    queries = [_query(release) for release in releases]
    # Giving the draws away bounds every Gaussian query, and is exact where nothing is drawn in secret.
    gaussian = all(query.pair != "laplace" for query in queries)
    bound = _revealed(queries, delta) if gaussian else math.inf
    widest = max(_widest_loss(1 / query.sigma) for query in queries)
    if all(query.pair == "revealed" for query in queries) or widest > _MOST_POINTS:
        return bound
    grid = max(_GRID, widest / _MOST_POINTS, bound / _MOST_POINTS if gaussian else 0.0)
    coarse, fine = _composed(queries, delta, grid), _composed(queries, delta, grid / 2)
    # Both are upper bounds, so stopping early is loose, never wrong.
    while abs(coarse - fine) > _GRID_TOLERANCE * fine and grid > _FINEST:
        grid /= 2
        coarse, fine = fine, _composed(queries, delta, grid / 2)
    return min(bound, coarse, fine)


def _query(release: Release) -> Query:
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
      the sensitivity of the undrawn one. Holds with hidden state too if each unit remembers only its own draws.
    - poisson, function, replace-one: the undrawn answer is only known to lie in the same ball: "one_draw".
    - poisson, function, hidden state: the state may carry any record into any answer, so the draw counts for nothing.

    Raises UserError for Laplace noise on drawn records.
    """
    count, sigma = release.max_uses * release.answers, release.noise
    if release.bounded == "function" and (release.draws == "per_row" or release.kind == "laplace"):
        count *= release.rows
    elif release.bounded == "function":
        sigma /= math.sqrt(release.rows)
    if release.kind == "laplace":
        if release.rate < 1:
            raise UserError(f"no sound bound for Laplace release {release.name} on drawn records; use sampling all")
        return Query("laplace", 1.0, sigma, count)
    forgets = release.sampling != "poisson" or release.bounded == "sum" or release.state == "public"
    return Query(_pair(release), release.rate if forgets else 1.0, sigma, count)


def _pair(release: Release) -> str:
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


def _revealed(queries: Sequence[Query], delta: float) -> float:
    """Epsilon when all draws are public: the Gaussian curve averaged over the binomial numbers of visits."""
    squares, weights, lost = np.zeros(1), np.ones(1), 0.0
    for query in queries:
        visits, chance = _visits(query.count, query.rate)
        lost += max(0.0, 1.0 - float(chance.sum()))
        squares = np.add.outer(squares, visits / query.sigma**2).ravel()
        weights = np.multiply.outer(weights, chance).ravel()
        kept = weights > 1e-22
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
    return float(optimize.brentq(excess, 0.0, high, xtol=1e-12, rtol=1e-12))


def _visits(count: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    if rate == 1:
        return np.array([count]), np.ones(1)
    law = stats.binom(count, rate)
    visits = np.arange(int(law.ppf(1e-16)), int(law.isf(1e-16)) + 2)
    return visits, law.pmf(visits)


def _composed(queries: Sequence[Query], delta: float, grid: float) -> float:
    total = pld.identity(grid)
    # dp_accounting's tail bounds may overflow at large orders, which it then does not choose.
    with np.errstate(over="ignore"):
        for query in queries:
            total = total.compose(_dense(_loss(query, grid)).self_compose(query.count))
    return float(total.get_epsilon_for_delta(delta))


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
