"""Equal tuning: every row has the same time of a core, and a search that was killed goes on."""

from __future__ import annotations

import dataclasses
import functools
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tuned_results import CELLS, CONFIG, result, row, whole

from methods.core import registry
from workflow import merging
from workflow.common.errors import UserError
from workflow.common.files import write_text
from workflow.common.locks import locked
from workflow.common.search_space import choice
from workflow.tune import __main__ as tune
from workflow.tune import choose, rows, search, trials
from workflow.tune.one_run import Commands, Failed, Outcome, Place, Stopped
from workflow.tune.rows import Row
from workflow.tune.search import Book
from workflow.tune.trials import OVER_TIME, REFUSED, SCORED


class Pretended:
    """A place whose runs take as long, and score as much, as `ends` says of trial and cell."""

    def __init__(self, ends: Callable[[int, tuple], Outcome | Exception]) -> None:
        self.ends, self.tried = ends, []

    def run(self, one: Row, trial: int, cell: tuple, settings: dict, commands: Commands) -> Outcome:
        self.tried.append((trial, cell))
        if isinstance(found := self.ends(trial, cell), Exception):
            raise found
        return found


def always(seconds: float) -> Pretended:
    return Pretended(lambda *_: Outcome(SCORED, seconds, 0.5))


def book(tmp_path: Path, minutes: float, *tried: Row, cells=CELLS) -> Book:
    return Book(tmp_path / "trials.csv", tried or [row()], cells, 60 * minutes, 0)


# What is tried


def test_the_first_trial_has_the_settings_of_the_preset_and_the_others_are_drawn_the_same_on_every_machine():
    one = row("dp_merf")
    assert one.settings(0, 0) == CONFIG.runs["dp_merf"].hyper["mnist_val"]
    assert one.settings(1, 0) == row("dp_merf").settings(1, 0) != one.settings(2, 0)
    assert one.settings(1, 0) != one.settings(1, 1)
    assert one.settings(1, 0).keys() <= one.space.keys() | one.before.keys()
    # What is not drawn stays as it was.
    kept = [name for name in one.before if one.settings(1, 0)[name] == one.before[name]]
    assert kept and one.settings(1, 0).items() >= {name: one.before[name] for name in kept}.items()


def test_private_rows_are_tried_on_held_out_images_at_both_budgets_and_the_reference_without_one():
    assert row().cells == CELLS
    assert row("nonprivate").cells == (("mnist_val", float("inf")), ("fashion_mnist_val", float("inf")))


def test_where_the_first_trial_is_near_a_guess_later_ones_are_not_tried_and_its_time_counts(tmp_path):
    least = CONFIG.tuning["least_score"]
    levels = dict(zip(CELLS, (least, least - 0.001, 0.9, 0.1), strict=True))
    place = Pretended(lambda _, cell: Outcome(SCORED, 20.0, levels[cell]))
    # Four runs of the first trial, and two of each of three more: the 20 s that are left are too few.
    search.search(row(), place, book(tmp_path, 220 / 60), Commands())
    later = [(trial, cell) for trial in (1, 2, 3) for cell in (CELLS[0], CELLS[2])]
    assert place.tried == [*((0, cell) for cell in CELLS), *later]


def test_a_row_whose_first_trial_is_near_a_guess_everywhere_is_tried_everywhere(tmp_path):
    place = Pretended(lambda *_: Outcome(SCORED, 20.0, 0.1))
    search.search(row(), place, book(tmp_path, 3), Commands())
    assert place.tried == [(trial, cell) for trial in range(2) for cell in CELLS]


