"""Merging: parts of a grid that machines made apart become one set of scores, if they belong together."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from evaluation import merge
from evaluation.scores import Score, read_scores, write_scores
from methods.core import registry
from workflow.common.files import read_object, sha256
from workflow.datasets.sources import NAMES
from workflow.presets import load as load_preset

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
        write_scores(tmp_path / name / "scores.csv", scores)
        record["scores_sha256"] = sha256(tmp_path / name / "scores.csv")
        change(record)
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


def test_warm_starts_are_counted_by_the_code_that_made_them_where_a_part_has_any(tmp_path, part):
    def begun(seed: int, commit: str, count: int):
        return lambda record: (of_seed(seed)(record), record.update(warm_starts_by_commit={commit: count}))

    folders = [part("a", score(0), change=begun(0, "abc", 2)), part("b", score(1), change=begun(1, "old", 1))]
    folders.append(part("c", score(2), change=of_seed(2)))
    assert merge.main([*folders, "--out", str(tmp_path / "all")]) == 0
    assert read_object(tmp_path / "all/provenance.json")["warm_starts_by_commit"] == {"abc": 2, "old": 1}
    assert merge.main([folders[2], part("d", score(3), change=of_seed(3)), "--out", str(tmp_path / "none")]) == 0
    assert "warm_starts_by_commit" not in read_object(tmp_path / "none/provenance.json")


def test_how_long_each_parts_call_took_is_told_of_the_part_alone(tmp_path, part):
    def took(seed: int):
        return lambda record: (of_seed(seed)(record), record.update(call={"wall_seconds": 60.0 * seed}))

    folders = [part("a", score(1), change=took(1)), part("b", score(2), change=took(2))]
    assert merge.main([*folders, "--out", str(tmp_path / "all")]) == 0
    record = read_object(tmp_path / "all/provenance.json")
    assert "call" not in record and [one["call"]["wall_seconds"] for one in record["parts"]] == [60.0, 120.0]


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


def test_networks_that_score_real_images_otherwise_are_named(tmp_path, part, capsys):
    def of_real(fid: float, accuracy: float) -> list[Score]:
        values = {"fid_classifier": fid, "r2g_cnn": 0.99, "g2r_cnn": accuracy}
        where = ("quick", "mnist", "real", math.inf, "none", 0)
        return [Score(*where, name, one, "measured") for name, one in values.items()]

    same = [part("a", score(), *of_real(0.19, 0.97)), part("b", *of_real(0.19, 0.96))]
    assert merge.main([*same, "--out", str(tmp_path / "same")]) == 0
    assert "not the same" not in capsys.readouterr().err
    assert "networks_apart" not in read_object(tmp_path / "same/provenance.json")
    other = [same[0], part("c", *of_real(0.186, 0.97))]
    assert merge.main([*other, "--out", str(tmp_path / "other")]) == 0
    told = "notice: not the same in all parts, as the scores of real images say: feature network of mnist; what"
    assert told in capsys.readouterr().err
    # Of a merged part one part's scores of real images are left.
    again = [str(tmp_path / "other"), same[1]]
    assert merge.main([*again, "--out", str(tmp_path / "again")]) == 0 and told in capsys.readouterr().err
    for name in ("other", "again"):
        assert read_object(tmp_path / name / "provenance.json")["networks_apart"] == {"mnist": ["feature network"]}


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
        (set_to("3.12", "python"), "differ in python"),
        (set_to(1e-6, "settings", "delta"), "differ in settings.delta"),
        (set_to("mine", "settings", "extends"), "differ in settings.extends"),
        (set_to(True, "settings", "paper_settings"), "differ in settings.paper_settings"),
        (set_to(True, "settings", "reproducible"), "differ in settings.reproducible"),
        (set_to("def", "commit"), "differ in commit of provenance.json: 'abc' and 'def'"),
        (set_to(True, "modified"), "differ in modified"),
        (set_to({"torch": "3"}, "packages"), "differ in packages"),
        (set_to({"num_samples": 50}, "settings", "protocol"), "differ in settings.protocol"),
        (set_to("long", "settings", "preset"), "differ in settings.preset"),
        (set_to({"mnist": {"cutoff": 8}}, "settings", "runs", "dp_gauss", "hyper"), "run dp_gauss has other settings"),
        (set_to("published", "settings", "runs", "dp_gauss", "accounting"), "run dp_gauss has other settings"),
        (set_to({"splits": {"train": "9"}}, "data", "mnist"), "has another data mnist"),
        (set_to([], "settings", "runs"), "does not say which runs"),
        (set_to({}, "settings", "runs"), "settings.runs: {} should be non-empty"),
        (set_to({"X": "Y"}, "pinned"), "differ in pinned"),
        (set_to([], "data"), "data: [] is not of type 'object'"),
        (set_to({"train": "x"}, "job_seconds"), "job_seconds.train: 'x' is not of type 'number'"),
        (set_to(None, "train_seconds"), "train_seconds: None is not of type 'number'"),
        (set_to(None, "time"), "time: None is not of type 'string'"),
        (set_to(None, "settings", "datasets"), "settings.datasets: None is not of type 'array'"),
        (set_to([[1]], "settings", "runs", "dp_gauss", "epsilons"), "dp_gauss.epsilons.0: [1] is not of type 'string'"),
        (set_to([None], "settings", "runs", "dp_gauss", "seeds"), "dp_gauss.seeds.0: None is not of type 'integer'"),
        (set_to(None, "settings", "runs", "dp_gauss", "hyper"), "dp_gauss.hyper: None is not of type 'object'"),
        (set_to("0", "scores_sha256"), "scores.csv is not the file that provenance.json beside it was written for"),
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


def of_data(name: str, **own: Any):
    """Makes a record one of another data set, whose protocol has `own` settings."""

    def change(record: dict[str, Any]) -> None:
        record["data"] = {name: {"splits": {"train": "5678"}}}
        settings = record["settings"]
        settings["datasets"], settings["runs"]["dp_gauss"]["hyper"] = [name], {name: {}}
        if own:
            settings["protocol"] |= {"per_dataset": {name: own}}

    return change


def test_a_part_says_of_its_own_data_sets_alone_what_the_protocol_is_there(tmp_path, part, capsys):
    celeba = of_data("celeba", min_steps=7)
    folders = [part("a", score()), part("b", score(epsilon=1.0), change=celeba)]
    assert merge.main([*folders, "--out", str(tmp_path / "all")]) == 0
    protocol = {"num_samples": 100, "per_dataset": {"celeba": {"min_steps": 7}}}
    assert read_object(tmp_path / "all/provenance.json")["settings"]["protocol"] == protocol
    other = part("c", score(2), change=of_data("celeba"))
    assert merge.main([folders[1], other, "--out", str(tmp_path / "all")]) == 2
    assert "has another protocol of celeba" in capsys.readouterr().err


def test_scores_of_which_the_record_says_nothing_are_refused(tmp_path, part, capsys):
    for number, stray in enumerate([score(run="dp_merf"), Score("long", "mnist", "dp_gauss", 1.0, "sound", 0, "g2r_cnn",
                                                               0.5, "measured")]):  # fmt: skip
        folders = [part("a", score()), part(f"b{number}", stray)]
        assert merge.main([*folders, "--out", str(tmp_path / "all")]) == 2
        assert f"scores of {stray.method} in preset {stray.preset}, of which provenance.json" in capsys.readouterr().err
    assert merge.main([folders[0], part("none"), "--out", str(tmp_path / "all")]) == 2
    assert "holds no measured scores" in capsys.readouterr().err


def test_a_folder_of_measured_scores_is_not_overwritten_and_a_merged_one_is(tmp_path, part, capsys):
    folders = [part("a", score()), part("b", score(1), change=of_seed(1))]
    mine = part("mine", score(2))
    assert merge.main([*folders, "--out", mine]) == 2
    assert "holds scores that were measured there" in capsys.readouterr().err
    assert [one.seed for one in read_scores(Path(mine) / "scores.csv")] == [2]
    for _ in range(2):
        assert merge.main([*folders, "--out", str(tmp_path / "all")]) == 0


def test_one_folder_under_two_names_is_not_two_parts(tmp_path, part, capsys):
    one = part("a", score())
    (tmp_path / "link").symlink_to(one)
    assert merge.main([one, str(tmp_path / "link"), "--out", str(tmp_path / "all")]) == 2
    assert "at least two folders, each once" in capsys.readouterr().err


def test_what_was_merged_can_be_merged_again_and_names_each_machine_once(tmp_path, part):
    def large(record: dict[str, Any]) -> None:
        of_seed(2)(record)
        record["cores"], record["time"] = 64, "2026-01-02"

    folders = [part(name, score(seed), change=of_seed(seed)) for name, seed in (("a", 0), ("b", 1))]
    assert merge.main([*folders, "--out", str(tmp_path / "two")]) == 0
    assert read_object(tmp_path / "two/provenance.json")["cores"] == 2
    assert merge.main([str(tmp_path / "two"), part("c", score(2), change=large), "--out", str(tmp_path / "all")]) == 0
    record = read_object(tmp_path / "all/provenance.json")
    assert record["processor"] == "machine 0 and machine 1 and machine 2"
    assert ([one["processor"][-1] for one in record["parts"]], record["cores"]) == (["0", "1", "2"], "2 and 64")
    assert (record["runs"], record["settings"]["runs"]["dp_gauss"]["seeds"]) == (3, [0, 1, 2])
    assert record["time"] == "2026-01-02"
    assert merge.main([str(tmp_path / "all"), folders[0], "--out", str(tmp_path / "same")]) == 0
    same = read_object(tmp_path / "same/provenance.json")
    assert (same["runs"], same["train_seconds"], same["runs_by_commit"], len(same["parts"])) == (3, 27.0, {"abc": 3}, 3)
    assert merge.main([str(tmp_path / "all"), part("d", score(3)), "--out", str(tmp_path / "all")]) == 2


@pytest.mark.parametrize(("key", "value"), [("modified", True), ("commit", None)])
def test_that_code_in_no_commit_is_the_same_is_said_to_be_unchecked(tmp_path, part, capsys, key, value):
    folders = [part("a", score(), change=set_to(value, key)), part("b", score(1), change=set_to(value, key))]
    assert merge.main([*folders, "--out", str(tmp_path / "all")]) == 0
    assert "notice: the parts' code is not all in a commit" in capsys.readouterr().err


def test_rows_that_keep_their_seeds_are_named_where_the_page_tells_of_parts_by_seed():
    page = (Path(merge.__file__).parents[1] / "docs/clusters.md").read_text(encoding="utf-8")
    told = page.split("## Machines that share nothing")[1]
    quick = load_preset({"preset": "quick", "seeds": "1"}, datasets=NAMES, methods=registry, protocol_keys=None)
    keeping = [run.name for run in quick.runs.values() if run.seeds != (1,)]
    assert keeping and all(f"`{name}` of `quick`" in told for name in keeping)
