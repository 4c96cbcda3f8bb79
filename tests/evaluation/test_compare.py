"""What CI relies on: direction, tolerance, missing rows and exit codes of `python -m evaluation.compare`."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from evaluation.compare import main
from evaluation.comparison.tolerance import DEFAULT_TOLERANCES
from evaluation.scores import Score, write_scores
from workflow.common.metrics import METRICS


def write(path: Path, values: dict[str, float], preset: str = "quick", seed: int = 0, method: str = "dpac") -> str:
    rows = [Score(preset, "mnist", method, 10.0, "published", seed, m, v, "measured") for m, v in values.items()]
    write_scores(path, rows)
    return str(path)


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def compare(old: dict[str, float], new: dict[str, float], *options: str) -> tuple[int, str]:
        code = main([write(tmp_path / "a.csv", old), write(tmp_path / "b.csv", new), *options])
        out = capsys.readouterr()
        return code, out.out + out.err

    return compare


def test_equal_files_are_no_regression(run):
    code, out = run({"is": 5.0, "eps_sound": math.inf}, {"is": 5.0, "eps_sound": math.inf})
    assert code == 0
    assert "no regression; 2 scores compared" in out


@pytest.mark.parametrize("metric", [m.name for m in METRICS.values() if m.regresses])
def test_worse_is_a_regression_and_better_is_not(run, metric):
    low, high = 0.4, 0.8
    worse, better = (high, low) if METRICS[metric].higher_is_better else (low, high)
    code, out = run({metric: worse}, {metric: better})
    assert code == 1
    assert out.startswith("1 regression; ") and f"\nregression   mnist dpac eps 10 published seed 0: {metric}: " in out
    code, out = run({metric: better}, {metric: worse})
    assert code == 0
    assert out.startswith("no regression; ") and f"\nimprovement  mnist dpac eps 10 published seed 0: {metric}" in out


def test_fid_and_spent_epsilon_are_the_ones_that_must_not_rise():
    falling = {metric.name for metric in METRICS.values() if not metric.higher_is_better}
    assert falling == {"fid_inception", "fid_classifier", "fwd", "eps_published", "eps_sound", "train_seconds"}


def test_epsilon_that_becomes_infinite_is_a_regression(run):
    assert run({"eps_sound": 9.9}, {"eps_sound": math.inf})[0] == 1
    assert run({"eps_sound": math.inf}, {"eps_sound": 9.9})[0] == 0


def test_training_time_is_shown_but_never_a_regression(run):
    code, out = run({"train_seconds": 10, "is": 2.0}, {"train_seconds": 1000, "is": 2.0})
    assert code == 0
    assert "moved" in out and "10 -> 1000" in out
    assert run({"train_seconds": 10, "is": 2.0}, {"is": 2.0})[0] == 0


def test_a_move_within_tolerance_is_silent_and_the_bound_is_included(run):
    assert run({"g2r_cnn": 0.80}, {"g2r_cnn": 0.78}) == (0, "no regression; 1 scores compared, 0 new\n")
    assert run({"g2r_cnn": 0.80}, {"g2r_cnn": 0.7799})[0] == 1


def test_tolerances_can_be_set_absolutely_and_as_a_percentage(run):
    move = ({"g2r_cnn": 0.80, "is": 5.0}, {"g2r_cnn": 0.70, "is": 4.0})
    assert run(*move)[0] == 1
    assert run(*move, "--tolerance", "g2r_cnn=0.1", "is=20%")[0] == 0
    assert run(*move, "--tolerance", "g2r_cnn=0.1", "--tolerance", "is=19%")[0] == 1


def test_a_missing_metric_is_a_regression_and_a_new_one_is_not(run):
    code, out = run({"is": 5.0, "recall": 0.4}, {"is": 5.0})
    assert code == 1
    assert "missing" in out and "recall: 0.4 -> absent" in out
    code, out = run({"is": 5.0}, {"is": 5.0, "recall": 0.4})
    assert code == 0
    assert "new" in out and "absent -> 0.4" in out


def test_a_file_of_before_a_metric_is_compared_in_the_others_and_the_new_one_is_said(tmp_path, capsys):
    old = HEADER + "quick,mnist,dpac,10,published,0,is,5,measured\n"
    (tmp_path / "old.csv").write_text(old)
    (tmp_path / "new.csv").write_text(old + "quick,mnist,dpac,10,published,0,fwd,0.8,measured\n")
    assert main([str(tmp_path / "old.csv"), str(tmp_path / "new.csv")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("no regression; 1 scores compared, 1 new\nnew ") and "fwd: absent -> 0.8" in out


def test_a_missing_seed_is_a_regression(tmp_path):
    a, b = write(tmp_path / "a.csv", {"is": 5.0}, seed=0), write(tmp_path / "b.csv", {"is": 5.0}, seed=1)
    assert main([a, b]) == 1


def test_two_presets_are_compared_with_a_note(tmp_path, capsys):
    a, b = write(tmp_path / "a.csv", {"is": 5.0}, "quick"), write(tmp_path / "b.csv", {"is": 1.0}, "long")
    assert main([a, b]) == 1
    assert "preset quick is compared with preset long" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tolerance", "acuracy=1"], "unknown metric in --tolerance 'acuracy'; valid: "),
        (["--tolerance", "is"], "metric=value"),
        (["--tolerance", "is=-1"], "at least 0"),
        (["--tolerance", "is=nan"], "at least 0"),
        (["--tolerance", "is=much"], "at least 0"),
        (["--tolerance", "is=1", "is=2%"], "--tolerance gives is twice, the second time as 'is=2%'"),
    ],
)
def test_a_bad_tolerance_is_bad_input(run, options, message):
    code, out = run({"is": 5.0}, {"is": 5.0}, *options)
    assert code == 2
    assert out.startswith("error: ") and message in out


HEADER = "preset,dataset,method,epsilon,accounting,seed,metric,value,source\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("", "the first line must be"),
        ("dataset,metric\n", "the first line must be"),
        (HEADER, "holds no scores"),
        (HEADER + "quick,mnist,dpac,10,published,0,is\n", "line 2: 7 cells instead of 9"),
        (HEADER + "quick,mnist,dpac,10,published,0,is,nan,measured\n", "line 2: value must be a number, got 'nan'"),
        (HEADER + "quick,mnist,dpac,10,published,0,is,high,measured\n", "line 2: value must be a number"),
        (HEADER + "quick,mnist,dpac,0,published,0,is,1,measured\n", "line 2: epsilon must be a number above 0"),
        (HEADER + "quick,mnist,dpac,10,published,x,is,1,measured\n", "line 2: seed must be"),
        (HEADER + "quick,mnist,dpac,10,published,0,iss,1,measured\n", "line 2: unknown metric 'iss'"),
        (HEADER + 2 * "quick,mnist,dpac,10,published,0,is,1,measured\n", "two values for"),
    ],
)
def test_bad_files_are_one_clear_line_and_exit_code_2(tmp_path, capsys, text, message):
    good = write(tmp_path / "good.csv", {"is": 5.0})
    bad = tmp_path / "bad.csv"
    if text is not None:
        bad.write_text(text)
    assert main([str(bad), good]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_help_documents_every_default_tolerance(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0
    assert all(f"{metric}={tolerance}" in text for metric, tolerance in DEFAULT_TOLERANCES.items())
    assert "is=5%," in text