def test_a_first_trial_that_was_killed_is_tried_on_the_rest_though_it_was_near_a_guess(tmp_path):
    trials.write(tmp_path / "trials.csv", [result(0, CELLS[0], 0.1, settings=row().settings(0, 0), seconds=20.0)])
    place = Pretended(lambda *_: Outcome(SCORED, 20.0, 0.5))
    search.search(row(), place, book(tmp_path, 2), Commands())
    assert place.tried == [(0, cell) for cell in CELLS[1:]]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["dpac_wo_g2r"], r"unknown row 'dpac_wo_g2r'.*an ablation takes what its method is tuned to"),
        (["dp_gaus"], r"unknown row 'dp_gaus'.*dp_gauss"),
    ],
)
def test_what_is_no_row_of_the_search_is_refused(names, message):
    with pytest.raises(UserError, match=message):
        rows.rows(CONFIG, names)


def test_a_row_whose_method_does_not_say_where_to_search_keeps_no_other_from_being_tuned(monkeypatch):
    every = rows.tuned_rows(CONFIG)
    monkeypatch.setattr(registry.load("dp_merf"), "SEARCH", {})
    assert [one.run.name for one in rows.rows(CONFIG)] == [name for name in every if name != "dp_merf"]
    assert rows.without_search(CONFIG) == ["dp_merf"]
    with pytest.raises(UserError, match="method dp_merf has no SEARCH, from which settings could be drawn; give it"):
        rows.rows(CONFIG, ["dp_merf"])


def test_cells_are_named_by_data_set_and_budget_and_a_test_split_is_none():
    assert rows.read_cells("mnist_val:10,fashion_mnist_val:1", CONFIG) == {CELLS[0], CELLS[3]}
    for text in ("mnist:10", "mnist_val", "mnist_val:3", ""):
        with pytest.raises(UserError, match="unknown cell"):
            rows.read_cells(text, CONFIG)


