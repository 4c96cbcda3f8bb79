"""Equal tuning: every row has the same time of a core, a killed search goes on, the best goes into the preset."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from methods.core import registry
from workflow import merging, presets
from workflow.common.chosen_on import brief
from workflow.common.errors import UserError
from workflow.common.files import read_csv, write_json, write_text
from workflow.common.locks import locked
from workflow.datasets.sources import NAMES
from workflow.grid import Config
from workflow.tune import __main__ as tune
from workflow.tune import choose, one_run, price, rows, search, trials
from workflow.tune.one_run import Commands, Failed, Outcome, Place, Stopped
from workflow.tune.rows import Row
from workflow.tune.search import Book
from workflow.tune.trials import OVER_TIME, REFUSED, SCORED, Result

ABLATIONS = [f"dpac_wo_{part}" for part in ("g2r", "r2g", "seq", "seq_mixed", "init")]
CONFIG = rows.load("quick")
CELLS = (("mnist_val", 10.0), ("mnist_val", 1.0), ("fashion_mnist_val", 10.0), ("fashion_mnist_val", 1.0))


def row(name: str = "dp_gauss") -> Row:
    (found,) = rows.rows(CONFIG, [name])
    return found


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


def result(trial: int, cell=CELLS[0], score: float | None = 0.5, run: str = "dp_gauss", **others) -> Result:
    facts = {"settings": {"splits": trial}, "outcome": SCORED if score is not None else OVER_TIME, "seconds": 30.0}
    facts |= {"method": run, "seed": 0, "commit": "abc", "processor": "x"} | others
    return Result(run=run, trial=trial, dataset=cell[0], epsilon=cell[1], score=score, **facts)


def whole(trial: int, scores: list[float], **others) -> list[Result]:
    return [result(trial, cell, score, **others) for cell, score in zip(CELLS, scores, strict=True)]


# What is tried


def test_the_first_trial_has_the_settings_of_the_preset_and_the_others_are_drawn_the_same_on_every_machine():
    one = row("dp_merf")
    assert one.settings(0, 0) == CONFIG.runs["dp_merf"].hyper["mnist_val"]
    assert one.settings(1, 0) == row("dp_merf").settings(1, 0) != one.settings(2, 0)
    assert one.settings(1, 0) != one.settings(1, 1)
    assert one.settings(1, 0).keys() == one.space.keys() | one.before.keys()


def test_private_rows_are_tried_on_held_out_images_at_both_budgets_and_the_reference_without_one():
    assert row().cells == CELLS
    assert row("nonprivate").cells == (("mnist_val", float("inf")), ("fashion_mnist_val", float("inf")))


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


def test_cells_are_named_by_data_set_and_budget_and_a_test_split_is_none():
    assert rows.read_cells("mnist_val:10,fashion_mnist_val:1", CONFIG) == {CELLS[0], CELLS[3]}
    for text in ("mnist:10", "mnist_val", "mnist_val:3", ""):
        with pytest.raises(UserError, match="unknown cell"):
            rows.read_cells(text, CONFIG)


def test_a_preset_without_the_section_names_those_with_one(capsys):
    assert tune.main(["search", "--preset", "smoke"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: unknown preset to tune 'smoke'") and "valid: quick" in said and said.count("\n") == 1


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
    place = always(500)
    monkeypatch.setattr(Place, "run", lambda self, *others: place.run(*others))
    arguments = ["search", "--rows", "dp_ntk,dp_gauss", "--cores", "2", "--out", str(tmp_path)]
    assert tune.main(arguments) == 0
    # 40 minutes are 2,400 s: one trial of four runs is 2,000 of them.
    assert len(place.tried) == 8 and len(trials.read(tmp_path / "trials.csv")) == 8
    assert tune.main(arguments) == 0 and len(place.tried) == 8
    assert tune.main([*arguments, "--minutes", "67"]) == 0 and len(place.tried) == 16
    with locked(tmp_path):
        assert tune.main(arguments) == 2
    assert "in use by another process" in capsys.readouterr().err
    assert tune.main(["search", "--cells", "mnist:10", "--out", str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()


def test_the_line_of_progress_says_score_cost_and_time_left(tmp_path, capsys):
    kept = book(tmp_path, 5, row("dp_gauss"), row("dp_ntk"))
    kept.cores = 2
    kept.add(row(), 0, CELLS[1], {}, Outcome(SCORED, 60.0, 0.9348))
    assert capsys.readouterr().err == (
        "progress: dp_gauss trial 0 on mnist_val at epsilon 1: 0.935 in 60 s of a core; 60 s of 5 min;"
        " at most about 4 min left\n"
    )


# One run


SCORES = """import pathlib, sys
pathlib.Path(sys.argv[1], "utility.json").write_text('{"g2r_cnn": 0.75}')"""


@pytest.fixture
def made(tmp_path, monkeypatch) -> Callable[..., Place]:
    """Returns a place whose runs are Python files of the given texts in place of the graph's commands."""

    def make(limit: float, *texts: str) -> Place:
        for number, text in enumerate(texts):
            write_text(tmp_path / f"made_{number}.py", text)
        modules = [f"made_{number}" for number in range(len(texts))]
        monkeypatch.setattr(Place, "_commands", lambda self, *of: iter([[name, str(of[-1])] for name in modules]))
        return Place(tmp_path, CONFIG, limit, 0)

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return make


