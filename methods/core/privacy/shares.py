"""How the noise of many uses on drawn records follows from a share of a budget."""

from __future__ import annotations

import math


def multiplier(noise: float, *, share: float, rate: float, uses: int, substituted: bool = False) -> float:
    """Returns the noise multiplier at which `uses` sums over Poisson batches take about `share` of a budget.

    The budget is what one Gaussian answer about all records costs at the multiplier `noise`, and shares are of
    1 / noise^2. Many draws at a rate r are nearly one Gaussian answer of 1 / noise^2 = r^2 uses (exp(1 / sigma^2) - 1),
    sigma being the multiplier of a use (Bu, Dong, Long, Su, Deep Learning with Gaussian Differential Privacy, 2020).
    `substituted` is for neighbours that exchange a record, whose pair of answers lies half a sensitivity to either
    side: by the same limit, r^2 uses 4 sinh(1 / (2 sigma)^2). Both are near alone, so the whole plan is what must be
    counted. 0 at noise 0.
    """
    if not noise:
        return 0.0
    of_a_use = share / (noise * rate) ** 2 / uses
    return 0.5 * math.asinh(of_a_use / 4) ** -0.5 if substituted else math.log1p(of_a_use) ** -0.5
