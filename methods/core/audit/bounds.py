"""Lower bounds on epsilon from guesses about secret coins: what an audit proves, at a stated confidence."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
from scipy import special

CONFIDENCE = 0.95
# Thresholds tried; more would only choose better among what the choosing half can tell apart.
_THRESHOLDS = 100
# Shares of the canaries that the one-run bound may guess about.
_SHARES = tuple(np.geomspace(0.01, 1.0, 20))
_LARGEST = 32.0
# Two scores nearer than this share of the largest are equal: far above rounding in float64, far below any evidence.
_ROUNDING = 1e-9


def joined(scores: np.ndarray) -> np.ndarray:
    """Returns scores float64 [N] of which those that differ by rounding alone are equal, in the same order; inf stays.

    Evidence that is equal on paper comes out of float64 unequal, and which way is a function of the answer's last
    bits. Those can tell the coin: a sum in float32 has other last bits from one side than from the other. A ranking by
    them would be an attack on floating point, and its bound no bound on the mechanism that the release describes.
    """
    order = np.argsort(scores, kind="stable")
    ordered = scores[order].astype(np.float64)
    finite = np.abs(ordered[np.isfinite(ordered)])
    apart = _ROUNDING * finite.max(initial=0.0)
    higher = np.ones(len(ordered), dtype=bool)
    higher[1:] = ordered[1:] > ordered[:-1] + apart
    together = np.empty_like(ordered)
    together[order] = ordered[higher][np.cumsum(higher) - 1]
    return together


def from_independent_trials(
    scores: np.ndarray, coins: np.ndarray, delta: float, confidence: float = CONFIDENCE
) -> float:
    """Returns a lower bound on epsilon at `delta`, 0 or more, from independent trials of one pair of neighbours.

    `scores` float [N] is high where the trial's fair coin, bool [N], looks like True; nearly equal ones count as equal
    (`joined`), so that a threshold takes all of them or none. The first half of the trials chooses a test: guess True
    from a threshold up, False from another down (or only one of the two), and abstain between. On the other half, let g
    be the probability of a guess and p that of a guess being correct. Summing
    P[guess s | coin s] <= e^epsilon P[guess s | not s] + delta over the guessed sides gives
    e^epsilon >= (p - sides * delta / (2 g)) / (1 - p). Both p and g are bounded from below exactly (Clopper, Pearson
    1934), so the bound is wrong with probability at most 1 - confidence.
    """
    scores, half = joined(scores), len(scores) // 2
    # Choosing among many at the same confidence would pick the luckiest.
    strict = 1 - (1 - confidence) / 100
    options = [
        (_bounds(*_counts(scores[:half], coins[:half], test), sides, half, delta, strict), *test, sides)
        for test, sides in _tests(np.sort(scores[:half]))
    ]
    best, low, high, sides = max(options, key=lambda option: option[0], default=(0.0, 0.0, 0.0, 1))
    if best == 0:
        return 0.0
    correct, guesses = _counts(scores[half:], coins[half:], (low, high))
    return float(_bounds(correct, guesses, sides, len(scores) - half, delta, confidence))


def _tests(ordered: np.ndarray) -> Iterator[tuple[tuple[float, float], int]]:
    """Yields ((low, high), sides): guess False up to `low`, True from `high` on, for sorted scores [N]."""
    ranks = np.unique(np.geomspace(1, max(1, len(ordered) // 2), _THRESHOLDS).astype(int))
    ranks = ranks[ranks <= len(ordered)]
    for low, high in dict.fromkeys(zip(ordered[ranks - 1].tolist(), ordered[-ranks].tolist(), strict=True)):
        yield (-np.inf, high), 1
        yield (low, np.inf), 1
        if low < high:
            yield (low, high), 2


def _counts(scores: np.ndarray, coins: np.ndarray, test: tuple[float, float]) -> tuple[int, int]:
    below, above = scores <= test[0], scores >= test[1]
    return int((above & coins).sum() + (below & ~coins).sum()), int(above.sum() + below.sum())


def _bounds(correct: int, guesses: int, sides: int, trials: int, delta: float, confidence: float) -> float:
    if not correct:
        return 0.0
    # The share of guesses is known well; nearly all of the doubt is for the share of correct ones.
    often = special.betaincinv(guesses, trials - guesses + 1, 0.1 * (1 - confidence))
    right = special.betaincinv(correct, guesses - correct + 1, 0.9 * (1 - confidence))
    return float(np.log(np.maximum((right - sides * delta / (2 * often)) / (1 - right), 1.0)))


def from_one_run(scores: np.ndarray, coins: np.ndarray, delta: float, confidence: float = CONFIDENCE) -> float:
    """Returns a lower bound on epsilon at `delta`, 0 or more, from canaries that share a run.

    `scores` float [N] is high where the canary's fair coin, bool [N], looks like True. The most extreme scores are
    guessed about, as many from above as from below, and the rest abstained from; among scores that are equal (`joined`)
    position decides, which a fair coin does not depend on. Steinke, Nasr, Jagielski, "Privacy
    auditing with one (1) training run" (arXiv 2305.08846), Theorem 5.2: it takes independent fair coins, and nothing of
    how one canary's answer depends on another's. The first half of the canaries, whose coins the theorem allows to be
    revealed, chooses the share of guesses; the second half is guessed about, and is the theorem's m.
    """
    scores, half = joined(scores), len(scores) // 2
    share = max(_SHARES, key=lambda share: _guessed(scores[:half], coins[:half], share, delta, confidence))
    return _guessed(scores[half:], coins[half:], share, delta, confidence)


def _guessed(scores: np.ndarray, coins: np.ndarray, share: float, delta: float, confidence: float) -> float:
    # Of an odd number the half may round up, and one canary be guessed both ways.
    each = min(round(share * len(scores) / 2), len(scores) // 2)
    if not each:
        return 0.0
    order = np.argsort(scores, kind="stable")
    correct = int(coins[order[-each:]].sum()) + int((~coins[order[:each]]).sum())
    return _one_run_bound(len(scores), 2 * each, correct, delta, 1 - confidence)


def one_run_p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Returns the largest probability of so many `correct` guesses about `canaries` coins under (epsilon, delta)-DP.

    Theorem 5.2 of Steinke et al.: with W binomial (guesses, 1 / (1 + exp(-epsilon))), it is P[W >= correct] plus
    2 * canaries * delta times the largest of P[correct > W >= correct - i] / i over i = 1 .. correct.
    """
    right = float(special.expit(epsilon))
    tail = float(special.betainc(correct, guesses - correct + 1, right)) if correct else 1.0
    if not (delta and correct):
        return tail
    below = np.arange(correct - 1, -1, -1)
    chance = np.exp(_log_binomials(guesses)[below] + below * np.log(right) + (guesses - below) * np.log1p(-right))
    share = np.cumsum(chance) / np.arange(1, correct + 1)
    return min(1.0, tail + 2 * canaries * delta * float(share.max()))


@functools.lru_cache(maxsize=64)
def _log_binomials(total: int) -> np.ndarray:
    k = np.arange(total + 1)
    return special.gammaln(total + 1) - special.gammaln(k + 1) - special.gammaln(total - k + 1)


def _one_run_bound(canaries: int, guesses: int, correct: int, delta: float, error: float) -> float:
    low, high = 0.0, _LARGEST
    if one_run_p_value(canaries, guesses, correct, low, delta) > error:
        return 0.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        if one_run_p_value(canaries, guesses, correct, middle, delta) <= error:
            low = middle
        else:
            high = middle
    return low