def test_a_preset_without_the_section_names_those_with_one(capsys):
    assert tune.main(["search", "--preset", "smoke"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: unknown preset to tune 'smoke'; valid: long, quick (") and said.count("\n") == 1


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train_seconds", 0, "must be above 0, got 0"),
        ("train_seconds", -1, "must be above 0, got -1"),
        ("train_seconds", "long", "must be a number, got 'long'"),
        ("train_seconds", None, "must be a number, got nothing"),
        ("train_seconds", 301, "must be at most the 300 s of a whole run (run_minutes), got 301"),
        ("train_seconds", math.inf, "must be at most the 300 s of a whole run (run_minutes), got inf"),
        ("run_minutes", math.inf, "must be at most 100000, got inf"),
        ("core_minutes", math.inf, "must be at most 100000, got inf"),
    ],
)
def test_a_limit_that_cannot_be_or_that_no_run_meets_is_refused(monkeypatch, capsys, key, value, message):
    read = merging.mapping
    monkeypatch.setattr(merging, "mapping", lambda path: _with(read(path), key, value))
    for arguments in (["search"], ["choose", "--trials", "none.csv"]):
        assert tune.main(arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: quick.yaml: tuning.{key}: {message}") and said.count("\n") == 1


def _with(content: dict, key: str, value: object) -> dict:
    return {**content, "tuning": {**content["tuning"], key: value}} if "tuning" in content else content


# The same time for each


def test_a_trial_that_would_take_more_than_is_left_is_not_begun(tmp_path):
    # Four cells of 20 s: three trials fit into 5 minutes, and the 60 s left are less than a fourth takes.
    place, kept = always(20), book(tmp_path, 5)
    search.search(row(), place, kept, Commands())
    assert place.tried == [(trial, cell) for trial in range(3) for cell in CELLS]
    assert kept.left("dp_gauss") == 0 and len(trials.read(tmp_path / "trials.csv")) == 12


def test_the_first_trial_is_tried_whatever_it_takes(tmp_path):
    place = always(300)
    search.search(row(), place, book(tmp_path, 1), Commands())
    assert len(place.tried) == 4


def test_a_trial_ends_with_the_first_run_that_has_no_score_and_its_time_counts(tmp_path):
    place = Pretended(lambda trial, _: Outcome(OVER_TIME, 360.0) if trial == 1 else Outcome(SCORED, 10.0, 0.5))
    kept = book(tmp_path, 7)
    search.search(row(), place, kept, Commands())
    assert place.tried == [*((0, cell) for cell in CELLS), (1, CELLS[0])]
    assert sum(one.seconds for one in kept.results) == 400.0


@pytest.mark.parametrize(("score", "cells"), [(0.849, 1), (0.851, 4)])
def test_a_trial_far_behind_the_best_is_not_tried_on_the_rest(tmp_path, score, cells):
    ends = {0: 0.9, 1: score}
    place = Pretended(lambda trial, _: Outcome(SCORED, 20.0, ends.get(trial, 0.9)))
    search.search(row(), place, book(tmp_path, 3), Commands())
    assert [trial for trial, _ in place.tried].count(1) == cells


def test_the_best_trial_so_far_is_the_bar_whichever_it_was(tmp_path):
    ends = {0: 0.8, 1: 0.9}
    place = Pretended(lambda trial, _: Outcome(SCORED, 20.0, ends.get(trial, 0.82)))
    search.search(row(), place, book(tmp_path, 5), Commands())
    assert [trial for trial, _ in place.tried].count(2) == 1


def test_a_trial_that_is_out_is_no_bar(tmp_path):
    ended = {(1, CELLS[1]): Outcome(OVER_TIME, 20.0)}
    level = {1: 0.95}
    place = Pretended(lambda trial, cell: ended.get((trial, cell), Outcome(SCORED, 20.0, level.get(trial, 0.8))))
    search.search(row(), place, book(tmp_path, 5), Commands())
    assert [[trial for trial, _ in place.tried].count(trial) for trial in (1, 2)] == [2, 4]


def test_a_trial_is_compared_on_the_cells_that_it_has_been_scored_on(tmp_path):
    # Each cell has a level of its own, which the best trial has too.
    level = dict(zip(CELLS, (0.9, 0.6, 0.8, 0.5), strict=True))
    worse = {CELLS[1]: 0.06}
    place = Pretended(lambda trial, cell: Outcome(SCORED, 20.0, level[cell] - worse.get(cell, 0) * trial))
    search.search(row(), place, book(tmp_path, 5), Commands())
    assert [cell for trial, cell in place.tried if trial == 1] == list(CELLS)
    assert [cell for trial, cell in place.tried if trial == 2] == list(CELLS[:2])


def test_a_trial_that_was_behind_stays_so_when_the_search_goes_on(tmp_path):
    ends = {0: 0.9, 1: 0.5}
    place = Pretended(lambda trial, _: Outcome(SCORED, 20.0, ends.get(trial, 0.9)))
    search.search(row(), place, book(tmp_path, 3), Commands())
    tried = len(place.tried)
    search.search(row(), place, book(tmp_path, 3), Commands())
    assert len(place.tried) == tried


def test_a_trial_that_repeats_an_earlier_one_is_not_tried(tmp_path):
    # Two values, of which one is what the method has: every trial repeats the first or the first with the other.
    alike = dataclasses.replace(row("dp_merf"), space={"features": choice(4000, 2000)})
    tried = [trial for trial in range(1, 12) if not alike.is_repeated(trial, 0)]
    assert len(tried) == 1
    place = always(20)
    search.search(alike, place, book(tmp_path, 3, alike), Commands())
    assert list(dict.fromkeys(trial for trial, _ in place.tried)) == [0, *tried]


def test_a_part_of_the_cells_has_that_part_of_the_time(tmp_path):
    place = always(20)
    search.search(row(), place, book(tmp_path, 4, cells=CELLS[:1]), Commands())
    assert place.tried == [(trial, CELLS[0]) for trial in range(3)]


def test_a_search_that_was_ended_goes_on_where_it_was(tmp_path):
    every = [(trial, cell) for trial in range(4) for cell in CELLS]
    killed = Pretended(lambda trial, cell: Stopped() if (trial, cell) == every[6] else Outcome(SCORED, 20.0, 0.5))
    with pytest.raises(Stopped):
        search.search(row(), killed, book(tmp_path, 5), Commands())
    again, longer = always(20), always(20)
    search.search(row(), again, book(tmp_path, 5), Commands())
    assert (killed.tried, again.tried) == (every[:7], every[6:12])
    search.search(row(), longer, book(tmp_path, 6.5), Commands())
    assert longer.tried == every[12:]


def test_a_row_whose_command_broke_does_not_end_the_others(tmp_path, monkeypatch):
    class Broken(Pretended):
        def run(self, one: Row, *others) -> Outcome:
            if one.run.name == "dp_gauss":
                raise Failed("python -m methods ended with code 1")
            return super().run(one, *others)

    monkeypatch.setattr(search, "prepare", lambda *_: None)
    both = [row("dp_gauss"), row("dp_ntk")]
    kept = book(tmp_path, 5, *both)
    place = Broken(lambda *_: Outcome(SCORED, 100.0, 0.5))
    assert search._at_once(both, place, kept, 2) == {"dp_gauss": "python -m methods ended with code 1"}
    assert {one.run for one in kept.results} == {"dp_ntk"}


def test_a_search_from_the_command_line_writes_its_results_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(search, "prepare", lambda *_: None)
    place, limits = always(500), set()

    def kept(self: Place, *others) -> Outcome:
        limits.add((self.limit, self.train_limit))
        return place.run(*others)

    monkeypatch.setattr(Place, "run", kept)
    arguments = ["search", "--rows", "dp_ntk,dp_gauss", "--cores", "2", "--out", str(tmp_path)]
    assert tune.main(arguments) == 0
    # 40 minutes are 2,400 s: one trial of four runs is 2,000 of them.
    assert len(place.tried) == 8 and len(trials.read(tmp_path / "trials.csv")) == 8
    assert limits == {(60 * CONFIG.tuning["run_minutes"], CONFIG.tuning["train_seconds"])}
    assert tune.main(arguments) == 0 and len(place.tried) == 8
    assert tune.main([*arguments, "--minutes", "67"]) == 0 and len(place.tried) == 16
    with locked(tmp_path):
        assert tune.main(arguments) == 2
    assert "in use by another process" in capsys.readouterr().err
    other = ["search", "--out", str(tmp_path / "other"), "--cells"]
    assert tune.main([*other, "mnist:10"]) == 2
    assert tune.main([*other, "mnist_val:10", "--rows", "nonprivate"]) == 2
    assert "no row of nonprivate is tried on mnist_val:10" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_the_line_of_progress_says_score_cost_and_time_left(tmp_path, capsys):
    kept = book(tmp_path, 5, row("dp_gauss"), row("dp_ntk"))
    kept.cores = 2
    kept.add(row(), 0, CELLS[1], {}, Outcome(SCORED, 60.0, 0.9348))
    assert capsys.readouterr().err == (
        "progress: dp_gauss trial 0 on mnist_val at epsilon 1: 0.935 in 60 s of a core; 60 s of 5 min;"
        " at most about 4 min left\n"
    )


# trials.csv


def test_results_are_read_as_they_were_written(tmp_path):
    kept = [*whole(0, [0.1, 0.2, 0.3, 0.4]), result(1, score=None), result(2, score=None, outcome=REFUSED, seconds=0.0)]
    trials.write(tmp_path / "trials.csv", kept)
    assert sorted(trials.read(tmp_path / "trials.csv"), key=str) == sorted(kept, key=str)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("scored", "done", "unknown outcome 'done'"),
        (",0.5,", ",1.5,", "score must be from 0 to 1"),
        (",0.5,", ",nan,", "'nan' is no number"),
        (",10,0,", ",0,0,", "epsilon must be a number above 0"),
        ('"{""splits"": 0}"', "3", "settings must be a mapping"),
        ("30.0,", "-1,", "seconds must be 0 or more"),
        ("outcome", "ended", "the first line must be"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, before, after, message):
    trials.write(tmp_path / "trials.csv", [result(0)])
    text = (tmp_path / "trials.csv").read_text()
    assert before in text
    write_text(tmp_path / "trials.csv", text.replace(before, after, 1))
    with pytest.raises(UserError, match=message):
        trials.read(tmp_path / "trials.csv")


def test_files_of_several_machines_are_one_and_a_contradiction_is_refused(tmp_path):
    a, b = whole(0, [0.1, 0.2, 0.3, 0.4]), [result(1)]
    assert trials.merged([a, b, a], "x") == [*a, *b]
    with pytest.raises(UserError, match="two different results of trial 1 of dp_gauss on mnist_val at epsilon 10"):
        trials.merged([a, b, [result(1, score=0.6)]], "x")


def test_a_trial_of_several_settings_is_refused(tmp_path):
    a, b = result(1, settings={"splits": 1}), result(1, CELLS[1], settings={"splits": 2})
    with pytest.raises(UserError, match="x: trial 1 of dp_gauss, seed 0, has other settings on mnist_val at epsilon 1"):
        trials.merged([[a], [b]], "x")


def test_a_trial_that_began_with_other_settings_does_not_go_on(tmp_path):
    trials.write(tmp_path / "trials.csv", [result(0, settings={"splits": 1})])
    with pytest.raises(UserError, match="trial 0 of dp_gauss began with other settings"):
        search.search(row(), always(1.0), book(tmp_path, 5), Commands())


@pytest.mark.parametrize("verb", [["search"], ["choose", "--trials", "trials.csv"]], ids=["search", "choose"])
def test_a_file_of_settings_is_refused_by_the_line_that_says_how_it_is_tuned(capsys, verb):
    assert tune.main([*verb, "--configfile", "mine.yaml"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --configfile 'mine.yaml': presets alone are tuned") and said.count("\n") == 1
    assert "copy it to workflow/config/NAME.yaml, with its line extends: quick, and give --preset NAME" in said


def test_a_file_of_settings_beside_the_presets_is_tuned_as_one(tmp_path, monkeypatch):
    folder = tmp_path / "config"
    shutil.copytree(merging.FOLDER, folder)
    own = "gauss_two: {method: dp_gauss, splits: 2, chosen_on: [mnist_val]}"
    (folder / "mine.yaml").write_text(f"preset: mine\nextends: quick\nruns: {{{own}}}\n")
    for module, name in ((rows.presets, "names"), (rows.presets, "load"), (merging, "shipped_content")):
        monkeypatch.setattr(module, name, functools.partial(getattr(module, name), folder=folder))
    (own,) = rows.rows(rows.load("mine"), ["gauss_two"])
    assert (own.before["splits"], len(own.cells)) == (2, 4)


@pytest.mark.parametrize("number", [1, 4], ids=["begun", "ended"])
def test_a_search_does_not_go_on_with_trials_of_a_preset_that_was_another(tmp_path, monkeypatch, capsys, number):
    # As those of a row that has been shortened since; with its time used up, they would be all that it has.
    place, one = always(600.0), row("dp_ntk")
    older = whole(0, [0.5] * 4, run="dp_ntk", settings={**one.before, "steps": 4000}, seconds=600.0)[:number]
    trials.write(tmp_path / "trials.csv", older)
    monkeypatch.setattr(search, "prepare", lambda *_: None)
    monkeypatch.setattr(Place, "run", lambda self, *others: place.run(*others))
    assert tune.main(["search", "--rows", "dp_gauss,dp_ntk", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'trials.csv'}: trial 0 of dp_ntk began with other settings than it has")
    assert "take the lines of dp_ntk out, or give another --out" in said and said.count("\n") == 1
    # Before any row has taken its time.
    assert not place.tried


def test_a_score_on_what_is_not_searched_chooses_nothing():
    one = row()
    found = [result(trial, cell, score) for trial, score in ((1, 0.6), (2, 0.7)) for cell in CELLS]
    assert choose.best(one, [*found, result(1, ("mnist", 10.0), 1.0)], 0.01).trial == 2
