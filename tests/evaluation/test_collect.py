"""Collecting runs: the path is the key, absent stays absent, and nothing doubtful gets in."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from evaluation.report.collect import main
from evaluation.scores import read_scores
from workflow.common.contracts import RunFolder


def make_run(root: Path, method: str, epsilon: float = 10.0, seed: int = 0, dataset: str = "mnist", **files) -> Path:
    folder = RunFolder(root, dataset, method, epsilon, seed).path
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def collect(tmp_path, capsys):
    def run(*folders: Path) -> tuple[int, str]:
        out = tmp_path / "scores.csv"
        code = main(["--preset", "quick", "--root", str(tmp_path), "--out", str(out), *map(str, folders)])
        return code, out.read_text() if code == 0 else capsys.readouterr().err

    return run


def test_a_run_gives_one_row_per_metric_and_nothing_else(tmp_path, collect):
    make_run(
        tmp_path,
        "dpac",
        seed=3,
        run={"run": "dpac", "accounting": "published", "epsilon": 10, "seed": 3, "eps_sound": "inf", "steps_done": 9},
        fidelity={"is": 4.123456789, "is_std": 0.1, "fid_inception": None, "num_samples": 100},
        utility={"g2r_cnn": 0.5},
    )
    assert collect() == (
        0,
        "preset,dataset,method,epsilon,accounting,seed,metric,value,source\n"
        "quick,mnist,dpac,10,published,3,is,4.12346,measured\n"
        "quick,mnist,dpac,10,published,3,g2r_cnn,0.5,measured\n"
        "quick,mnist,dpac,10,published,3,eps_sound,inf,measured\n",
    )


@pytest.mark.parametrize(("done", "share"), [(612, ["0.95625"]), (0, ["0"]), (640, []), (None, []), ("612", [])])
def test_a_run_that_ended_short_has_the_share_of_its_steps_and_no_other_has(tmp_path, collect, done, share):
    run = {"accounting": "sound", "steps_done": done, "steps_planned": 640}
    make_run(tmp_path, "dpac", run=run, utility={"g2r_cnn": 0.5})
    code, text = collect()
    assert code == 0
    lines = [line.split(",") for line in text.splitlines()]
    assert [line[7] for line in lines if line[6] == "steps_share"] == share


def test_real_data_has_no_run_json_and_no_accounting(tmp_path, collect):
    folder = make_run(tmp_path, "real", math.inf, utility={"g2r_mlp": 0.97})
    code, text = collect(folder)
    assert code == 0
    assert text.splitlines()[1:] == ["quick,mnist,real,inf,none,0,g2r_mlp,0.97,measured"]


def test_the_order_of_the_folders_does_not_matter(tmp_path, collect):
    folders = [make_run(tmp_path, "real", math.inf, seed, dataset, utility={"g2r_mlp": 0.9, "g2r_cnn": 0.8})
               for dataset in ("mnist", "digits") for seed in (1, 0)]  # fmt: skip
    assert collect(*folders) == collect(*reversed(folders)) == collect()
    assert [s.seed for s in read_scores(tmp_path / "scores.csv")] == [0, 0, 1, 1, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds none of run.json, fidelity.json, utility.json"),
        ({"utility": {"g2r_cnn": 0.5}}, "has no run.json"),
        ({"run": {"accounting": "published", "seed": 1}}, "says seed 1, but its folder says 0"),
        ({"run": {"accounting": "published", "epsilon": 1}}, "says epsilon 1, but its folder says 10.0"),
        ({"run": {"accounting": "guessed", "train_seconds": 1}}, "unknown accounting 'guessed'"),
        ({"run": {"accounting": "sound"}, "fidelity": {"is": float("nan")}}, "NaN is no number of JSON"),
        ({"run": {"accounting": "sound"}, "fidelity": {"is": "inf"}}, "is of dpac on mnist is inf"),
        ({"run": {"accounting": "sound"}, "fidelity": {"is": "good"}}, "is must be a number, got 'good'"),
    ],
)
def test_doubtful_runs_are_refused(tmp_path, collect, files, message):
    make_run(tmp_path, "dpac", **files)
    code, error = collect()
    assert code == 2
    assert message in error and error.count("\n") == 1


def test_a_truncated_result_is_named(tmp_path, collect):
    folder = make_run(tmp_path, "dpac", run={"accounting": "sound"})
    (folder / "fidelity.json").write_text('{"is": ')
    code, error = collect()
    assert code == 2
    assert "fidelity.json is not readable JSON" in error


@pytest.mark.parametrize("path", ["nowhere", "runs/mnist/dpac/seed0", "runs/mnist/dpac/eps0/seed0"])
def test_a_folder_of_another_shape_is_refused(tmp_path, collect, path):
    assert collect(tmp_path / path)[0] == 2


def test_no_runs_at_all_is_an_error(collect):
    code, error = collect()
    assert code == 2
    assert "no run folders under" in error
