"""A row of scores that cannot be is refused by every command that reads scores, in a line that says where it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.compare import main as compare
from evaluation.price import main as price
from evaluation.rank import main as rank
from evaluation.report.collect import main as collect
from evaluation.report.score_plots import main as plots
from evaluation.report.scores_tables import main as tables
from evaluation.report.verdicts import main as verdicts
from evaluation.scores import COLUMNS, read_scores

GOOD = {
    "preset": "quick", "dataset": "faces", "method": "dpac", "epsilon": "10", "accounting": "sound", "seed": "3",
    "metric": "g2r_cnn", "value": "0.5", "source": "measured",
}  # fmt: skip
BAD = (
    ({"value": "1.7"}, "g2r_cnn of dpac on faces is 1.7; it must lie between 0 and 1"),
    ({"value": "-0.1"}, "it must lie between 0 and 1"),
    ({"metric": "fid_classifier", "value": "-3"}, "fid_classifier of dpac on faces is -3.0; it must lie between 0"),
    ({"metric": "fid_inception", "value": "1e308"}, "it must lie between 0 and 1e+09"),
    ({"metric": "eps_sound", "value": "nan"}, "value must be a number, got 'nan'"),
    ({"metric": "train_seconds", "value": "-1"}, "train_seconds of dpac"),
    ({"value": "1_0"}, "value must be a number, got '1_0'"),
    ({"epsilon": "nan"}, "epsilon must be a number above 0"),
    ({"epsilon": "1e999"}, "epsilon must be a number above 0"),
    ({"seed": "-1"}, "seed must be empty or a whole number, got '-1'"),
    ({"seed": "1.5"}, "seed must be empty or a whole number, got '1.5'"),
    ({"seed": "9" * 30}, "seed must be empty or a whole number"),
    ({"seed": "00"}, "seed 00 must be written 0"),
    ({"seed": "012"}, "seed 012 must be written 12"),
    ({"epsilon": "10.0"}, "epsilon 10.0 must be written 10"),
    ({"epsilon": "1e1"}, "epsilon 1e1 must be written 10"),
    ({"epsilon": "Inf"}, "epsilon Inf must be written inf"),
    ({"epsilon": " 2.50"}, "must be written 2.5"),
    ({"metric": "accuracy"}, "unknown metric 'accuracy'"),
    ({"dataset": ""}, "dataset must be a printable name"),
    ({"method": "a\x1b[31m"}, "method must be a printable name"),
    ({"accounting": "claimed", "metric": "eps_sound", "value": "9"}, "no count of the suite has seen such a run"),
    ({"accounting": "claimed", "metric": "eps_published", "value": "9"}, "and its accounting is claimed"),
    # As where the files of two runs were put together by hand.
    ({"value": "0.7"}, "two values for g2r_cnn of dpac on faces at epsilon 10 (sound), seed 3: 0.5 and 0.7; remove"),
)


def written(path: Path, *rows: dict[str, str]) -> str:
    path.write_text("\n".join([",".join(COLUMNS), *(",".join(row[name] for name in COLUMNS) for row in rows)]) + "\n")
    return str(path)


@pytest.mark.parametrize(("changed", "says"), BAD)
def test_every_reader_of_scores_refuses_it_alike(tmp_path, capsys, changed, says) -> None:
    good, bad = written(tmp_path / "good.csv", GOOD), written(tmp_path / "bad.csv", GOOD, GOOD | changed)
    (tmp_path / "layout.yaml").write_text("tables: {}")
    made = ["--layout", str(tmp_path / "layout.yaml"), "--out", str(tmp_path / "out")]
    for main, arguments in (
        (compare, [good, bad]),
        (rank, [bad]),
        (price, [bad]),
        (tables, ["--scores", good, "--published", bad, *made]),
        (verdicts, ["--scores", bad, "--published", good, *made]),
        (plots, ["--scores", bad, *made]),
    ):
        assert main(arguments) == 2
        shown = capsys.readouterr().err
        assert shown.startswith(f"error: {bad} line 3: ") and says in shown and shown.count("\n") == 1


def test_values_at_the_ends_of_their_ranges_are_taken(tmp_path) -> None:
    ends = {"g2r_cnn": "0", "precision": "1", "is": "1", "fid_classifier": "-1e-5", "eps_sound": "inf"}
    rows = [GOOD | {"metric": metric, "value": value} for metric, value in ends.items()]
    assert [score.metric for score in read_scores(written(tmp_path / "a.csv", *rows))] == list(ends)


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("utility.json", {"g2r_cnn": 1.7}, "g2r_cnn of dpac on faces is 1.7; it must lie between 0 and 1"),
        ("utility.json", {"g2r_cnn": True}, "g2r_cnn must be a number, got True"),
        ("fidelity.json", {"fid_classifier": "nan"}, "fid_classifier must be a number, got 'nan'"),
        ("fidelity.json", [1], "must be a mapping of names to values"),
        ("run.json", {"accounting": "sound", "seed": True}, "says seed True, but its folder says 1"),
        ("run.json", {"accounting": ["sound"]}, "unknown accounting"),
    ],
)
def test_what_a_run_cannot_have_scored_is_not_collected(tmp_path, capsys, file, content, says) -> None:
    folder = tmp_path / "runs/faces/dpac/eps10/seed1"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"accounting": "sound", "eps_sound": 9.0}))
    (folder / file).write_text(json.dumps(content))
    if file == "run.json":
        (folder / "utility.json").write_text(json.dumps({"g2r_cnn": 0.5}))
    assert collect(["--preset", "p", "--root", str(tmp_path), "--out", str(tmp_path / "s.csv")]) == 2
    shown = capsys.readouterr().err.splitlines()[-1]
    assert says in shown and str(folder) in shown and not (tmp_path / "s.csv").exists()
