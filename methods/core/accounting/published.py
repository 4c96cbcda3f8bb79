"""The published count: epsilon as the methods' authors counted it, which is not always a bound.

For DP-MERF and DP-CGAN with their arithmetic corrected: the exact Gaussian cost, and the noise multiplier that was
really used. It reads nothing but the releases; sigma is a noise multiplier relative to the sensitivity.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Iterable, Iterator, Sequence

import dp_accounting as dpa
import numpy as np
from dp_accounting import rdp
from scipy import special

from methods.core.accounting import sound
from methods.core.release import Release
from workflow.common.errors import UserError

# Integer orders: all small ones, then a geometric grid for small epsilon.
_ORDERS = np.unique(np.concatenate([np.arange(2, 129), np.geomspace(129, 8192, 80).astype(int)]))
# Orders of the Poisson count: Opacus's, and larger ones for small epsilon.
_REAL_ORDERS = [1 + x / 10 for x in range(1, 100)] + list(range(11, 64)) + [80, 128, 256, 512]
_ROUNDING = 1e-16


@functools.lru_cache(maxsize=256)
def epsilon(releases: tuple[Release, ...], delta: float) -> float:
    """The authors' kind of count.

    One shard of K: every row draws its own shard, amplified by Wang, Balle, Kasiviswanathan 2019 (Theorem 9, sampling
    without replacement, replace-one), converted as epsilon = rdp + log(1 / delta) / (order - 1): what autodp computes
    in GS-WGAN's and DP-GAN-DPAC's privacy_analysis.py. Not a bound where the rows of a step share one draw. Poisson:
    dp_accounting's RDP accountant (add-or-remove). No draw, one Gaussian answer: its exact curve. No draw, many
    answers, as teachers give: Renyi DP with that conversion, and order * 2 / noise^2 for a Laplace answer, which
    charges twice the one count that moves (PATE-GAN's pate_gan.py). A Poisson sum over fixed shards and second moments
    are this suite's own mechanisms, whose authors' count is the sound one, also beside answers about all records.
    """
    substituted = any(sound.pair_of(release) == "substitution" for release in releases)
    if all(_is_ours(release, substituted) for release in releases):
        return sound.epsilon(releases, delta)
    undrawn = all(release.sampling == "all" for release in releases)
    if undrawn and [_published_count(release) for release in releases] == [1] and releases[0].kind == "gaussian":
        return sound.revealed([sound.query(releases[0])], delta)
    if undrawn or any(release.sampling == "one_shard_of_k" for release in releases):
        return float(np.min(_summed_curve(releases) + math.log(1 / delta) / (_ORDERS - 1)))
    return float(rdp.compute_epsilon(_REAL_ORDERS, _poisson_curve(releases, _REAL_ORDERS), delta)[0])


def _is_ours(release: Release, substituted: bool) -> bool:
    """Returns whether a release is of this suite's own mechanisms; `substituted`: one of its plan surely is."""
    own = sound.pair_of(release) == "substitution" or release.bounded == "moments"
    return own or (substituted and release.sampling == "all")


def _summed_curve(releases: Sequence[Release]) -> np.ndarray:
    return sum((_published_curve(release) for release in releases), np.zeros(len(_ORDERS)))


def _poisson_curve(releases: Sequence[Release], orders: Sequence[float]) -> np.ndarray:
    """Returns Renyi DP [orders] of all uses of Poisson releases; infinite where it overflows or does not converge."""
    accountant = rdp.RdpAccountant(list(orders))
    # Orders that overflow, or whose series does not converge, are passed over; dp_accounting warns of each.
    with np.errstate(over="ignore"), _errors_only(logging.getLogger("absl")):
        for release in releases:
            accountant.compose(_event(release), _published_count(release))
    # The accountant keeps the sum of all releases here, and converts it in another way than older codes.
    curve = np.asarray(accountant._rdp, dtype=float)
    # A divergence that rounding made negative is as small as rounding, not free.
    return np.where(curve > 0, curve, _ROUNDING * sum(_published_count(release) for release in releases))


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
        curve = _poisson_curve(used, orders)
    else:
        orders, curve = _ORDERS, _summed_curve(used)
    return float(np.min(curve + math.log(1 / delta) / (np.asarray(orders) - 1)))
