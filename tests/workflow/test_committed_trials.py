"""The committed trials of equal tuning: on held-out images, by committed code, and whole before a preset uses them."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
from toys import shipped

from methods.core import registry
from workflow import merging
from workflow.common.chosen_on import HELD_OUT
from workflow.common.files import read_csv
from workflow.tune import choose, rows, rule, trials
from workflow.tune.search import Book
from workflow.tune.trials import REFUSED, merged

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "results/reference/tuning").glob("*/trials.csv"))


@pytest.fixture(params=FILES, ids=[path.parent.name for path in FILES])
def committed(request) -> tuple[Book, list[rows.Row]]:
    """Returns a search's book with its rows, as `search` would go on with it."""
    config = rows.load(request.param.parent.name)
    tried = rows.rows(config, dict.fromkeys(one.run for one in trials.read(request.param)))
    cells = {cell for row in tried for cell in row.cells}
    return Book(request.param, tried, cells, 60 * config.tuning["core_minutes"], 0), tried


def test_each_row_began_as_the_preset_was_and_has_had_its_full_time_where_the_preset_uses_its_trials(committed):
    book, tried = committed
    assert {one.run for one in book.results if one.trial == 0} == {row.run.name for row in tried}
    used = {run.name for run in shipped(book.path.parent.name).runs.values() if run.chosen_by and run.own_settings}
    assert [name for name in used if name not in book.rows or book.may_begin(name)] == []
    assert {name: rule.unfinished(book.of(name), book.judged(name)) for name in used} == dict.fromkeys(used)


def test_every_row_of_quick_that_is_tuned_has_had_its_time():
    used = {run.name for run in shipped("quick").runs.values() if run.chosen_by and run.own_settings}
    assert used == set(rows.tuned_rows(rows.load("quick")))


def test_every_trial_is_on_held_out_images_and_by_committed_code(committed):
    book, tried = committed
    assert all(one.dataset.endswith(HELD_OUT) for one in book.results)
    assert not [one.commit for one in book.results if one.commit.endswith("+") or one.commit == "unknown"]
    # None of another seed or cell, which the budget would not count.
    assert sum(len(book.of(row.run.name)) for row in tried) == len(book.results)


def test_a_row_under_way_goes_on_with_the_trials_that_it_began(committed):
    book, tried = committed
    used = {run.name for run in shipped(book.path.parent.name).runs.values() if run.chosen_by}
    rows_under_way = {row.run.name: row for row in tried if row.run.name not in used}
    drawn = [(one, rows_under_way[one.run]) for one in book.results if one.run in rows_under_way]
    assert not [one.key for one, row in drawn if one.settings != row.settings(one.trial, one.seed)]


def test_a_row_that_nothing_was_chosen_for_has_the_settings_that_it_had(committed):
    # Of quick none is left; a row that comes later is one until it is tuned.
    name = committed[0].path.parent.name
    before, now = rows.load(name).runs, shipped(name).runs
    for run in (one for one in now.values() if one.own_settings and not one.chosen_by):
        place = run.datasets[0]
        assert registry.hyper(run.method, run.hyper[place]) == registry.hyper(run.method, before[run.name].hyper[place])


def test_the_settings_and_costs_of_a_preset_are_those_that_choose_writes_from_its_trials(committed):
    book, tried = committed
    name, results = book.path.parent.name, merged([book.results])
    config = rows.load(name)
    chosen = {row.run.name: choose.chosen(config, row, results) for row in tried
              if not choose.unsettled(config, row, [results])}  # fmt: skip
    assert choose.tuned(config, chosen) == merging.mapping(merging.FOLDER / merging.TUNED / f"{name}.yaml")
    # Privacy is charged for every run of a private row, of those too that its time did not count.
    private = [one for one in results if math.isfinite(one.epsilon) and one.outcome != REFUSED]
    counted = {(one["run"], one["dataset"]): int(one["runs"]) for one in read_csv(book.path.with_name("costs.csv"))}
    assert counted == Counter((one.run, one.dataset) for one in private)
