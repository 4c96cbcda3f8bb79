"""Merging: parts of a grid that machines made apart become one set of scores, if they belong together."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from evaluation import merge
from evaluation.scores import Score, read_scores, write_scores
from workflow.common.files import read_object, sha256

RECORD: dict[str, Any] = {
    "commit": "abc", "modified": False, "packages": {"torch": "2"}, "python": "3.11", "processor": "one", "cores": 2,
    "time": "2026-01-01", "runs": 1, "job_seconds": {"train": 10.0}, "train_seconds": 9.0, "runs_by_commit": {"abc": 1},
    "data": {"mnist": {"splits": {"train": "1234"}}}, "scores_sha256": "", "equal_on": [],
    "settings": {"preset": "quick", "delta": 1e-5, "datasets": ["mnist"], "protocol": {"num_samples": 100},
                 "runs": {"dp_gauss": {"method": "dp_gauss", "accounting": "sound", "epsilons": ["10"], "seeds": [0],
                                       "hyper": {"mnist": {"cutoff": 9}}}}},
}  # fmt: skip


def score(seed: int = 0, run: str = "dp_gauss", value: float = 0.9, epsilon: float = 10.0) -> Score:
    return Score("quick", "mnist", run, epsilon, "sound", seed, "g2r_cnn", value, "measured")


@pytest.fixture
def part(tmp_path: Path):
    """Makes a folder of scores, with a record that is RECORD but for what `change` does to it."""

    def made(name: str, *scores: Score, change=lambda record: None) -> str:
        record = copy.deepcopy(RECORD)
        change(record)
        write_scores(tmp_path / name / "scores.csv", scores)
        (tmp_path / name / "provenance.json").write_text(json.dumps(record))
        return str(tmp_path / name)

    return made


def of_seed(seed: int):
    def change(record: dict[str, Any]) -> None:
        record["settings"]["runs"]["dp_gauss"]["seeds"] = [seed]
        record["processor"] = f"machine {seed}"

    return change


def test_two_machines_seeds_are_one_set_that_names_both(tmp_path, part):
    folders = [part("b", score(1, value=0.8), change=of_seed(1)), part("a", score(0), change=of_seed(0))]
    assert merge.main([*folders, "--out", str(tmp_path / "all")]) == 0
    assert [(one.seed, one.value) for one in read_scores(tmp_path / "all/scores.csv")] == [(0, 0.9), (1, 0.8)]
    record = read_object(tmp_path / "all/provenance.json")
    assert record["settings"]["runs"]["dp_gauss"] == {**RECORD["settings"]["runs"]["dp_gauss"], "seeds": [0, 1]}
    assert (record["commit"], record["processor"]) == ("abc", "machine 0 and machine 1")
    assert (record["runs"], record["train_seconds"], record["job_seconds"]) == (2, 18.0, {"train": 20.0})
    assert record["runs_by_commit"] == {"abc": 2} and [one["processor"] for one in record["parts"]] == [
        "machine 1", "machine 0"
    ]  # fmt: skip
    assert record["scores_sha256"] == sha256(tmp_path / "all/scores.csv") and "equal_on" not in record


def test_parts_may_differ_in_rows_budgets_and_data_sets(tmp_path, part):
    def other(record: dict[str, Any]) -> None:
        record["data"] = {"fashion_mnist": {"splits": {"train": "5678"}}}
        settings = record["settings"]
        settings["datasets"] = ["fashion_mnist"]
        settings["runs"]["dp_gauss"] |= {"epsilons": ["1"], "hyper": {"fashion_mnist": {}}}
        settings["runs"]["dp_merf"] = {"method": "dp_merf", "epsilons": ["1"], "seeds": [0], "hyper": {}}

    folders = [part("a", score()), part("b", score(epsilon=1.0), score(run="dp_merf"), change=other)]
    assert merge.main([*folders, "--out", str(tmp_path / "all")]) == 0
    record = read_object(tmp_path / "all/provenance.json")
    assert (list(record["settings"]["runs"]), record["settings"]["datasets"]) == (
        ["dp_gauss", "dp_merf"], ["mnist", "fashion_mnist"]
    )  # fmt: skip
    gauss = record["settings"]["runs"]["dp_gauss"]
    assert (gauss["epsilons"], gauss["hyper"]) == (["10", "1"], {"mnist": {"cutoff": 9}, "fashion_mnist": {}})
    assert record["data"].keys() == {"mnist", "fashion_mnist"}


def test_real_images_were_measured_by_each_and_count_as_the_first_measured_them(tmp_path, part):
    folders = [part(name, score(), score(run="real", value=value)) for name, value in (("a", 0.97), ("b", 0.96))]
    assert merge.main([*folders, "--out", str(tmp_path / "all")]) == 0
    assert [one.value for one in read_scores(tmp_path / "all/scores.csv") if one.method == "real"] == [0.97]


def set_to(value: Any, *keys: str):
    def change(record: dict[str, Any]) -> None:
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_to("def", "commit"), "differ in commit of provenance.json: 'abc' and 'def'"),
        (set_to(True, "modified"), "differ in modified"),
        (set_to({"torch": "3"}, "packages"), "differ in packages"),
        (set_to({"num_samples": 50}, "settings", "protocol"), "differ in settings.protocol"),
        (set_to("long", "settings", "preset"), "differ in settings.preset"),
        (set_to({"mnist": {"cutoff": 8}}, "settings", "runs", "dp_gauss", "hyper"), "run dp_gauss has other settings"),
        (set_to("published", "settings", "runs", "dp_gauss", "accounting"), "run dp_gauss has other settings"),
        (set_to({"splits": {"train": "9"}}, "data", "mnist"), "has another data mnist"),
        (set_to([], "settings", "runs"), "does not say which runs"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(tmp_path, part, change, message, capsys):
    folders = [part("a", score()), part("b", score(1), change=change)]
    assert merge.main([*folders, "--out", str(tmp_path / "all")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and said.count("\n") == 1
    assert not (tmp_path / "all").exists()


def test_a_run_that_two_machines_made_is_refused_where_its_scores_differ(tmp_path, part, capsys):
    out = str(tmp_path / "all")
    assert merge.main([part("a", score()), part("b", score(value=0.8)), "--out", out]) == 2
    assert "both have g2r_cnn of dp_gauss on mnist, seed 0, as 0.9 and 0.8" in capsys.readouterr().err
    assert merge.main([part("a", score()), part("b", score()), "--out", out]) == 0


def test_folders_are_several_and_none_is_the_one_to_write(tmp_path, part, capsys):
    one, other = part("a", score()), part("b", score(1))
    for wrong in ([one, "--out", other], [one, one, "--out", other], [one, other, "--out", other]):
        assert merge.main(wrong) == 2
    assert merge.main([one, str(tmp_path / "none"), "--out", str(tmp_path / "all")]) == 2
    assert "provenance.json" in capsys.readouterr().err