def tried(place: Place, commands: Commands | None = None) -> Outcome:
    return place.run(row(), 3, CELLS[0], {}, commands or Commands())


def test_a_run_is_its_commands_in_turn_and_costs_what_they_take_together(tmp_path, made):
    burn = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    found = tried(made(60, burn, burn, SCORES))
    assert (found.outcome, found.score) == (SCORED, 0.75) and found.seconds >= 0.6
    # Nothing of it stays but the log.
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_command_is_ended_when_the_run_has_had_its_seconds_of_a_core(made):
    found = tried(made(1, "while True: pass", SCORES))
    assert found.outcome == OVER_TIME and found.score is None and found.seconds >= 0.7


def test_settings_that_a_plan_refuses_end_the_trial_and_any_other_error_the_row(made, monkeypatch):
    place = made(60, "raise SystemExit(2)", SCORES)
    with pytest.raises(Failed, match=r"ended with code 2; see .*dp_gauss-trial3-mnist_val-eps10\.log"):
        tried(place)
    monkeypatch.setattr(one_run, "REFUSING", (["made_0"],))
    monkeypatch.setattr(Place, "_commands", lambda *_: iter([["made_0"]]))
    assert tried(place).outcome == REFUSED


def test_a_search_that_stops_ends_what_runs_and_begins_nothing(made):
    place, commands = made(60, "import time\ntime.sleep(60)", SCORES), Commands()
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(tried, place, commands)
        while not commands.running:
            time.sleep(0.01)
        commands.stop()
        assert isinstance(working.exception(), Stopped)
    with pytest.raises(Stopped):
        tried(place, commands)


def test_the_commands_are_the_graph_s_and_a_warm_start_is_shared_by_a_row_s_trials(tmp_path):
    place = Place(tmp_path, CONFIG, 60.0, 0)
    dpac = row("dpac")
    first, second = (
        list(place._commands(dpac, ("mnist_val", 1.0), dpac.settings(trial, 0), tmp_path / "r")) for trial in (0, 5)
    )
    assert [command[:2] for command in first[:4]] == [
        ["methods", verb] for verb in ("plan", "warm-start", "train", "sample")
    ]
    assert first[4][0] == "evaluation.utility" and json.loads(first[4][6]) == CONFIG.protocol
    assert first[0][first[0].index("--accounting") + 1] == "published"
    assert first[1] == second[1] and first[0] != second[0]
    assert first[2][first[2].index("--warm-start") + 1] == first[1][-1]
    others = list(place._commands(row("gs_wgan"), ("mnist_val", 1.0), row("gs_wgan").before, tmp_path / "r"))
    assert others[1][-1] != first[1][-1]
    without = list(place._commands(row(), CELLS[0], {}, tmp_path / "r"))
    assert [command[1] for command in without[:3]] == ["plan", "train", "sample"]


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


# What is chosen


