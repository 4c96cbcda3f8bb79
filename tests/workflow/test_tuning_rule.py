"""Equal tuning's rule: the best trial is the bar, and every row is chosen from the same time, whatever ended it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from tuned_results import CELLS, CONFIG, alike, result, row, whole

from workflow.common.search_space import choice
from workflow.tune import choose, rule, search, trials
from workflow.tune.one_run import Commands, Failed, Outcome
from workflow.tune.rows import Row
from workflow.tune.search import Book
from workflow.tune.trials import OVER_TIME, SCORED, Result

BUDGET = 60 * CONFIG.tuning["core_minutes"]


def entry(results: Sequence[Result]) -> dict:
    return choose.chosen(CONFIG, row(), results)


# Which trial is given up


def test_a_trial_that_did_better_on_a_part_and_worse_on_the_rest_is_no_bar():
    best, other = whole(0, [0.7, 0.6, 0.7, 0.6]), whole(1, [0.78, 0.5, 0.7, 0.5])
    for score, behind in ((0.66, False), (0.64, True)):
        assert rule.is_behind([*best, *other, result(2, CELLS[0], score)], 2, CELLS) is behind
    # Where it is the better one on all cells together it is the bar.
    better = whole(1, [0.78, 0.6, 0.7, 0.6])
    assert rule.is_behind([*best, *better, result(2, CELLS[0], 0.72)], 2, CELLS)


def test_a_trial_is_compared_with_none_that_came_after_it():
    assert not rule.is_behind([*whole(1, [0.5] * 4), *whole(2, [0.9] * 4)], 1, CELLS)


def test_scores_on_cells_that_a_row_is_not_tried_on_are_no_bar_and_no_rescue():
    other = ("mnist", 10.0)
    results = [*whole(0, [0.6] * 4), result(0, other, 1.0), result(1, CELLS[0], 0.5), result(1, other, 1.0)]
    assert rule.is_behind(results, 1, CELLS)
    assert not rule.is_behind([*whole(0, [0.6] * 4), result(0, other, 1.0), result(1, CELLS[0], 0.56)], 1, CELLS)


# Which trial is begun


def test_a_trial_is_begun_where_the_median_of_runs_with_a_score_fits_on_all_cells():
    # A warm start in the first run, and a run that was ended for its time, make no other trial seem longer or shorter.
    first = [result(0, CELLS[0], seconds=90.0), *(result(0, cell, seconds=10.0) for cell in CELLS[1:])]
    ended = [result(trial, seconds=300.0, score=None) for trial in range(1, 9)]
    assert rule.has_time([*first, *ended], 4, 2560.0) and not rule.has_time([*first, *ended], 4, 2559.0)
    short = [result(0, CELLS[0], seconds=1.0), *(result(0, cell, seconds=10.0) for cell in CELLS[1:])]
    assert rule.has_time(short, 4, 71.0) and not rule.has_time(short, 4, 70.0)


def test_no_trial_is_begun_once_runs_without_a_score_have_had_all_the_time():
    assert not rule.has_time([result(0, score=None, seconds=100.0)], 4, 100.0)


def test_rows_of_one_method_draw_each_their_own():
    one, other = row("dpac"), dataclasses.replace(row("dpac"), run=dataclasses.replace(row("dpac").run, name="other"))
    assert one.settings(0, 0) == other.settings(0, 0) and one.settings(1, 0) != other.settings(1, 0)


# Where a search goes on


def gone_on(tmp_path: Path, done: Sequence[Result], minutes: float, one: Row | None = None) -> list[tuple]:
    """Returns the trials and cells that a search is tried on which finds some results there."""
    one, tried = one or row(), []
    trials.write(tmp_path / "trials.csv", done)

    def run(_: Row, trial: int, cell: tuple, *__) -> Outcome:
        tried.append((trial, cell))
        return Outcome(SCORED, 20.0, 0.5)

    kept = Book(tmp_path / "trials.csv", [one], CELLS, 60 * minutes, 0)
    search.search(one, SimpleNamespace(run=run), kept, Commands())
    return tried


def began(trial: int, cells: Sequence, one: Row | None = None, **others) -> list[Result]:
    one = one or row()
    return [result(trial, cell, run=one.run.name, settings=one.settings(trial, 0), **others) for cell in cells]


def test_a_trial_without_a_score_on_a_cell_stays_out(tmp_path):
    done = [*began(0, CELLS, seconds=20.0), *began(1, CELLS[:1], score=None, seconds=20.0)]
    assert {trial for trial, _ in gone_on(tmp_path, done, 4)} == {2}


def test_no_search_goes_on_whose_first_trial_has_no_score_to_compare_others_with(tmp_path):
    done = [*began(0, CELLS[:1], seconds=20.0), *began(0, CELLS[1:2], score=None, seconds=20.0)]
    with pytest.raises(Failed, match=r"trial 0, .* is over time in .*trials.csv.* take its lines out"):
        gone_on(tmp_path, done, 4)
    assert gone_on(tmp_path, done[:1], 1) == [(0, cell) for cell in CELLS[1:]]


def test_results_of_another_seed_neither_count_nor_take_time(tmp_path):
    assert gone_on(tmp_path, began(0, CELLS, seed=1, seconds=600.0), 1) == [(0, cell) for cell in CELLS]


def test_a_trial_that_began_is_ended_though_it_repeats_another_or_one_before_it_was_passed_over(tmp_path):
    # Of two values the second is drawn once; the time is up with what has been done.
    alike = dataclasses.replace(row("dp_merf"), space={"features": choice(4000, 2000)})
    repeats = [trial for trial in range(1, 12) if alike.is_repeated(trial, 0)]
    for last in repeats[:2]:
        done = [*began(0, CELLS, alike), *began(last, CELLS[:2], alike)]
        assert gone_on(tmp_path, done, 3, alike) == [(last, cell) for cell in CELLS[2:]]
    assert repeats[1] > 1 and gone_on(tmp_path, [*done, *began(last, CELLS[2:], alike)], 3, alike) == []


# Where a search ends


def test_a_search_ends_when_its_space_has_nothing_new_and_is_over_then(tmp_path, monkeypatch):
    alike = dataclasses.replace(row("dp_merf"), space={"features": choice(4000, 2000)})
    place = SimpleNamespace(run=lambda *_: Outcome(SCORED, 20.0, 0.5))
    # Without an end it would go on for ever, as what repeats costs no time.
    monkeypatch.setattr(search, "itertools", SimpleNamespace(count=lambda: range(150)))
    kept = Book(tmp_path / "trials.csv", [alike], CELLS, BUDGET, 0)
    search.search(alike, place, kept, Commands())
    assert len({one.trial for one in kept.results}) == 2 and kept.ended == {"dp_merf"}
    assert choose.unsettled(CONFIG, alike, [kept.results]) == ""
    assert "another trial fits" in choose.unsettled(CONFIG, row("dp_merf"), [kept.results])


def test_a_search_goes_on_behind_trials_that_repeat_others(tmp_path):
    alike = dataclasses.replace(row("dp_merf"), space={"features": choice(4000, 2000, 1000)})
    new = [trial for trial in range(12) if not alike.is_repeated(trial, 0)]
    # The third setting is drawn after a repeat.
    assert len(new) == 3 and new[2] > new[1] + 1
    assert gone_on(tmp_path, [], 40, alike) == [(trial, cell) for trial in new for cell in CELLS]


def test_a_few_repeats_in_a_row_end_no_search():
    # Four trials of ten or so repeat one before; there is always another number to draw.
    assert not any(row().is_exhausted(trial, 0) for trial in range(20))


@pytest.mark.parametrize(
    ("last", "over"),
    [
        ([result(1, CELLS[0], 0.7)], False),
        (whole(1, [0.7] * 4), True),
        ([result(1, CELLS[0], 0.1)], True),
        ([result(1, CELLS[0], 0.7), result(1, CELLS[1], score=None, outcome=OVER_TIME)], True),
    ],
    ids=["killed", "whole", "behind", "over time"],
)
def test_nothing_is_chosen_before_the_last_trial_that_began_has_ended(last, over):
    found = choose.unsettled(CONFIG, row(), [[*whole(0, [0.5] * 4, seconds=599.0), *last]])
    assert found == ("" if over else "trial 1 of dp_gauss has not ended")


def test_a_trial_that_was_given_up_for_a_budget_that_counts_no_more_is_still_to_be_ended():
    # At epsilon 1, where the first is near a guess, it had lost; at 10 it leads, where it was tried.
    gan, at_10, at_1 = row("gs_wgan"), CELLS[0], CELLS[1]
    lost = [result(1, at_10, 0.7, "gs_wgan"), result(1, at_1, 0.1, "gs_wgan")]
    others = [*whole(0, [0.5, 0.2, 0.5, 0.2], run="gs_wgan", seconds=300.0), *alike(2, 0.5, "gs_wgan", seconds=600.0)]
    assert choose.unsettled(CONFIG, gan, [[*others, *lost]]) == "trial 1 of gs_wgan has not ended"
    ended = result(1, CELLS[2], 0.7, "gs_wgan")
    assert choose.unsettled(CONFIG, gan, [[*others, *lost, ended]]) == ""
    assert choose.best(gan, [*others, *lost, ended], 0.01).trial == 1


def test_where_the_first_trial_is_near_a_guess_no_score_chooses_and_only_its_own_time_counts():
    first = whole(0, [0.7, 0.29, 0.7, 0.1], seconds=300.0)
    lucky, better = whole(1, [0.7, 0.9, 0.7, 0.9], seconds=300.0), whole(2, [0.75, 0.1, 0.75, 0.1], seconds=300.0)
    results = [*first, *lucky, *better]
    assert row().judged(results) == [CELLS[0], CELLS[2]]
    assert entry(results)["splits"] == 2 and entry(results)["chosen_by"]["core_minutes"] == 40.0
    # As high as the mark it does.
    results[1] = result(0, CELLS[1], 0.3, seconds=300.0)
    assert entry(results[:8])["splits"] == 1


def test_a_first_trial_s_warm_start_costs_it_nothing_where_another_of_its_runs_holds_none():
    results = [result(0, CELLS[0], 0.5, seconds=500.0), result(0, CELLS[1], 0.2, seconds=20.0),
               result(0, CELLS[2], 0.5, seconds=500.0), result(0, CELLS[3], 0.2, seconds=20.0)]  # fmt: skip
    tried = [result(1, cell, 0.505, seconds=20.0) for cell in (CELLS[0], CELLS[2])]
    assert choose.best(row(), [*results, *tried], 0.01).trial == 1
    slower = [dataclasses.replace(one, seconds=80.0) for one in tried]
    assert choose.best(row(), [*results, *slower], 0.01).trial == 0


@pytest.mark.parametrize(("score", "winner"), [(0.29, 0), (0.3, 1)])
def test_among_trials_that_all_guess_chance_does_not_choose(score, winner):
    results = [*whole(0, [0.1] * 4, seconds=300.0), *whole(1, [0.1, 0.1, 0.1, score], seconds=300.0)]
    found = entry(results)
    assert found["splits"] == winner and found["chosen_by"]["trials"] == 2
    note = "no trial with every score had 0.3 anywhere, so all guess"
    assert (note in found.get("chosen_note", "")) is not winner


def test_a_trial_that_was_given_up_after_one_good_score_makes_the_others_no_better_than_guesses():
    lucky = [result(1, CELLS[0], 0.31, seconds=300.0), result(1, CELLS[1], 0.0, seconds=300.0)]
    found = entry([*whole(0, [0.28] * 4, seconds=300.0), *lucky, *whole(2, [0.29] * 4, seconds=300.0)])
    assert found["splits"] == 0 and found["chosen_note"].startswith("no trial with every score had 0.3 anywhere")


# Machines that share a row by cells


def part(cells: Sequence, seconds: float, number: int) -> list[Result]:
    return [result(trial, cell, seconds=seconds) for trial in range(number) for cell in cells]


def test_machines_of_unlike_speed_have_each_their_share_and_then_the_row_has_had_its_time():
    # Of 1,200 s each: 4 trials of 250 s, 13 of 90 s. The 230 s left would be one of the fast machine's on all cells.
    slow, fast = part(CELLS[:2], 125.0, 4), part(CELLS[2:], 45.0, 13)
    assert choose.has_time(row(), [*slow, *fast], BUDGET)
    assert choose.unsettled(CONFIG, row(), [slow, fast]) == ""
    early = "the search of dp_gauss has taken"
    assert early in choose.unsettled(CONFIG, row(), [slow, part(CELLS[2:], 45.0, 12)])
    assert early in choose.unsettled(CONFIG, row(), [slow, fast[:3]])
    # One machine's file alone is a half of the row.
    assert early in choose.unsettled(CONFIG, row(), [slow])
    # Of the fast machine the last trial was killed between two cells.
    killed = [*part(CELLS[2:], 45.0, 13), result(13, CELLS[2], seconds=45.0)]
    assert choose.unsettled(CONFIG, row(), [slow, killed]) != ""


def test_a_file_of_a_search_as_it_was_earlier_does_not_hold_it_back():
    search_of_all = part(CELLS, 120.0, 5)
    assert choose.unsettled(CONFIG, row(), [search_of_all[:6], search_of_all]) == ""


def test_a_trial_that_one_machine_alone_came_to_is_not_chosen():
    slow, fast = part(CELLS[:2], 125.0, 4), part(CELLS[2:], 45.0, 13)
    best = [dataclasses.replace(one, score=0.9) if one.trial == 9 else one for one in fast]
    assert entry([*slow, *best])["splits"] == 0


# The same time for each


@pytest.mark.parametrize(("seconds", "winner"), [(599.0, 1), (600.0, 0)])
def test_a_trial_that_began_after_the_row_s_time_was_up_does_not_count(seconds, winner):
    # As after --minutes with more than the preset's.
    results = [*whole(0, [0.5] * 4, seconds=seconds), *whole(1, [0.9] * 4, seconds=seconds)]
    assert choose.unsettled(CONFIG, row(), [results]) == ""
    found = entry(results)
    assert found["splits"] == winner
    assert found["chosen_by"]["trials"] == winner + 1
    assert found["chosen_by"]["core_minutes"] == round(4 * seconds * (winner + 1) / 60, 1)


def test_a_row_whose_settings_before_the_search_had_no_time_to_be_compared_stays_as_it_was():
    results = [*whole(0, [0.8] * 3 + [None], seconds=300.0), *whole(1, [0.5] * 4, seconds=400.0)]
    assert choose.unsettled(CONFIG, row(), [results]).startswith("trial 0 of dp_gauss, the settings before the search")
    found = choose.unsettled(CONFIG, row(), [alike(1, 0.5, "dp_gauss", seconds=600.0)])
    assert found.startswith("trial 0 of dp_gauss") and found.endswith("has no results to be compared with")
    slow = [*whole(0, [0.8] * 4, seconds=300.0), *whole(1, [0.5] * 4, seconds=400.0)]
    assert choose.unsettled(CONFIG, row(), [slow]) == ""


def test_a_row_of_which_the_late_trials_alone_have_every_score_stays_as_it_was():
    results = [*whole(0, [0.5] * 3 + [None], seconds=600.0), *whole(1, [0.9] * 4)]
    assert choose.unsettled(CONFIG, row(), [results]) == "no trial of dp_gauss has a score everywhere"


def test_every_commit_that_made_a_trial_is_named():
    results = [*whole(0, [0.5] * 4, commit="b2"), *whole(1, [0.4] * 4, commit="a1")]
    assert entry(results)["chosen_by"]["commit"] == "a1 and b2"


def test_equal_trials_are_chosen_from_by_number_whatever_the_order_of_the_lines():
    results = [*whole(2, [0.5] * 4), *whole(1, [0.5] * 4), *whole(0, [0.4] * 4)]
    assert choose.best(row(), results, 0.01).trial == 1
