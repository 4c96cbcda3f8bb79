"""What a plan of releases costs by either count, the noise that fits a budget, and whether a plan may be run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from methods.core.release import Budget, Release
from workflow.common.errors import UserError, unknown
from workflow.common.rounding import up

COUNTS = ("published", "sound")
_NOISE_TOLERANCE = 1e-3
# Bisection ends within rounding of the budget; this is far below what any table prints.
_SLACK = 1e-9
# The least delta and noise multiplier at which a cost is counted; noise above any other costs less.
LEAST_DELTA, LEAST_NOISE = 1e-100, 1e-9


def epsilon(releases: Iterable[Release], delta: float, accounting: str) -> float:
    """Returns epsilon at `delta` of using every release max_uses times, as "published" or "sound" counts it.

    Infinity where a used release has no noise. Raises UserError for another accounting, where no sound bound is known
    for a release, for a delta outside [1e-100, 1), and for a noise multiplier above 0 but below 1e-9.
    """
    if accounting not in COUNTS:
        raise unknown("accounting", accounting, COUNTS)
    if not LEAST_DELTA <= delta < 1:
        raise UserError(f"epsilon is counted at a delta from {LEAST_DELTA:g} up to 1, got {delta}; 1e-5 is usual")
    used = tuple(release for release in releases if release.max_uses)
    if not used:
        return 0.0
    if any(release.kind == "none" or release.noise == 0 for release in used):
        return math.inf
    for release in used:
        if release.noise < LEAST_NOISE:
            raise UserError(
                f"epsilon is counted from a noise multiplier of {LEAST_NOISE:g} on, release {release.name} has"
                f" {release.noise:g}; use more noise"
            )
    # On first use: the accountants' libraries take as long to load as torch, and drawing samples does without them.
    if accounting == "published":
        from methods.core.accounting import published

        return published.epsilon(used, delta)
    from methods.core.accounting import sound

    return sound.epsilon(used, delta)


def calibrate(make_releases: Callable[[float], Sequence[Release]], budget: Budget) -> float:
    """Returns the smallest noise, within 0.1 % above, at which `make_releases(noise)` fits the budget.

    `make_releases` returns a plan whose cost falls as the noise grows; the budget is finite. Raises
    UserError where even a multiplier of 1e6 does not fit.
    """
    # On first use, as the accountants' libraries.
    from scipy import optimize

    def excess(log_noise: float) -> float:
        cost = epsilon(make_releases(math.exp(log_noise)), budget.delta, budget.accounting)
        # Logarithms make the curve nearly straight; the limits keep a cost of 0, or an overflow, finite.
        return math.log(min(max(cost, 1e-9), 1e300) / budget.epsilon)

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


def fits(releases: Sequence[Release], budget: Budget) -> bool:
    """Returns whether a plan costs no more than a finite budget by the budget's accounting."""
    return epsilon(releases, budget.delta, budget.accounting) <= budget.epsilon * (1 + _SLACK)


def check_plan(releases: Sequence[Release], budget: Budget) -> None:
    """Raises UserError for a plan that may not be run under a budget.

    It is refused if it costs more than the budget by its accounting (unless the budget is marked over_budget), if it
    has an un-noised release under a finite budget, or if names repeat.
    """
    names = [release.name for release in releases]
    if len(set(names)) != len(names):
        raise UserError(f"a plan needs distinct release names, got {', '.join(names)}")
    if budget.accounting == "none":
        return
    bare = [release.name for release in releases if release.kind == "none"]
    if bare:
        raise UserError(f"release {bare[0]} adds no noise, which needs epsilon inf and accounting none")
    if not budget.over_budget and not fits(releases, budget):
        cost = epsilon(releases, budget.delta, budget.accounting)
        raise UserError(
            f"the plan costs epsilon {up(cost, '.4f')} by {budget.accounting} accounting, over the budget of "
            f"{budget.epsilon:g} at delta {budget.delta:g}; use fewer uses or rows, a lower rate, or more noise, or say"
            " over_budget: true in the run's configuration (--over-budget) to train it all the same"
        )
