"""Who leads by which metric, and who cannot be told from the leader: the numbers behind a ranking of methods."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.intervals import half_width, paired, spreads, unpaired
from evaluation.scores import Score
from workflow.common.contracts import CLAIMED
from workflow.common.metrics import BEST_ON_TEST, METRICS

# What a run spent is no merit by itself, and what picks on the images that it is scored on shows none.
RANKABLE = tuple(name for name, metric in METRICS.items() if metric.arrow and name != BEST_ON_TEST)
# scores.csv holds six significant digits.
ROUNDING = 1e-5

BEST, FIRST, ONLY, BEHIND = "best within noise", "first", "only one", "behind"
# One seed, where others have several: nothing is known of how far it scatters.
ONE_SEED = "one seed"
OVER_BUDGET, NO_SOUND_COUNT, REFERENCE = "over budget", "no sound count", "reference"
UNCHECKED = "claimed, not checked"


def exceeds(spent: float, epsilon: float) -> bool:
    """Returns whether a sound epsilon is above the budget, beyond the rounding of scores.csv."""
    return spent > epsilon * (1 + ROUNDING)


@dataclass(frozen=True)
class Contender:
    """One method at one data set and epsilon; `values` holds per metric one value per seed, `seeds_of` which these are.

    Without `seeds_of` it cannot be compared seed by seed.
    """

    method: str
    accounting: str
    epsilon: float
    values: Mapping[str, Sequence[float]]
    seeds_of: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def bar(self) -> str:
        """Why it cannot be the best: it is a reference, or no sound count shows that its epsilon is kept."""
        if math.isinf(self.epsilon):
            return REFERENCE
        if self.accounting == CLAIMED:
            return UNCHECKED
        spent = self.values.get("eps_sound", ())
        if not spent or len(spent) < max(map(len, self.values.values())):
            return NO_SOUND_COUNT
        return OVER_BUDGET if exceeds(max(spent), self.epsilon) else ""

    def mean(self, metric: str) -> float | None:
        """Returns the mean over the seeds; None without a value."""
        values = self.values.get(metric)
        return statistics.fmean(values) if values else None

    def by_seed(self, metric: str) -> dict[int, float]:
        """Returns seed -> value."""
        seeds = self.seeds_of.get(metric, ())
        return dict(zip(seeds, self.values[metric], strict=True)) if seeds else {}

    def half_width(self, metric: str) -> float | None:
        """Returns half the width of the mean's t interval over the seeds; None for fewer than two."""
        return half_width(self.values.get(metric, ()))

    def spread(self, metric: str) -> float | None:
        """Returns the sample standard deviation over the seeds; None for fewer than two."""
        values = self.values.get(metric, ())
        return statistics.stdev(values) if len(values) > 1 else None

    def seeds(self, metric: str) -> int:
        """Returns the number of seeds that have a value."""
        return len(self.values.get(metric, ()))


@dataclass(frozen=True)
class Group:
    """What is compared: all methods of one preset on one data set at one epsilon, with the references (epsilon inf)."""

    preset: str
    dataset: str
    epsilon: float
    contenders: list[Contender] = field(default_factory=list)


@dataclass(frozen=True)
class Standing:
    """Where a contender stands by one metric: `place` counts from 1, None if not ranked; `verdict` in words.

    Its place is one more than the number of contenders that are better beyond noise; where noise is not known, by mean.
    """

    contender: Contender
    place: int | None
    verdict: str


def groups(scores: Iterable[Score]) -> list[Group]:
    """Returns the groups of the measured scores, by preset, data set and falling epsilon.

    A data set without a private run has one group of references, at epsilon inf.
    """
    values: dict[tuple, dict[tuple, dict[str, list[Score]]]] = {}
    for s in sorted((s for s in scores if s.source == "measured"), key=lambda s: s.order):
        runs = values.setdefault((s.preset, s.dataset), {})
        runs.setdefault((s.method, s.accounting, s.epsilon), {}).setdefault(s.metric, []).append(s)
    found = []
    for (preset, dataset), runs in values.items():
        contenders = [_contender(key, content) for key, content in runs.items()]
        references = [one for one in contenders if math.isinf(one.epsilon)]
        budgets = {one.epsilon for one in contenders} - {math.inf}
        for epsilon in sorted(budgets, reverse=True) or [math.inf]:
            private = [one for one in contenders if one.epsilon == epsilon and math.isfinite(epsilon)]
            found.append(Group(preset, dataset, epsilon, private + references))
    return found


def _contender(key: tuple, scores: Mapping[str, Sequence[Score]]) -> Contender:
    seeds = {metric: [s.seed for s in each] for metric, each in scores.items()}
    known = {metric: each for metric, each in seeds.items() if None not in each}
    return Contender(*key, {metric: [s.value for s in each] for metric, each in scores.items()}, known)


def _several(eligible: Sequence[Contender], metric: str) -> list[Contender]:
    """Returns those with several seeds; none where these show no noise, since fewer than two are so or none spreads."""
    several = [one for one in eligible if one.seeds(metric) > 1]
    return several if len(several) > 1 and any(spreads(one.values[metric]) for one in several) else []


def standings(group: Group, metric: str) -> list[Standing]:
    """Returns the contenders that have the metric, best mean first, references last.

    Those whom seeds do not tell apart share a place: it is one more than the number of those better beyond noise. Only
    those within their budget by the sound count have a place, and of these only those with several seeds, where two or
    more have; the others stand where their mean puts them.
    """
    sign = -1 if METRICS[metric].higher_is_better else 1
    there = [one for one in group.contenders if one.seeds(metric)]
    there.sort(key=lambda one: (one.bar == REFERENCE, sign * one.mean(metric), one.method, one.accounting))
    eligible = [one for one in there if not one.bar]
    several = _several(eligible, metric)
    return [_standing(one, eligible, several, metric) for one in there]


def _standing(one: Contender, eligible: list[Contender], several: list[Contender], metric: str) -> Standing:
    """Returns the place of `one` among `several`, by their seeds; among all `eligible`, by means, where none are."""
    if one.bar:
        return Standing(one, None, one.bar)
    if several and one.seeds(metric) < 2:
        return Standing(one, None, ONE_SEED)
    place = 1 + sum(_beats(other, one, metric, bool(several)) for other in several or eligible)
    first = ONLY if len(eligible) == 1 else BEST if several else FIRST
    return Standing(one, place, first if place == 1 else BEHIND)


def _lag(one: Contender, other: Contender, metric: str) -> float:
    """Returns by how much `one` is worse than `other`; 0 where only the last digits of a mean differ."""
    mine, theirs = one.mean(metric), other.mean(metric)
    if math.isclose(mine, theirs, rel_tol=1e-9, abs_tol=1e-12):
        return 0.0
    return theirs - mine if METRICS[metric].higher_is_better else mine - theirs


def _beats(one: Contender, other: Contender, metric: str, by_seeds: bool) -> bool:
    """Returns whether `one` is better than `other`: by means, or beyond noise.

    Noise is that of the differences of the seeds that both have; where these are fewer than two or show none, that of
    either by itself. Two rows of which neither spreads are not told apart.
    """
    ahead = _lag(other, one, metric) > 0
    # Whoever is behind by all its seeds beats nobody by the shared ones: rows in a ring would leave no first place.
    if not by_seeds or not ahead:
        return ahead
    effect = paired(one.by_seed(metric), other.by_seed(metric)) or unpaired(one.values[metric], other.values[metric])
    if effect is None:
        return False
    return effect.low > 0 if METRICS[metric].higher_is_better else effect.high < 0
