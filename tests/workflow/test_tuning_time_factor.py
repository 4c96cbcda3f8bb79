"""Equal tuning on a slower machine: with a time factor, a row is tried as often as where its limits were measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tuned_results import CONFIG, result, row, whole

from workflow.common.errors import UserError
from workflow.common.files import write_text
from workflow.tune import __main__ as tune
from workflow.tune import choose, search, trials
from workflow.tune.one_run import LONGEST, SHARED, TRAINING, Outcome, Place
from workflow.tune.trials import SCORED, Result

SECONDS = 100.0


def searched(monkeypatch: pytest.MonkeyPatch, folder: Path, seconds: float, *options: str) -> list[Result]:
    """Returns the results of the command where each run takes so many seconds, and the limits that runs had."""
    limits = set()

    def run(place: Place, *_: object) -> Outcome:
        limits.add(tuple(place._limit(arguments, 0) for arguments in (["evaluation.utility"], TRAINING, SHARED)))
        return Outcome(SCORED, seconds, 0.5)

    monkeypatch.setattr(search, "prepare", lambda *_: None)
    monkeypatch.setattr(Place, "run", run)
    assert tune.main(["search", "--rows", "dp_merf", "--out", str(folder), *options]) == 0
    (found,) = limits
    factor = float(options[1]) if options else 1.0
    measured = 60 * CONFIG.tuning["run_minutes"], CONFIG.tuning["train_seconds"], LONGEST
    assert found == tuple(seconds * factor for seconds in measured)
    return trials.read(folder / "trials.csv")


def test_a_machine_of_twice_the_seconds_tries_as_many_trials_as_one_that_the_limits_were_measured_on(
    tmp_path, monkeypatch, capsys
):
    measured = searched(monkeypatch, tmp_path / "a", SECONDS)
    said = capsys.readouterr().err
    slower = searched(monkeypatch, tmp_path / "b", 2 * SECONDS, "--time-factor", "2")
    assert [one.key for one in slower] == [one.key for one in measured] and len({one.trial for one in slower}) > 3
    assert {(one.seconds, one.time_factor, one.preset_seconds) for one in slower} == {(200.0, 2.0, SECONDS)}
    # What is printed is by the clock of the machine at hand.
    assert "2 min of a core; 2 min of 40 min; at most about 38 min left" in said
    assert "3 min of a core; 3 min of 80 min; at most about 77 min left" in capsys.readouterr().err
    one = row("dp_merf")
    by = [choose.chosen(CONFIG, one, results)["chosen_by"] for results in (measured, slower)]
    assert by[0] == by[1] and choose.unsettled(CONFIG, one, [slower]) == choose.unsettled(CONFIG, one, [measured]) == ""


def test_without_its_factor_a_slower_machine_has_fewer_trials(tmp_path, monkeypatch):
    few = searched(monkeypatch, tmp_path, 2 * SECONDS)
    assert max(one.trial for one in few) == 2


def test_a_search_goes_on_with_the_factor_that_it_began_with(tmp_path, monkeypatch, capsys):
    one = row("dp_merf")
    begun = [result(0, cell, run="dp_merf", settings=dict(one.before), time_factor=1.5) for cell in one.cells[:2]]
    trials.write(tmp_path / "trials.csv", begun)
    monkeypatch.setattr(search, "prepare", lambda *_: None)
    assert tune.main(["search", "--rows", "dp_merf", "--out", str(tmp_path), "--time-factor", "2"]) == 2
    said = capsys.readouterr().err
    assert "trials of dp_merf had --time-factor 1.5, not 2; give it again" in said and said.count("\n") == 1
    # The very same one, though it has many digits.
    factor = 131 / 72
    trials.write(tmp_path / "trials.csv", [replace(one, time_factor=factor) for one in begun])
    monkeypatch.setattr(Place, "run", lambda *_: Outcome(SCORED, 900.0, 0.5))
    other = ["search", "--rows", "dp_merf", "--out", str(tmp_path), "--time-factor"]
    assert tune.main([*other, f"{factor:.6g}"]) == 2
    assert f"had --time-factor {factor}, not {factor:.6g};" in capsys.readouterr().err
    assert tune.main([*other, str(factor)]) == 0
    # Of another row it may be another: how much slower a machine is depends on what it computes.
    assert tune.main(["search", "--rows", "dp_merf", "--out", str(tmp_path)]) == 2
    assert tune.main(["search", "--rows", "dp_gauss", "--out", str(tmp_path)]) == 0


@pytest.mark.parametrize("factor", ["0", "-1", "nan", "inf", "half"])
def test_a_factor_that_is_none_is_refused(factor, capsys):
    assert tune.main(["search", f"--time-factor={factor}"]) == 2
    assert f"--time-factor must be a number from 0.1 to 100, got {factor!r}"[:50] in capsys.readouterr().err


def test_the_price_of_time_is_that_of_the_preset_s_seconds():
    # Both took 30 seconds as these count, on machines of which one takes three times as long.
    slow = whole(0, [0.500] * 4, run="dp_merf", seconds=90.0, time_factor=3.0)
    fast = whole(1, [0.505] * 4, run="dp_merf", seconds=30.0)
    assert choose.best(row("dp_merf"), [*slow, *fast], 0.01).trial == 1
    dearer = whole(0, [0.500] * 4, run="dp_merf", seconds=30.0)
    longer = whole(1, [0.505] * 4, run="dp_merf", seconds=90.0)
    assert choose.best(row("dp_merf"), [*dearer, *longer], 0.01).trial == 0


def test_trials_of_a_file_from_before_there_was_a_factor_had_none(tmp_path):
    path = tmp_path / "trials.csv"
    trials.write(path, whole(0, [0.1, 0.2, 0.3, 0.4]))
    text = "\n".join(line.rpartition(",")[0] for line in path.read_text().splitlines())
    write_text(path, f"{text}\n")
    assert [one.time_factor for one in trials.read(path)] == [1.0] * 4
    # Its lines may have been taken out, so that the row is searched with a factor.
    write_text(path, text.splitlines()[0])
    assert trials.read(path) == []


@pytest.mark.parametrize("value", ["0", "-2", "nan", "fast"])
def test_a_damaged_factor_is_named(tmp_path, value):
    path = tmp_path / "trials.csv"
    trials.write(path, [result(0, time_factor=7.0)])
    write_text(path, path.read_text().replace(",7\n", f",{value}\n"))
    with pytest.raises(UserError, match=r"trials.csv line 2: (time_factor must be above 0|'\w+' is no number)"):
        trials.read(path)
