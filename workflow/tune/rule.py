"""The rule of equal tuning: which trial of a row is begun, which one is given up, and what of them counts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from workflow.tune.trials import SCORED, Cell, Result

# Accuracy by which a trial's mean may be lower than the best's on the same data sets and budgets: about as much as one
# seed of a GAN moves it.
BEHIND = 0.05


def judged(results: Iterable[Result], cells: Sequence[Cell], least: float) -> list[Cell]:
    """Returns the cells that trials of a row are judged by: all but those where its first trial scored below `least`.

    There a score is near a guess, so that chance would choose among the trials. All cells where the first trial is so
    on each; those that it has no score on, as before it has ended, are among them.
    """
    first = {one.cell: one.score for one in results if one.trial == 0 and one.score is not None}
    return [cell for cell in cells if first.get(cell, least) >= least] or list(cells)


def counted(results: Iterable[Result], cells: Sequence[Cell], least: float) -> list[Result]:
    """Returns the results on these cells that count, for the time too: those of later trials where these are judged."""
    own = [one for one in results if one.cell in cells]
    kept = judged(own, cells, least)
    return [one for one in own if one.trial == 0 or one.cell in kept]


def spent(results: Iterable[Result]) -> float:
    """Returns the seconds of a core that results took, as they count: where the preset's seconds were measured."""
    return sum(one.preset_seconds for one in results)


def has_time(results: Sequence[Result], cells: int, budget: float) -> bool:
    """Returns whether another trial on so many cells fits into a row's seconds, beside its results so far.

    Each of its runs is taken to cost the median of those with a score, as a warm start is in a data set's first run
    alone; the first trial fits whatever it costs.
    """
    scored = [one.preset_seconds for one in results if one.outcome == SCORED]
    cost, left = (median(scored) * cells if scored else 0.0), budget - spent(results)
    return not results or (left > 0 and left >= cost)


def is_behind(results: Sequence[Result], trial: int, cells: Collection[Cell]) -> bool:
    """Returns whether what a trial of a row has scored so far leaves no hope for it, beside the best before it.

    That is the one with the highest mean over all `cells`, which is then compared on those that the trial has been
    scored on. Another that did better on these, and worse on the rest, is no bar: the best might not pass it itself.
    """
    own = _scores(results, trial, cells)
    earlier = (_scores(results, number, cells) for number in range(trial))
    whole = [scores for scores in earlier if len(scores) == len(cells)]
    if not own or not whole:
        return False
    best = max(whole, key=lambda scores: fmean(scores.values()))
    return fmean(own.values()) < fmean(best[cell] for cell in own) - BEHIND


def _scores(results: Sequence[Result], trial: int, cells: Collection[Cell]) -> dict[Cell, float]:
    own = [one for one in results if one.trial == trial and one.cell in cells]
    return {one.cell: one.score for one in own if one.score is not None}


def unfinished(results: Sequence[Result], cells: Collection[Cell]) -> int | None:
    """Returns the first trial of a row's search that still has cells to be tried on; None where all have ended.

    It may be the last one, as after a kill, or one that had been given up for a score on a cell that counts no more.

    Args:
        cells: those that trials are judged by.
    """
    return next((trial for trial in sorted({one.trial for one in results}) if _is_open(results, trial, cells)), None)


def _is_open(results: Sequence[Result], trial: int, cells: Collection[Cell]) -> bool:
    own = [one for one in results if one.trial == trial]
    out = any(one.outcome != SCORED for one in own) or is_behind(results, trial, cells)
    return not out and not {one.cell for one in own} >= set(cells)


def is_of_another_preset(results: Sequence[Result], before: Mapping[str, Any]) -> bool:
    """Returns whether a row's first trial had other settings than the preset has before the search.

    They are then trials of another preset, of rows that may have been shortened since to keep to its limit on training:
    results say what a run took in all, and not whether its training kept to a limit that came later.
    """
    return any(one.trial == 0 and one.settings != before for one in results)


def within(results: Sequence[Result], budget: float) -> list[Result]:
    """Returns the results of those trials of a row that began before its seconds were up."""
    return [one for one in results if spent(other for other in results if other.trial < one.trial) < budget]
