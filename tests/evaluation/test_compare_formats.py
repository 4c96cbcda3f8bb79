"""What a comparison says, in each format: counts first, the worst by run, the rest summed up, at most 20 lines."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest

from evaluation.compare import main
from evaluation.scores import Score, read_scores, write_scores

ROOT = Path(__file__).resolve().parents[2]
QUICK = ROOT / "results/reference/quick/scores.csv"
TWO = {("mnist", "dpac", "g2r_cnn"), ("fashion_mnist", "dp_merf", "is")}
ROWS = read_scores(QUICK)
RUNS = {(score.dataset, score.method) for score in ROWS}


@pytest.fixture(autouse=True)
def no_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    def compare(*arguments: object) -> tuple[int, str]:
        code = main([str(argument) for argument in arguments])
        return code, capsys.readouterr().out

    return compare


@pytest.fixture
def one_seed_more_and_two_rows_fewer(tmp_path: Path) -> Path:
    kept = [score for score in ROWS if (score.dataset, score.method, score.metric) not in TWO]
    write_scores(tmp_path / "b.csv", kept + [dataclasses.replace(score, seed=1) for score in ROWS])
    return tmp_path / "b.csv"


def told(out: str) -> list[str]:
    """Returns the lines of a comparison but for the one that tells of copies: these tests make no run anew."""
    head, note, *lines = out.splitlines()
    assert "the same runs" in note
    return [head, *lines]


def shifted(path: Path, by: dict[str, float], method: str = "") -> Path:
    """Writes quick's scores with metrics of one method, or of all, multiplied."""
    rows = {score.order: score for score in ROWS}
    for key, score in rows.items():
        if score.method.startswith(method) and score.metric in by:
            rows[key] = dataclasses.replace(score, value=score.value * by[score.metric])
    write_scores(path, rows.values())
    return path


@pytest.mark.parametrize("form", ["text", "md", "github"])
def test_a_reviewer_learns_of_one_seed_more_and_two_rows_fewer(run, one_seed_more_and_two_rows_fewer, form) -> None:
    code, out = run(QUICK.parent, one_seed_more_and_two_rows_fewer, "--format", form)
    assert code == 1 and len(out.splitlines()) <= 20
    counts = next(line for line in out.splitlines() if "scores compared" in line)
    assert f"2 regressions (2 missing); {len(ROWS) - 2} scores compared, {len(ROWS)} new" in counts
    assert out.index(counts) < 30
    for dataset, method, metric in TWO:
        assert re.search(rf"{dataset} {method} eps 10 \w+ seed 0.*{metric}: [\d.]+ -> absent", out)
    assert f"{len(RUNS)} runs with a further seed (seed 1) of fashion_mnist (datalens eps 10 " in out


def test_json_says_all_of_it(run, one_seed_more_and_two_rows_fewer) -> None:
    code, out = run(QUICK, one_seed_more_and_two_rows_fewer, "--format", "json")
    found = json.loads(out)
    assert code == 1 and out.count("\n") == 1
    assert (found["a"], found["b"]) == (str(QUICK), str(one_seed_more_and_two_rows_fewer))
    assert (found["regressions"], found["compared"], found["counts"]["new"]) == (2, len(ROWS) - 2, len(ROWS))
    missing = [change for change in found["changes"] if change["kind"] == "missing"]
    assert {(change["dataset"], change["method"], change["metric"]) for change in missing} == TWO
    assert len(found["changes"]) == len(ROWS) + 2 and {change["seed"] for change in found["changes"]} == {0, 1}
    assert [change for change in found["changes"] if change["kind"] == "new" and change["old"] is not None] == []


def test_json_holds_infinite_numbers_as_text(run, tmp_path) -> None:
    for name, value in (("a", 9.5), ("b", math.inf)):
        rows = [Score("p", "mnist", "dpac", math.inf, "none", 0, "eps_sound", value, "measured")]
        write_scores(tmp_path / f"{name}.csv", rows)
    change = json.loads(run(tmp_path / "a.csv", tmp_path / "b.csv", "--format", "json")[1])["changes"][0]
    assert (change["epsilon"], change["old"], change["new"], change["kind"]) == ("inf", 9.5, "inf", "regression")
    assert (change["tolerance"], change["tolerance_from"]) == (0.001, "0.001")


@pytest.mark.parametrize("form", ["text", "md", "github"])
@pytest.mark.parametrize("options", [[], ["--seeds", "mean"], ["--common"]])
def test_no_comparison_takes_more_than_twenty_lines(run, tmp_path, form, options) -> None:
    # Real data's too, so that "is" and "fid_classifier" are by another network and "fwd" alone has improved.
    moves = {"g2r_cnn": 0.5, "is": 0.9, "fid_classifier": 0.5, "fwd": 0.5, "train_seconds": 2}
    rows = read_scores(worse := shifted(tmp_path / "c.csv", moves))
    kept = [score for score in rows if score.metric != "recall" and score.method != "dp_cgan"]
    kept = [score for score in kept if score.metric != "train_seconds" or score.method > "dp_"]
    write_scores(worse, kept + [dataclasses.replace(score, seed=4, preset="quick") for score in rows])
    code, out = run(QUICK, worse, "--format", form, *options)
    assert code == 1 and len(out.splitlines()) <= 20
    if not options:
        assert all(kind in out for kind in ("regression", "missing", "improvement", "moved", "no longer", "new"))


def test_the_worst_run_comes_first_and_in_it_the_score_farthest_beyond_its_tolerance(run, tmp_path) -> None:
    lines = told(run(QUICK, shifted(tmp_path / "b.csv", {"g2r_cnn": 0.9, "g2r_mlp": 0.5}, "dp_merf"))[1])
    assert lines[0].startswith("4 regressions; ")
    # 0.7863 on MNIST loses more than 0.7283 on Fashion-MNIST.
    assert re.match("regression   mnist dp_merf eps 10 sound seed 0: g2r_mlp: .*; g2r_cnn: ", lines[1])
    assert re.match("regression   fashion_mnist dp_merf eps 10 sound seed 0: g2r_mlp: .*; g2r_cnn: ", lines[2])
    assert len(lines) == 3


def test_a_run_that_is_gone_is_one_line_and_many_are_one_line(run, tmp_path) -> None:
    write_scores(tmp_path / "b.csv", [s for s in ROWS if (s.dataset, s.method) != ("mnist", "dpgan")])
    out = told(run(QUICK, tmp_path / "b.csv")[1])
    count = sum((score.dataset, score.method) == ("mnist", "dpgan") for score in ROWS)
    parts = f"{count} scores: {count - 1} missing, 1 no longer there"
    assert out[1:] == [f"missing      mnist dpgan eps 10 sound seed 0: the whole run ({parts})"]
    write_scores(tmp_path / "b.csv", [s for s in ROWS if s.dataset != "mnist"])
    out = told(run(QUICK, tmp_path / "b.csv")[1])
    gone = sum(dataset == "mnist" for dataset, _ in RUNS)
    assert len(out) == 2 and f"missing      {gone} whole runs (seed 0) of mnist (datalens eps 10 " in out[1]


@pytest.mark.parametrize("form", ["text", "md", "github"])
def test_counts_of_runs_that_are_gone_add_up_and_their_epsilon_and_accounting_are_named(run, tmp_path, form) -> None:
    metrics = ("g2r_cnn", "eps_sound", "train_seconds")
    rows = [
        Score("p", "mnist", method, epsilon, accounting, 0, metric, 0.5, "measured")
        for method, epsilon, accounting in (("a", 1.0, "sound"), ("a", 10.0, "sound"), ("b", 10.0, "published"))
        for metric in metrics
    ]
    write_scores(tmp_path / "a.csv", rows)
    write_scores(tmp_path / "b.csv", rows[:3])
    code, out = run(tmp_path / "a.csv", tmp_path / "b.csv", "--format", form)
    counts = "4 regressions (4 missing); 3 scores compared, 0 new, 2 no longer there (train_seconds: no regression)"
    assert code == 1 and counts in out
    told = "2 whole runs (seed 0) of mnist (a eps 10 sound, b eps 10 published)"
    assert told in out and "6 scores: 4 missing, 2 no longer there" in out
    # Shared by all, it is said once.
    write_scores(tmp_path / "a.csv", [dataclasses.replace(row, epsilon=2.0, accounting="sound") for row in rows[3:]])
    write_scores(tmp_path / "b.csv", [dataclasses.replace(row, method="c") for row in rows[:3]])
    out = run(tmp_path / "a.csv", tmp_path / "b.csv", "--format", form)[1]
    assert "2 whole runs (seed 0, eps 2 sound) of mnist (a, b)" in out


def test_the_markdown_is_a_table_and_names_that_hold_its_signs_stay_names(run, tmp_path) -> None:
    for name, value in (("a", 0.9), ("b", 0.5)):
        rows = [Score("p", "x|y", "<b>`*m*", 1.0, "sound", 0, "g2r_cnn", value, "measured")]
        write_scores(tmp_path / f"{name}.csv", rows)
    lines = run(tmp_path / "a.csv", tmp_path / "b.csv", "--format", "md")[1].splitlines()
    assert lines[0] == "### 1 regression; 1 scores compared, 0 new"
    assert lines[4] == r"| regression | x\|y \<b>\`\*m\* eps 1 sound seed 0 | g2r_cnn: 0.9 -> 0.5 (tolerance 0.02) |"
    assert lines[-1] == f"A: `{tmp_path / 'a.csv'}`, B: `{tmp_path / 'b.csv'}`."


def test_github_gets_annotations_and_the_summary_goes_into_its_file(run, tmp_path, monkeypatch) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("of another step\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    worse = shifted(tmp_path / "c.csv", {"g2r_cnn": 0.5, "is": 0.5})
    code, out = run(QUICK, worse, "--format", "github")
    assert code == 1
    lines = out.splitlines()
    assert lines[0].startswith("::error title=compare::") and "regressions; " in lines[0]
    # A percent sign begins an escape in a workflow command.
    assert f"; {len(ROWS)} scores compared" in lines[0]
    assert len(lines) == 3 and all(line.startswith("::error title=") for line in lines) and "(tolerance 5%25)" in out
    written = summary.read_text()
    assert written.startswith("of another step\n### ") and "(tolerance 5%)" in written
    assert len(written.splitlines()) <= 21
    code, out = run(QUICK, QUICK, "--format", "github")
    assert (code, out) == (0, f"::notice title=compare::no regression; {len(ROWS)} scores compared, 0 new\n")


def test_a_summary_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    assert main([str(QUICK), str(QUICK), "--format", "github"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: ")
