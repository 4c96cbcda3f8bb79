"""`evaluation.compare --seeds mean`: what the test of the difference finds, and what it leaves to fixed tolerances."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from evaluation.compare import main
from evaluation.comparison import seeds
from evaluation.comparison.changes import Row, Run
from evaluation.comparison.tolerance import DEFAULT_TOLERANCES, Tolerance
from evaluation.scores import Score, write_scores


def row(metric: str = "g2r_cnn", method: str = "dpac") -> Row:
    return Row(Run("", "mnist", method, 10.0, "sound", None, "measured"), metric)


def limits(old: dict, new: dict, given: dict | None = None) -> dict[Row, seeds.Limit]:
    return seeds.limits(old, new, DEFAULT_TOLERANCES, given or {})[0]


def written(path: Path, values: dict[str, list[float]]) -> str:
    rows = [
        Score("quick", "mnist", "dpac", 10.0, "sound", seed, metric, value, "measured")
        for metric, of_seeds in values.items()
        for seed, value in enumerate(of_seeds)
    ]
    write_scores(path, rows)
    return str(path)


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def compare(old: dict[str, list[float]], new: dict[str, list[float]], *options: str) -> tuple[int, str]:
        paths = [written(tmp_path / "a.csv", old), written(tmp_path / "b.csv", new)]
        code = main([*paths, "--seeds", "mean", *options])
        out = capsys.readouterr()
        return code, out.out + out.err

    return compare


def test_the_tolerance_of_one_row_is_welchs_interval() -> None:
    old, new = [0.80, 0.82, 0.81, 0.83], [0.74, 0.80, 0.71]
    a, b = np.var(old, ddof=1) / 4, np.var(new, ddof=1) / 3
    freedom = (a + b) ** 2 / (a**2 / 3 + b**2 / 2)
    assert limits({row(): old}, {row(): new})[row()].amount == pytest.approx(
        stats.t.ppf(0.975, freedom) * math.sqrt(a + b)
    )


def test_one_seed_in_b_is_judged_by_the_spread_of_a_and_one_in_a_by_the_fixed_tolerance() -> None:
    found = limits({row(): [0.80, 0.82, 0.81]}, {row(): [0.70]})[row()]
    assert found.amount == pytest.approx(stats.t.ppf(0.975, 2) * 0.01 * math.sqrt(1 + 1 / 3))
    assert limits({row(): [0.70]}, {row(): [0.80, 0.82, 0.81]})[row()].amount == 0.02


def test_what_the_spread_explains_is_no_regression_and_what_it_does_not_is(run) -> None:
    assert run({"g2r_cnn": [0.70, 0.80, 0.90]}, {"g2r_cnn": [0.62, 0.75, 0.85]})[0] == 0
    # Less than the fixed tolerance of 0.02.
    code, out = run({"g2r_cnn": [0.800, 0.801, 0.802]}, {"g2r_cnn": [0.788, 0.790, 0.789]})
    assert code == 1
    assert "dpac eps 10 sound: g2r_cnn: 0.801 -> 0.789 (tolerance 0.00227 by 3 and 3 seeds)" in out
    assert run({"fid_classifier": [20, 20.1, 19.9]}, {"fid_classifier": [19, 19.1, 18.9]})[0] == 0


def test_one_seed_more_is_no_new_score_and_is_judged_by_the_fixed_tolerance_which_is_said(run) -> None:
    code, out = run({"g2r_cnn": [0.80]}, {"g2r_cnn": [0.80, 0.77]})
    assert code == 0 and out.startswith("no regression; 1 scores compared, 0 new\n")
    assert "1 have one seed on a side and are judged by the fixed tolerance" in out
    code, out = run({"g2r_cnn": [0.80]}, {"g2r_cnn": [0.80, 0.75]})
    assert code == 1 and "g2r_cnn: 0.8 -> 0.775 (tolerance 0.02)" in out


def test_which_runs_have_which_other_seeds_is_said_in_one_line_whatever_the_side(run) -> None:
    note = run({"g2r_cnn": [0.80]}, {"g2r_cnn": [0.80, 0.77]})[1].splitlines()[1]
    assert note.startswith("note: A has seeds 0; B has 0, 1: 1 run (eps 10 sound) of mnist (dpac); means over seeds")
    note = run({"g2r_cnn": [0.80, 0.79, 0.81]}, {"g2r_cnn": [0.80, 0.79]})[1].splitlines()[1]
    assert "A has seeds 0, 1, 2; B has 0, 1: 1 run (eps 10 sound) of mnist (dpac)" in note
    assert "A has seeds" not in run({"g2r_cnn": [0.80, 0.79]}, {"g2r_cnn": [0.80, 0.79]})[1]


def test_equally_many_seeds_that_are_others_are_said_and_many_groups_are_summed_up() -> None:
    def of(method: str, *numbers: int) -> list[Row]:
        return [row(method=method)._replace(run=row(method=method).run._replace(seed=number)) for number in numbers]

    assert seeds.uneven(of("a", 0), of("a", 1) + of("b", 2)) == [
        "A has seeds 0; B has 1: 1 run (eps 10 sound) of mnist (a)"
    ]
    old = [one for place in range(5) for one in of(f"m{place}", place)]
    new = [one for place in range(5) for one in of(f"m{place}", 9)]
    (told,) = seeds.uneven(old, new)
    assert told.count("A has seeds") == 3 and told.endswith("; 2 other differences of seeds")


def test_a_seed_less_is_no_missing_score_but_is_said(run) -> None:
    code, out = run({"g2r_cnn": [0.80, 0.79, 0.81]}, {"g2r_cnn": [0.80, 0.79]})
    assert code == 0 and "1 have fewer seeds in B than in A" in out


def test_the_privacy_spent_is_judged_by_the_fixed_tolerance_however_wide_its_spread(run) -> None:
    code, out = run({"eps_sound": [9.0, 10.0, 11.0]}, {"eps_sound": [9.1, 10.1, 11.1]})
    assert code == 1 and "eps_sound: 10 -> 10.1 (tolerance 0.001)" in out
    assert run({"eps_sound": [9.0, math.inf]}, {"eps_sound": [9.0, math.inf]})[0] == 0
    assert run({"eps_sound": [9.0, 9.0]}, {"eps_sound": [9.0, math.inf]})[0] == 1


def test_equal_seeds_without_spread_are_judged_by_the_fixed_tolerance() -> None:
    assert limits({row(): [0.8, 0.8]}, {row(): [0.81, 0.81]})[row()].amount == 0.02


def test_one_side_without_spread_is_judged_by_the_others_and_in_silence(run, recwarn) -> None:
    assert run({"g2r_cnn": [0.8, 0.8, 0.8]}, {"g2r_cnn": [0.70, 0.71, 0.69]})[0] == 1
    assert run({"g2r_cnn": [0.8, 0.8, 0.8]}, {"g2r_cnn": [0.70, 0.79, 0.89]})[0] == 0
    assert not recwarn.list


def test_a_tolerance_given_by_hand_is_the_least_move_that_counts(run) -> None:
    moved = ({"g2r_cnn": [0.800, 0.801, 0.802]}, {"g2r_cnn": [0.788, 0.790, 0.789]})
    assert run(*moved)[0] == 1
    code, out = run(*moved, "--tolerance", "g2r_cnn=0.02")
    assert code == 0 and "unclear" not in out
    # It does not narrow what the seeds allow.
    assert run({"is": [3, 4, 5]}, {"is": [2.5, 3.5, 4.5]}, "--tolerance", "is=0")[0] == 0


def test_the_last_digit_of_the_files_is_no_move() -> None:
    near = limits({row(): [0.5, 0.5, 0.5]}, {row(): [0.499999, 0.499999, 0.499998]})[row()]
    assert not near.exceeded(0.5, 0.4999987)


def _noise(generator: np.random.Generator, rows: int, of_seeds: int) -> dict[Row, list[float]]:
    return {row(method=f"m{i}"): list(generator.normal(0.7, 0.02, of_seeds)) for i in range(rows)}


def _moved(old: dict, new: dict) -> set[str]:
    found = limits(old, new)
    return {one.run.method for one in old if found[one].exceeded(np.mean(old[one]), np.mean(new[one]))}


def test_among_many_rows_chance_alone_is_reported_by_about_one_comparison_of_twenty() -> None:
    generator = np.random.default_rng(5)
    alarms = sum(bool(_moved(_noise(generator, 40, 3), _noise(generator, 40, 4))) for _ in range(10))
    # Each row at 5% by itself would raise a false alarm in nearly nine of ten.
    assert alarms <= 2


def test_many_rows_that_have_moved_are_found_among_others_and_others_are_not() -> None:
    generator = np.random.default_rng(6)
    old, new = _noise(generator, 60, 5), _noise(generator, 60, 5)
    for i in range(12):
        new[row(method=f"m{i}")] = [value - 0.15 for value in new[row(method=f"m{i}")]]
    found = _moved(old, new)
    assert len(found & {f"m{i}" for i in range(12)}) >= 11 and len(found) <= 14


def test_a_row_that_has_moved_by_itself_but_not_among_many_is_unclear_and_no_regression(run) -> None:
    generator = np.random.default_rng(7)
    old = {metric: list(generator.uniform(0.4, 0.6, 3)) for metric in ("precision", "recall", "g2r_mlp", "r2g_mlp")}
    code, out = run(old | {"g2r_cnn": [0.80, 0.82, 0.81]}, old | {"g2r_cnn": [0.775, 0.785, 0.78]})
    assert code == 0 and out.startswith("no regression; 5 scores compared, 0 new, 1 unclear\n")
    assert "unclear      mnist dpac eps 10 sound: g2r_cnn: 0.81 -> 0.78" in out


def test_a_tolerance_of_a_share_is_of_the_reference_mean() -> None:
    found = limits({row("is"): [4.0, 4.001]}, {row("is"): [3.0, 3.001]}, {"is": Tolerance(0.5, relative=True)})
    assert found[row("is")].amount == pytest.approx(2.00025)


def test_a_share_of_the_fixed_tolerance_is_of_the_reference_mean_too(run) -> None:
    # 0.19 and 0.2 lie on either side of 5% of what was; the first is above 5% of what is.
    assert run({"is": [3.9]}, {"is": [3.708, 3.708]})[0] == 0
    assert run({"is": [3.9]}, {"is": [3.7, 3.7]})[0] == 1


def test_a_share_of_infinity_does_not_allow_every_move(run) -> None:
    code, out = run({"eps_sound": [math.inf]}, {"eps_sound": [9.0]}, "--tolerance", "eps_sound=5%")
    assert code == 0 and "improvement  mnist dpac eps 10 sound: eps_sound: inf -> 9 (tolerance 5%)" in out
