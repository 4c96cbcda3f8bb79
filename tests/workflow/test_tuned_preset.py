"""What equal tuning chose: the best settings go into the preset, which says by what, and what it would have cost."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from tuned_results import CELLS, CONFIG, alike, result, row, whole

from methods.core import registry
from workflow import merging, presets
from workflow.common.chosen_on import brief
from workflow.common.errors import UserError
from workflow.common.files import read_csv, write_json, write_text
from workflow.datasets.sources import NAMES
from workflow.grid import Config
from workflow.tune import __main__ as tune
from workflow.tune import choose, price, rows, trials
from workflow.tune.trials import OVER_TIME, REFUSED, Result

ROOT = Path(__file__).resolve().parents[2]
ABLATIONS = [f"dpac_wo_{part}" for part in ("g2r", "r2g", "seq", "seq_mixed", "init")]


def test_the_best_trial_has_the_highest_mean_of_those_with_a_score_everywhere():
    results = [
        *whole(0, [0.9, 0.5, 0.5, 0.5]), *whole(1, [0.6, 0.6, 0.6, 0.7]), *whole(2, [0.7, 0.6, 0.6, 0.6]),
        *whole(3, [1.0, 1.0, 1.0, 1.0])[:3],
    ]  # fmt: skip
    assert choose.best(row(), results, 0.01).trial == 1
    assert choose.best(row(), results[:3], 0.01) is None


@pytest.mark.parametrize(("gain", "winner"), [(0.015, 0), (0.025, 1)])
def test_a_trial_must_be_better_by_the_price_of_its_time(gain, winner):
    # Four times as long: two doublings, a hundredth each. A warm start is in one run of the first trial alone.
    short = [*whole(0, [0.5] * 4, seconds=20.0)[:3], result(0, CELLS[3], 0.5, seconds=500.0)]
    long = whole(1, [0.5 + gain] * 4, seconds=80.0)
    assert choose.best(row(), [*short, *long], 0.01).trial == winner
    assert choose.best(row(), [*short, *long], 0.0).trial == 1


def chosen(tmp_path: Path, results: list[Result]) -> int:
    trials.write(tmp_path / "trials.csv", results)
    for name in ("mnist_val", "fashion_mnist_val"):
        card = {"dataset": name, "image_shape": [1, 28, 28], "num_classes": 10, "splits": {"train": {"count": 50_000}}}
        write_json(tmp_path / "data" / name / "card.json", card)
    files = {"--trials": "trials.csv", "--tuned": "config/tuned/quick.yaml", "--out": "out"}
    return tune.main(["choose", *(text for option, name in files.items() for text in (option, str(tmp_path / name)))])


def tuned(tmp_path: Path) -> Config:
    """Returns preset quick as it is with what `chosen` wrote."""
    for name in ("quick", "schema"):
        write_text(tmp_path / f"config/{name}.yaml", (merging.FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return presets.load({}, datasets=NAMES, methods=registry, protocol_keys=None, folder=tmp_path / "config")


def test_the_best_settings_are_the_preset_s_and_it_says_by_what_they_were_chosen(tmp_path, capsys, monkeypatch):
    # What they cost takes seconds to count, and is tried below.
    monkeypatch.setattr(price, "of", lambda *_: [])
    settings = {"dpac": {"steps": 300}, "dpac_sound": {"steps": 200, "shards_per_step": 12.0}}
    settings = {name: {**row(name).before, **changed} for name, changed in settings.items()}
    results = [
        one for name, found in settings.items() for one in (
            *alike(0, 0.5, name, method="dpac", settings=dict(row(name).before)),
            *alike(1, 0.6, name, method="dpac", settings=found),
        )
    ]  # fmt: skip
    assert chosen(tmp_path, results) == 0
    assert capsys.readouterr().out.splitlines()[0] == "dpac: the best of 2 trials in 40.0 min"
    before, after = rows.load("quick").runs, tuned(tmp_path)
    assert after.runs["dpac"].hyper["mnist"]["steps"] == 300 and before["dpac"].hyper["mnist_val"]["steps"] == 480
    # An ablation has what its method is tuned to; a row with settings of its own keeps to these.
    assert after.runs["dpac_wo_g2r"].hyper["mnist"]["steps"] == 300
    assert after.runs["dpac_sound"].hyper["mnist"]["steps"] == 200
    assert after.runs["dp_merf"].hyper["mnist"] == before["dp_merf"].hyper["mnist_val"]
    assert after.runs["dpac_wo_g2r"].chosen_by == {"trials": 2, "core_minutes": 40.0, "commit": "abc"}
    said = after.chosen_on()
    names = ["dpac", "dpac_sound", "dpac_as_released", *ABLATIONS]
    listed = ", ".join(f"`{name}` (2 trials)" for name in names[:-1])
    assert (
        f"Settings of {listed} and `{names[-1]}` (2 trials) were chosen on held-out images (`mnist_val` and"
        " `fashion_mnist_val`) by equal tuning at commit abc."
    ) in said
    # What no trial changes was chosen as before, and that stays said.
    note = "of the first trial, and of what no trial changes: chosen by scores on the test split of `mnist`, which"
    assert any(line.startswith("`dpac`, ") and note in line for line in said)
    note = "of the first trial, and of what no trial changes: after a shorter run had been scored on the test splits"
    assert any(line.startswith(f"`dpac_sound`: {note}") for line in said)
    assert brief(after.summary()["runs"]["dpac"]) == "mnist_val, fashion_mnist_val, 2 trials, commit abc"


@pytest.mark.parametrize("too", [False, True], ids=["not tuned itself", "tuned itself"])
def test_what_a_method_is_tuned_to_stays_out_of_rows_with_settings_of_their_own(too, tmp_path, monkeypatch):
    monkeypatch.setattr(price, "of", lambda *_: [])
    changed = {"dpac": {"clip": 0.25, "critic_weight": 0.9, "steps": 300}}
    changed |= {"dpac_sound": {"steps": 200}} if too else {}
    results = [
        one for name, new in changed.items() for trial, score in ((0, 0.5), (1, 0.6))
        for one in alike(trial, score, name, method="dpac", settings={**row(name).before, **(new if trial else {})})
    ]  # fmt: skip
    for _ in range(2):  # The second call finds what the first one wrote.
        assert chosen(tmp_path, results) == 0
        after = tuned(tmp_path).runs
        before = row("dpac_sound").before
        assert after["dpac_wo_g2r"].hyper["mnist"]["clip"] == after["dpac"].hyper["mnist"]["clip"] == 0.25
        assert after["dpac_sound"].hyper["mnist"] | {"steps": 0} == before | {"steps": 0}
        assert after["dpac_sound"].hyper["mnist"]["steps"] == (200 if too else before["steps"])


def test_results_on_cells_that_a_row_is_not_tried_on_are_left_out_and_that_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(price, "of", lambda *_: [])
    facts = {"method": "dpac", "settings": dict(row("dpac").before), "run": "dpac", "seconds": 400.0}
    first, second = whole(0, [0.5, 0.2, 0.5, 0.2], **facts), whole(1, [0.4, 0.1, 0.4, 0.1], **facts)
    assert chosen(tmp_path, [*first, *second]) == 0
    assert "notice: 2 results of dpac are on data sets or budgets that it is not tried on" in capsys.readouterr().err
    kept = [(one.trial, one.cell) for one in trials.read(tmp_path / "out/trials.csv")]
    assert sorted(kept) == sorted([*((0, cell) for cell in CELLS), (1, CELLS[0]), (1, CELLS[2])])


def test_a_row_keeps_nothing_apart_of_a_method_that_a_later_search_leaves_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(price, "of", lambda *_: [])
    before = dict(row("dpac").before)
    for changed, kept in (({"clip": 0.25}, {"dpac_sound": {"clip": 0.5}}), ({}, {})):
        first, later = (
            alike(trial, score, "dpac", method="dpac", settings=settings)
            for trial, score, settings in ((0, 0.5, before), (1, 0.6, before | changed))
        )
        assert chosen(tmp_path, [*first, *later]) == 0
        assert merging.mapping(tmp_path / "config/tuned/quick.yaml").get("runs", {}) == kept


def test_a_row_with_settings_of_its_own_keeps_those_that_its_method_has_on_one_data_set(tmp_path, monkeypatch):
    text = (merging.FOLDER / "quick.yaml").read_text(encoding="utf-8")
    last = "    fakes_per_class: 5\n"
    text = text.replace(last, f"{last}    per_dataset: {{celeba: {{clip: 0.125}}}}\n", 1)
    for name, content in {"quick": text, "schema": (merging.FOLDER / "schema.yaml").read_text()}.items():
        write_text(tmp_path / f"config/{name}.yaml", content)
    monkeypatch.setattr(merging, "FOLDER", tmp_path / "config")
    options = {"datasets": NAMES, "methods": registry, "protocol_keys": None, "folder": tmp_path / "config"}
    before = presets.load({"datasets": ["mnist_val", "celeba"]}, **options)
    written = choose.tuned(before, {"dpac": {"clip": 0.25, "steps": 300}})
    assert written["runs"] == {"dpac_sound": {"clip": 0.5, "per_dataset": {"celeba": {"clip": 0.125}}}}
    write_text(tmp_path / "config/tuned/quick.yaml", yaml.safe_dump(written))
    after = presets.load({"datasets": ["mnist_val", "celeba"]}, **options)
    for dataset in ("mnist_val", "celeba", "celeba10k"):
        now, then = (registry.hyper("dpac", one.runs["dpac_sound"].hyper[dataset]) for one in (after, before))
        assert now == then


def test_a_row_says_nothing_of_what_its_method_is_tuned_to_where_that_is_no_change_or_it_says_so_itself():
    written = choose.tuned(CONFIG, {"dpac": {"clip": 0.5, "critic_weight": 0.9, "steps": 300}, "gone": {"steps": 3}})
    assert written == {"methods": {"dpac": {"clip": 0.5, "critic_weight": 0.9, "steps": 300}}}


def test_what_tuning_would_have_cost_is_counted_for_the_trials_together(tmp_path):
    refused = result(1, settings={}, outcome=REFUSED, score=None)
    late = result(2, ("mnist_val", 1.0), settings={}, outcome=OVER_TIME, score=None)
    assert chosen(tmp_path, [*whole(0, [0.5] * 4, settings={}, seconds=590.0), refused, late]) == 0
    costs = read_csv(tmp_path / "out/costs.csv", price.COLUMNS)
    assert [(one["run"], one["dataset"], one["runs"]) for one in costs] == [
        ("dp_gauss", "fashion_mnist_val", "2"), ("dp_gauss", "mnist_val", "3"),
    ]  # fmt: skip
    for one in costs:
        # More than the larger budget, less than the sum of both.
        together, added = float(one["eps_together"]), float(one["eps_sum"])
        assert 10 < together < added and added == pytest.approx(9 + int(one["runs"]), rel=0.01)


def test_what_a_trial_would_have_cost_is_that_of_its_own_settings(tmp_path, monkeypatch):
    made, planned = [], price.Plan.make
    monkeypatch.setattr(price.Plan, "make", lambda *given: made.append(given[2]) or planned(*given))
    settings = [row().settings(trial, 0) for trial in (0, 1)]
    assert chosen(tmp_path, [
        *whole(0, [0.5] * 4, settings=settings[0], seconds=590.0), result(1, settings=settings[1], score=None),
    ]) == 0  # fmt: skip
    assert [made.count(one) for one in settings] == [4, 1]


def test_trials_without_privacy_cost_none_and_a_row_without_a_whole_trial_stays(tmp_path, capsys):
    endless = [
        result(0, (name, math.inf), 0.9, run="nonprivate", settings=dict(row("nonprivate").before), seconds=1200.0)
        for name in ("mnist_val", "fashion_mnist_val")
    ]
    part = result(0, run="dp_ntk", settings=dict(row("dp_ntk").before), seconds=2400.0)
    assert chosen(tmp_path, [*endless, part]) == 0
    assert "notice: no trial of dp_ntk has a score everywhere" in capsys.readouterr().err
    assert {one["run"] for one in read_csv(tmp_path / "out/costs.csv", price.COLUMNS)} == {"dp_ntk"}
    assert not tuned(tmp_path).runs["dp_ntk"].chosen_by


def test_nothing_is_chosen_for_a_row_that_has_not_had_its_time(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(price, "of", lambda *_: [])
    early = whole(0, [0.9] * 4, settings=dict(row("dp_ntk").before), run="dp_ntk", seconds=290.0)
    assert chosen(tmp_path, [*whole(0, [0.5] * 4, settings={}, seconds=310.0), *early]) == 0
    said = capsys.readouterr()
    assert "notice: the search of dp_ntk has taken 19.3 of 40 minutes of a core, and another trial fits" in said.err
    assert said.out.startswith("dp_gauss: the best of 1 trials") and not tuned(tmp_path).runs["dp_ntk"].chosen_by


def test_trials_that_are_not_enough_or_of_several_seeds_choose_nothing(tmp_path, capsys):
    assert chosen(tmp_path, [result(0)]) == 2
    assert "no row has had its time and a score on every data set and budget" in capsys.readouterr().err
    assert chosen(tmp_path, [*whole(0, [0.5] * 4), result(0, seed=1)]) == 2
    assert "trials of several seeds, 0, 1; choose among those of one" in capsys.readouterr().err
    assert not (tmp_path / "config").exists()


def test_a_row_for_which_nothing_is_chosen_now_keeps_its_settings_trials_and_costs(tmp_path, monkeypatch, capsys):
    def costs(_: Config, results: list[Result], __: Path) -> list[dict[str, str]]:
        return [dict.fromkeys(price.COLUMNS, "1") | {"run": name} for name in sorted({one.run for one in results})]

    monkeypatch.setattr(price, "of", costs)
    names = ("dp_gauss", "dpac_sound", "dp_merf")
    full = {name: whole(0, [0.5] * 4, run=name, settings=dict(row(name).before), seconds=600.0) for name in names}
    assert chosen(tmp_path, [*full["dp_gauss"], *full["dpac_sound"]]) == 0
    # One row is searched anew and has not had its time, another is not in the files at all.
    early = result(0, run="dp_gauss", settings=dict(row().before))
    assert chosen(tmp_path, [early, *full["dp_merf"]]) == 0
    assert "notice: the search of dp_gauss has taken 0.5 of 40 minutes" in capsys.readouterr().err
    after = tuned(tmp_path).runs
    assert [name for name in names if after[name].chosen_by] == list(names)
    held = trials.read(tmp_path / "out/trials.csv")
    assert sorted(held, key=str) == sorted((one for found in full.values() for one in found), key=str)
    assert [one["run"] for one in read_csv(tmp_path / "out/costs.csv", price.COLUMNS)] == sorted(names)
    # Once it has its time, its new trials take the place of those before.
    before = whole(0, [0.5] * 4, run="dp_gauss", settings=dict(row().before), seconds=300.0)
    anew = [*before, *whole(1, [0.6] * 4, run="dp_gauss", settings={"splits": 1}, seconds=300.0)]
    assert chosen(tmp_path, anew) == 0
    assert tuned(tmp_path).runs["dp_gauss"].hyper["mnist"]["splits"] == 1
    held = [one for one in trials.read(tmp_path / "out/trials.csv") if one.run == "dp_gauss"]
    assert sorted(held, key=str) == sorted(anew, key=str)


def test_trials_of_a_preset_that_was_another_choose_nothing(tmp_path, monkeypatch, capsys):
    # As those from before a limit on training, which some rows keep to by fewer steps.
    monkeypatch.setattr(price, "of", lambda *_: [])
    before = dict(row("dp_ntk").before)
    long = [
        one for trial, steps in ((0, 4000), (1, 2000))
        for one in whole(trial, [0.9] * 4, run="dp_ntk", settings=before | {"steps": steps}, seconds=300.0)
    ]  # fmt: skip
    assert chosen(tmp_path, [*long, *whole(0, [0.5] * 4, settings={}, seconds=600.0)]) == 0
    said = "notice: trial 0 of dp_ntk had other settings than the preset has before the search; its settings stay as"
    assert said in capsys.readouterr().err
    assert not tuned(tmp_path).runs["dp_ntk"].chosen_by and tuned(tmp_path).runs["dp_gauss"].chosen_by
    # A search that went on with them would be refused.
    assert {one.run for one in trials.read(tmp_path / "out/trials.csv")} == {"dp_gauss"}


def test_the_trials_of_a_row_that_was_never_tuned_are_those_given_last(tmp_path, monkeypatch):
    monkeypatch.setattr(price, "of", lambda *_: [])
    full = whole(0, [0.5] * 4, settings={}, seconds=600.0)
    for number in (1, 2):
        under_way = whole(0, [0.5] * 4, run="dp_ntk", settings=dict(row("dp_ntk").before))[:number]
        assert chosen(tmp_path, [*full, *under_way]) == 0
        assert len([one for one in trials.read(tmp_path / "out/trials.csv") if one.run == "dp_ntk"]) == number


@pytest.mark.parametrize("places", ["[mnist (test split)]", "[mnist_val, mnist (test split)]", "[published]", "[]"])
def test_a_row_that_was_tuned_may_not_rest_on_a_test_split(tmp_path, places):
    by = "{trials: 3, core_minutes: 40, commit: abc}"
    text = f"methods: {{dp_merf: {{chosen_on: {places}, chosen_by: {by}}}}}"
    write_text(tmp_path / "config/tuned/quick.yaml", text)
    with pytest.raises(UserError, match=r"tuned/quick\.yaml: methods\.dp_merf was tuned, so its chosen_on must name"):
        tuned(tmp_path)


def test_what_was_chosen_is_not_where_the_next_search_begins(tmp_path):
    write_text(tmp_path / "config/tuned/quick.yaml", "methods: {dp_merf: {steps: 7}}")
    assert tuned(tmp_path).runs["dp_merf"].hyper["mnist"]["steps"] == 7
    folder = {"datasets": NAMES, "methods": registry, "protocol_keys": None, "folder": tmp_path / "config"}
    assert presets.load({}, **folder, tuned=False).runs["dp_merf"].hyper["mnist"]["steps"] == 1500


def test_a_preset_that_extends_another_has_what_was_chosen_for_that_one_and_may_be_tuned_itself(tmp_path):
    def steps(**options: bool) -> dict[str, int]:
        folder = {"datasets": NAMES, "methods": registry, "protocol_keys": None, "folder": tmp_path / "config"}
        runs = presets.load({"preset": "longer"}, **folder, **options).runs
        return {name: runs[name].hyper["mnist"]["steps"] for name in ("dp_merf", "dpgan")}

    write_text(tmp_path / "config/tuned/quick.yaml", "methods: {dp_merf: {steps: 7}, dpgan: {steps: 8}}")
    write_text(tmp_path / "config/longer.yaml", "preset: longer\nextends: quick\nmethods: {dpgan: {steps: 80}}")
    tuned(tmp_path)
    assert steps() == {"dp_merf": 7, "dpgan": 80}
    write_text(tmp_path / "config/tuned/longer.yaml", "methods: {dp_merf: {steps: 70}}\nruns: {gone: {method: dpac}}")
    assert steps() == {"dp_merf": 70, "dpgan": 80}
    assert steps(tuned=False) == {"dp_merf": 7, "dpgan": 80}


def test_who_runs_it_has_the_last_word_on_what_was_chosen(tmp_path):
    write_text(tmp_path / "config/tuned/quick.yaml", "methods: {dp_merf: {steps: 7}}")
    tuned(tmp_path)
    folder = {"datasets": NAMES, "methods": registry, "protocol_keys": None, "folder": tmp_path / "config"}
    assert presets.load({"methods": {"dp_merf": {"steps": 9}}}, **folder).runs["dp_merf"].hyper["mnist"]["steps"] == 9


def test_a_search_is_never_on_a_test_split(tmp_path):
    text = (merging.FOLDER / "quick.yaml").read_text(encoding="utf-8")
    tuned(tmp_path)
    write_text(tmp_path / "config/quick.yaml", text.replace("datasets: [mnist_val, fash", "datasets: [mnist, fash", 1))
    with pytest.raises(UserError, match=r"quick\.yaml: tuning\.datasets\[0\]"):
        presets.load({}, datasets=NAMES, methods=registry, protocol_keys=None, folder=tmp_path / "config")
