"""Intervals over seeds: of a mean, and of the difference of two rows; one convention for all tables and figures.

Three to five seeds are what a row has. That few values do not fill a bootstrap's resampling (three have ten distinct
resamples, and their percentiles never leave the values seen), and they show no shape of a distribution, so its
normality is assumed and Student's t pays for the unknown spread: for three seeds it is 4.3 standard errors wide.

Two rows are compared by their differences seed by seed. That is right whether or not a seed makes two rows alike (the
same shards, the same batches drawn): it needs only that seeds are independent of each other. It takes no two rows,
data sets or metrics to spread alike, as a pooled or hierarchical interval would; here GANs spread several times as far
as methods without one.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import special, stats

CONFIDENCE = 0.95
# scores.csv holds six significant digits: a spread below these is rounding, not seeds.
RESOLUTION = 1e-5


@dataclass(frozen=True)
class Effect:
    """A mean difference over the seeds that two rows share, its t interval, and the two-sided p of no difference."""

    mean: float
    low: float
    high: float
    p: float
    seeds: int


def half_width(values: Sequence[float]) -> float | None:
    """Returns by how much the t interval of the mean reaches to either side, at CONFIDENCE.

    None for fewer than two values, or where one is infinite: no spread is known.
    """
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    quantile = float(special.stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the t interval of the mean at CONFIDENCE; the mean itself, twice, where no spread is known."""
    mean, reach = statistics.fmean(values), half_width(values) or 0.0
    return mean - reach, mean + reach


def paired(one: Mapping[int, float], other: Mapping[int, float]) -> Effect | None:
    """Returns the effect of `one` over `other`, each seed -> value, over the seeds that both have.

    None where they share fewer than two, a difference is not finite, or the differences are equal to the last digit
    that scores.csv keeps: then the seeds say nothing about noise.
    """
    shared = sorted(one.keys() & other.keys())
    differences = [one[seed] - other[seed] for seed in shared]
    if len(shared) < 2 or not all(map(math.isfinite, differences)):
        return None
    scale = max(abs(values[seed]) for values in (one, other) for seed in shared)
    if statistics.stdev(differences) <= RESOLUTION * scale:
        return None
    mean, count = statistics.fmean(differences), len(differences)
    ratio = mean / (statistics.stdev(differences) / math.sqrt(count))
    # The distributions of scipy.stats check much for each call, and a ranking makes hundreds.
    return Effect(mean, *interval(differences), 2 * float(special.stdtr(count - 1, -abs(ratio))), count)


def unpaired(one: Sequence[float], other: Sequence[float]) -> Effect | None:
    """Returns the effect of `one` over `other` by Welch's t, for values of which none belong together.

    None where either has fewer than two values, one is not finite, or neither spreads. `seeds` is the smaller number
    of values.
    """
    if min(len(one), len(other)) < 2 or not all(map(math.isfinite, (*one, *other))):
        return None
    if not (spreads(one) or spreads(other)):
        return None
    with warnings.catch_warnings():
        # Of a side whose values are all equal; the other side's spread decides then.
        warnings.simplefilter("ignore", RuntimeWarning)
        welch = stats.ttest_ind(one, other, equal_var=False)
    low, high = welch.confidence_interval(CONFIDENCE)
    mean = statistics.fmean(one) - statistics.fmean(other)
    return Effect(mean, float(low), float(high), float(welch.pvalue), min(len(one), len(other)))


def spreads(values: Sequence[float]) -> bool:
    """Returns whether values are all finite and scatter by more than the last digit that scores.csv keeps."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return False
    return statistics.stdev(values) > RESOLUTION * max(map(abs, values))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns Holm's adjusted p values, in the order given: below 5 %, a finding stands among all that were tried.

    The chance that any true null hypothesis of the family is rejected stays below the level, however they depend on
    each other (Holm 1979, Scandinavian Journal of Statistics 6).
    """
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted
