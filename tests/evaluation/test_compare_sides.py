"""What `evaluation.compare` takes: files and folders, tolerances that swallow no file name, sides that lack rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.compare import main
from evaluation.rank import main as rank
from evaluation.scores import Score, write_scores


def written(path: Path, values: dict[str, float], method: str = "dpac", preset: str = "quick", seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_scores(
        path, [Score(preset, "mnist", method, 10.0, "sound", seed, m, v, "measured") for m, v in values.items()]
    )
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    def compare(*arguments: object) -> tuple[int, str]:
        code = main([str(argument) for argument in arguments])
        out = capsys.readouterr()
        return code, out.out + out.err

    return compare


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return written(tmp_path / "a.csv", {"g2r_cnn": 0.8}), written(tmp_path / "b.csv", {"g2r_cnn": 0.75})


def test_a_folder_stands_for_its_scores(tmp_path, run):
    written(tmp_path / "a/scores.csv", {"is": 5.0})
    written(tmp_path / "b/scores.csv", {"is": 4.0})
    assert run(tmp_path / "a", tmp_path / "b/scores.csv")[0] == 1
    assert run(tmp_path / "b/scores.csv", tmp_path / "a")[0] == 0


def test_folders_of_presets_are_matched_by_name_and_rows_say_which(tmp_path, run):
    for side, value in (("a", 5.0), ("b", 4.0)):
        written(tmp_path / side / "smoke/scores.csv", {"is": 3.0}, preset="smoke")
        written(tmp_path / side / "quick/scores.csv", {"is": value})
    code, out = run(tmp_path / "a", tmp_path / "b")
    assert code == 1 and out.startswith("1 regression; 2 scores compared, 0 new\n")
    assert "quick mnist dpac eps 10 sound seed 0: is: 5 -> 4" in out


def test_a_preset_that_only_the_reference_has_is_missing_and_one_that_only_the_new_side_has_is_new(tmp_path, run):
    for name in ("a/smoke", "b/smoke", "a/long"):
        written(tmp_path / name / "scores.csv", {"is": 3.0}, preset=Path(name).name)
    code, out = run(tmp_path / "a", tmp_path / "b")
    assert code == 1 and "missing      long mnist dpac eps 10 sound seed 0: the whole run (1 score)" in out
    code, out = run(tmp_path / "b", tmp_path / "a")
    assert code == 0 and out.startswith("no regression; 1 scores compared, 1 new\n")


def test_sides_that_cannot_be_matched_are_one_line(tmp_path, run):
    one = written(tmp_path / "one.csv", {"is": 3.0})
    for name in ("a/smoke", "a/quick", "b/long"):
        written(tmp_path / name / "scores.csv", {"is": 3.0})
    (tmp_path / "none").mkdir()
    for sides, says in (
        ((tmp_path / "a", one), f"{tmp_path / 'a'} holds several presets (quick, smoke), but {one} is one preset's"),
        ((one, tmp_path / "a"), f"name one of them, such as {tmp_path / 'a/quick'}"),
        ((tmp_path / "a", tmp_path / "b"), "no preset of"),
        ((tmp_path / "none", one), f"neither {tmp_path / 'none'} nor a folder in it holds a scores.csv"),
        ((one, tmp_path / "gone"), "no such file"),
    ):
        code, out = run(*sides)
        assert code == 2 and says in out and out.startswith("error: ") and out.count("\n") == 1


def test_a_side_without_scores_is_an_error_of_its_own(tmp_path, run):
    full, empty = written(tmp_path / "full.csv", {"is": 3.0}), written(tmp_path / "empty/scores.csv", {})
    for sides in ((full, empty), (empty, full), (full, empty.parent), (empty, empty)):
        code, out = run(*sides)
        assert code == 2 and out.startswith(f"error: {empty} holds no scores: ")
    for side in ("a", "b"):
        written(tmp_path / side / "smoke/scores.csv", {"is": 3.0})
        written(tmp_path / side / "quick/scores.csv", {"is": 3.0} if side == "a" else {})
    assert run(tmp_path / "a", tmp_path / "b") == (
        2, f"error: {tmp_path / 'b/quick/scores.csv'} holds no scores: there is nothing to compare; "
        "did what writes it finish?\n",
    )  # fmt: skip


def test_common_passes_over_what_only_one_side_has_and_says_how_much(tmp_path, run):
    a = written(tmp_path / "a.csv", {"is": 5.0, "recall": 0.4, "precision": 0.5, "train_seconds": 9})
    b = written(tmp_path / "b.csv", {"is": 5.0, "g2r_cnn": 0.4})
    assert run(a, b)[0] == 1
    code, out = run(a, b, "--common")
    assert code == 0 and out.startswith("no regression; 1 scores compared, 0 new\n")
    assert "3 scores that only A has and 1 that only B has are passed over" in out
    written(tmp_path / "b.csv", {"is": 4.0, "g2r_cnn": 0.4})
    assert run(a, b, "--common")[0] == 1


def test_common_of_sides_with_nothing_in_common_is_an_error_and_no_success(tmp_path, run):
    a, b = written(tmp_path / "a.csv", {"is": 5.0}, seed=0), written(tmp_path / "b.csv", {"is": 5.0}, seed=1)
    code, out = run(a, b, "--common")
    assert code == 2 and "no score is in both A and B" in out
    assert run(a, b, "--common", "--seeds", "mean")[0] == 0


@pytest.mark.parametrize("many", [["--tolerance", "g2r_cnn=0.1", "is=5%"], ["--tolerance=g2r_cnn=0.1"],
                                  ["--tolerance", "is=5%", "--tolerance", "g2r_cnn=0.1"]])  # fmt: skip
def test_tolerances_swallow_no_file_name_wherever_they_stand(pair, run, many):
    a, b = pair
    assert run(a, b)[0] == 1
    for arguments in ([*many, a, b], [a, *many, b], [a, b, *many]):
        assert run(*arguments)[0] == 0, arguments


def test_a_folder_with_an_equals_sign_is_no_tolerance(tmp_path, run, pair, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "lr=0.1/scores.csv", {"g2r_cnn": 0.75})
    assert run("--tolerance", "g2r_cnn=0.1", "lr=0.1/scores.csv", pair[1])[0] == 0
    assert run("--tolerance", "g2r_cnn=0.1", "./lr=0.1", pair[1])[0] == 0
    code, out = run("--tolerance", "g2r_cnn=0.1", "lr=0.1", pair[1])
    assert code == 2
    assert out == (
        "error: 'lr=0.1' after --tolerance may be a value or the file of that name; "
        "write --tolerance lr=0.1 or ./lr=0.1\n"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--tolerance", "is=5%", "acuracy=1"], "unknown metric in --tolerance 'acuracy'"),
        (["--tolerance", "is", "5%"], "--tolerance takes metric=value, such as g2r_cnn=0.03 or is=5%, got 'is'"),
        (["--tolerance"], "--tolerance: expected one argument"),
        (["--tolerance", "is=5%", "c.csv"], "unrecognized arguments: c.csv"),
        (["--seeds", "median"], "invalid choice: 'median'"),
        (["--format", "html"], "invalid choice: 'html'"),
    ],
)
def test_what_it_does_not_take_is_one_line(pair, run, arguments, says):
    code, out = run(*pair, *arguments)
    assert code == 2 and says in out and out.startswith("error: ") and out.count("\n") == 1


def test_the_metrics_of_a_ranking_swallow_no_file_name_either(tmp_path, capsys):
    path = str(written(tmp_path / "a.csv", {"g2r_cnn": 0.8, "is": 5.0, "eps_sound": 9.9}))
    assert rank([path, "--metric", "is", "g2r_cnn"]) == 0
    shown = capsys.readouterr().out
    for arguments in (["--metric", "is", "g2r_cnn", path], ["--metric", "is", "--metric", "g2r_cnn", path]):
        assert rank(arguments) == 0 and capsys.readouterr().out == shown


@pytest.mark.parametrize("options", [(), ("--exact",), ("--seeds", "mean", "--common")])
def test_runs_that_lie_on_both_sides_are_told_as_no_further_evidence(tmp_path, run, options):
    def both(name: str, *seconds: float) -> Path:
        rows = [
            Score("quick", "mnist", "dpac", 10.0, "sound", seed, metric, value + seed, "measured")
            for seed, took in enumerate(seconds) for metric, value in (("is", 5.0), ("train_seconds", took))
        ]  # fmt: skip
        write_scores(tmp_path / name, rows)
        return tmp_path / name

    old = both("a.csv", 20.5, 21.0)
    note = "1 of 2 runs that both have are equal in all digits, the time they took too: the same runs, which are no"
    assert note in run(old, both("b.csv", 20.5, 21.1), *options)[1]
    # Made again, they are evidence, even where each score is as before.
    assert "the same runs" not in run(old, both("c.csv", 20.6, 21.1), *options)[1]


def test_a_run_of_which_only_the_time_is_shared_is_not_told_as_the_same(tmp_path, run):
    old, new = ({"train_seconds": 20.5, metric: 0.5} for metric in ("is", "recall"))
    assert "the same runs" not in run(written(tmp_path / "a.csv", old), written(tmp_path / "b.csv", new))[1]