def test_the_best_trial_has_the_highest_mean_of_those_with_a_score_everywhere():
    results = [
        *whole(0, [0.9, 0.5, 0.5, 0.5]), *whole(1, [0.6, 0.6, 0.6, 0.7]), *whole(2, [0.7, 0.6, 0.6, 0.6]),
        *whole(3, [1.0, 1.0, 1.0, 1.0])[:3],
    ]  # fmt: skip
    assert choose.best(row(), results).trial == 1
    assert choose.best(row(), results[:3]) is None


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
            *whole(0, [0.5] * 4, run=name, method="dpac", settings=dict(row(name).before)),
            *whole(1, [0.6] * 4, run=name, method="dpac", settings=found),
        )
    ]  # fmt: skip
    assert chosen(tmp_path, results) == 0
    assert capsys.readouterr().out.splitlines()[0] == "dpac: the best of 2 trials in 4.0 min"
    before, after = rows.load("quick").runs, tuned(tmp_path)
    assert after.runs["dpac"].hyper["mnist"]["steps"] == 300 and before["dpac"].hyper["mnist_val"]["steps"] == 480
    # An ablation has what its method is tuned to; a row with settings of its own keeps to these.
    assert after.runs["dpac_wo_g2r"].hyper["mnist"]["steps"] == 300
    assert after.runs["dpac_sound"].hyper["mnist"]["steps"] == 200
    assert after.runs["dp_merf"].hyper["mnist"] == before["dp_merf"].hyper["mnist_val"]
    assert after.runs["dpac_wo_g2r"].chosen_by == {"trials": 2, "core_minutes": 4.0, "commit": "abc"}
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
    note = "of the first trial, and of what no trial changes: its classifier was taught longer after two first runs"
    assert any(line.startswith(f"`dpac_sound`: {note}") for line in said)
    assert brief(after.summary()["runs"]["dpac"]) == "mnist_val, fashion_mnist_val, 2 trials, commit abc"


def test_what_tuning_would_have_cost_is_counted_for_the_trials_together(tmp_path):
    refused = result(1, settings={}, outcome=REFUSED, score=None)
    assert chosen(tmp_path, [*whole(0, [0.5] * 4, settings={}), refused]) == 0
    costs = read_csv(tmp_path / "out/costs.csv", price.COLUMNS)
    assert [(one["run"], one["dataset"], one["runs"]) for one in costs] == [
        ("dp_gauss", "fashion_mnist_val", "2"), ("dp_gauss", "mnist_val", "2"),
    ]  # fmt: skip
    for one in costs:
        # More than the larger budget, less than the sum of both.
        together, added = float(one["eps_together"]), float(one["eps_sum"])
        assert 10 < together < added and added == pytest.approx(11, rel=0.01)


def test_trials_without_privacy_cost_none_and_a_row_without_a_whole_trial_stays(tmp_path, capsys):
    endless = [
        result(0, (name, math.inf), 0.9, run="nonprivate", settings={}) for name in ("mnist_val", "fashion_mnist_val")
    ]
    assert chosen(tmp_path, [*endless, result(0, run="dp_ntk", settings={})]) == 0
    assert "notice: no trial of dp_ntk has a score everywhere" in capsys.readouterr().err
    assert {one["run"] for one in read_csv(tmp_path / "out/costs.csv", price.COLUMNS)} == {"dp_ntk"}
    assert not tuned(tmp_path).runs["dp_ntk"].chosen_by


def test_trials_that_are_not_enough_or_of_several_seeds_choose_nothing(tmp_path, capsys):
    assert chosen(tmp_path, [result(0)]) == 2
    assert "no trial has a score on every data set and budget" in capsys.readouterr().err
    assert chosen(tmp_path, [*whole(0, [0.5] * 4), result(0, seed=1)]) == 2
    assert "trials of several seeds, 0, 1; choose among those of one" in capsys.readouterr().err
    assert not (tmp_path / "config").exists()


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


def test_a_search_is_never_on_a_test_split(tmp_path):
    text = (merging.FOLDER / "quick.yaml").read_text(encoding="utf-8")
    tuned(tmp_path)
    write_text(tmp_path / "config/quick.yaml", text.replace("datasets: [mnist_val, fash", "datasets: [mnist, fash", 1))
    with pytest.raises(UserError, match=r"quick\.yaml: tuning\.datasets\[0\]"):
        presets.load({}, datasets=NAMES, methods=registry, protocol_keys=None, folder=tmp_path / "config")
