"""The evaluation's own noise: three spreads that come apart, and a measurement that goes on where it was stopped."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from benchmarks import evaluation_noise
from benchmarks.evaluation_noise import Key, spreads, table
from methods.core.release import NO_BUDGET, PublicSpec
from methods.core.runs import generator
from methods.core.runs.plan import Plan
from workflow.common.errors import UserError

SPEC = PublicSpec("toy", (1, 8, 8), 2, 40)
HYPER = {"steps": 2, "batch_size": 5, "hidden": 3, "latent": 2}


def test_each_source_of_spread_is_found_alone():
    alone = np.zeros((2, 2, 2))
    assert spreads(alone).share is None
    training = spreads(alone + np.array([0.1, 0.3])[:, None, None])
    assert (training.draw, training.evaluation) == (0, 0) and training.training == pytest.approx(np.sqrt(0.02))
    drawn = spreads(alone + np.array([0.1, 0.3])[None, :, None])
    assert (drawn.training, drawn.evaluation) == (0, 0) and drawn.draw == pytest.approx(np.sqrt(0.02))
    evaluated = spreads(alone + np.array([0.1, 0.3])[None, None, :])
    assert (evaluated.training, evaluated.draw) == (0, 0) and evaluated.evaluation == pytest.approx(np.sqrt(0.02))


def test_the_spreads_of_many_seeds_are_those_that_made_them():
    rng = np.random.default_rng(0)
    made = rng.normal(0, 0.03, (4000, 1, 1)) + rng.normal(0, 0.02, (4000, 2, 1)) + rng.normal(0, 0.01, (4000, 2, 3))
    found = spreads(0.8 + made)
    assert (found.mean, found.training) == (pytest.approx(0.8, abs=0.005), pytest.approx(0.03, rel=0.1))
    assert (found.draw, found.evaluation) == (pytest.approx(0.02, rel=0.1), pytest.approx(0.01, rel=0.1))
    assert found.share == pytest.approx(5 / 9, rel=0.2)


def test_a_seed_of_the_evaluation_that_moves_all_sets_alike_hides_no_spread_of_draws_or_trainings():
    rng = np.random.default_rng(1)
    made = rng.normal(0, 0.03, (4000, 1, 1)) + rng.normal(0, 0.02, (4000, 2, 1)) + rng.normal(0, 0.01, (4000, 2, 2))
    found = spreads(0.8 + made + np.array([-0.2, 0.2]))
    assert (found.training, found.draw) == (pytest.approx(0.03, rel=0.1), pytest.approx(0.02, rel=0.1))
    # What a seed of the evaluation does to one training and not to another is not the training's.
    found = spreads(0.8 + made + rng.normal(0, 0.05, (4000, 1, 2)))
    assert (found.training, found.draw) == (pytest.approx(0.03, rel=0.1), pytest.approx(0.02, rel=0.1))


def test_of_one_seed_the_training_s_spread_is_unknown():
    found = spreads(np.array([[[0.1, 0.2], [0.3, 0.4]]]))
    assert found.training is None and found.share is None and found.evaluation > 0


def test_a_row_whose_scores_are_not_all_there_is_left_out():
    whole = {
        Key("toy", run, "10", 0, draw, 100, evaluation, "g2r_cnn"): 0.5
        for run in ("one", "two") for draw in (0, 1) for evaluation in (0, 1)
    }  # fmt: skip
    assert [line[1] for line in table(whole)] == ["one", "two"]
    del whole[next(iter(whole))]
    assert [line[1] for line in table(whole)] == ["two"]


@pytest.fixture
def scored(monkeypatch):
    """Replaces the evaluation by accuracies that say what was scored."""
    seen = []

    def score(direction, samples, test, protocol, seed, stored, threads):
        assert protocol.num_samples == len(samples)
        seen.append((direction, samples, seed, stored))
        return {f"{direction}_cnn": 0.5 + seed / 100, f"{direction}_mlp": 0.25}

    monkeypatch.setattr(evaluation_noise, "score", score)
    monkeypatch.setattr(evaluation_noise, "load_stored", lambda folder: {"cnn": folder.name})
    monkeypatch.setattr(evaluation_noise, "check_fit", lambda samples, cnn, folder: None)
    return seen


@pytest.fixture
def arguments(tmp_path):
    """Returns the command's options for two seeds of a run that made nothing yet."""
    folders = []
    for seed in (0, 1):
        plan = Plan.make("dp_cgan", "dp_cgan", HYPER, SPEC, NO_BUDGET, seed)
        folders.append(tmp_path / f"seed{seed}")
        folders[-1].mkdir()
        (folders[-1] / "plan.json").write_text(json.dumps(plan.to_dict()))
        generator.save(folders[-1], plan.build(torch.device("cpu")))
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "test.npz", images=images, labels=np.arange(20) % 2)
    return [
        "--runs", *map(str, folders), "--test", str(tmp_path / "test.npz"), "--numbers", "200,100", "--device", "cpu",
        "--out", str(tmp_path / "out"),
    ]  # fmt: skip


def classifiers(folder, *names) -> list[str]:
    """Returns folders that hold networks: each other ones, called as the folder is."""
    for name in names:
        (folder / name).mkdir()
        (folder / name / "cnn.safetensors").write_text(name)
    return [str(folder / name) for name in names]


def lines(path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_command_scores_two_sets_of_each_run_with_two_seeds_and_goes_on(tmp_path, arguments, scored):
    folders = classifiers(tmp_path, "c0", "c1")
    assert evaluation_noise.main([*arguments, "--classifiers", *folders]) == 0
    assert len(scored) == 2 * 2 * 2 * 2 * 2
    assert {(len(samples), stored["cnn"]) for direction, samples, _, stored in scored if direction == "r2g"} == {
        (count, name) for count in (100, 200) for name in ("c0", "c1")
    }
    sets = {samples.images.tobytes() for direction, samples, *_ in scored if direction == "g2r" and len(samples) == 100}
    assert len(sets) == 4
    found = lines(tmp_path / "out" / "noise.csv")
    assert [(line["num_samples"], line["metric"]) for line in found] == [
        (count, metric) for count in ("100", "200") for metric in ("g2r_cnn", "g2r_mlp", "r2g_cnn", "r2g_mlp")
    ]
    assert (found[0]["training"], found[0]["evaluation"], found[0]["share"]) == ("0", "0.007071", "")
    assert (found[0]["seeds"], found[0]["draws"], found[0]["evaluations"]) == ("2", "2", "2")

    kept = (tmp_path / "out" / "scores.csv").read_text()
    part = [line for line in kept.splitlines() if ",1,0,200,1," not in line]
    (tmp_path / "out" / "scores.csv").write_text("\n".join(part) + "\n")
    scored.clear()
    assert evaluation_noise.main([*arguments, "--classifiers", *folders]) == 0
    again = [(direction, len(samples), seed) for direction, samples, seed, _ in scored]
    assert again == [("g2r", 200, 1), ("r2g", 200, 1)]
    assert (tmp_path / "out" / "scores.csv").read_text() == kept


def test_scores_by_another_protocol_are_not_mixed(tmp_path, arguments, scored, capsys):
    assert evaluation_noise.main(arguments) == 0
    assert evaluation_noise.main([*arguments, "--protocol", '{"num_samples": 5000}']) == 0
    assert evaluation_noise.main([*arguments, "--protocol", '{"cnn_g2r_epochs": 3}']) == 2
    assert "by another protocol (cnn_g2r_epochs)" in capsys.readouterr().err


def test_scores_of_other_files_are_not_mixed(tmp_path, arguments, scored, capsys):
    folders = classifiers(tmp_path, "c0", "c1", "c2")
    assert evaluation_noise.main(arguments) == 0
    assert evaluation_noise.main([*arguments, "--classifiers", *folders[:2]]) == 0
    assert evaluation_noise.main([*arguments, "--classifiers", *folders]) == 0
    inputs = json.loads((tmp_path / "out" / "inputs.json").read_text())
    assert evaluation_noise.main([*arguments, "--runs", str(tmp_path / "seed1")]) == 0
    assert json.loads((tmp_path / "out" / "inputs.json").read_text()) == inputs
    np.savez(tmp_path / "other.npz", images=np.zeros((4, 1, 8, 8), np.uint8), labels=np.arange(4) % 2)
    capsys.readouterr()
    for option, wrong in (
        ("--classifiers", [*folders[1:]]), ("--test", [str(tmp_path / "other.npz")]), ("--numbers", ["100,300"])
    ):  # fmt: skip
        assert evaluation_noise.main([*arguments, option, *wrong]) == 2
        assert f"holds scores of another {option}; give" in capsys.readouterr().err
    again = Plan.from_dict(json.loads((tmp_path / "seed1" / "plan.json").read_text())).build(torch.device("cpu"))
    again.load({name: value + 1 for name, value in generator.load(tmp_path / "seed1").items()}, None)
    generator.save(tmp_path / "seed1", again)
    assert evaluation_noise.main(arguments) == 2
    assert "another --runs" in capsys.readouterr().err
    (tmp_path / "out" / "protocol.json").unlink()
    assert evaluation_noise.main(arguments) == 2
    assert "no protocol.json that says by what" in capsys.readouterr().err


def of_other_images(*what):
    raise UserError("made for other images")


def test_what_cannot_be_scored_is_refused_before_anything_is(tmp_path, arguments, scored, capsys, monkeypatch):
    def refused(*more: str) -> str:
        assert evaluation_noise.main([*arguments, *more]) == 2 and not scored
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1
        return said

    one = str(tmp_path / "seed0")
    assert "two of --runs are the same run" in refused("--runs", one, one)
    same = classifiers(tmp_path, "c0", "c1")
    (tmp_path / "c1" / "cnn.safetensors").write_text("c0")
    assert "two of --classifiers hold the same networks" in refused("--classifiers", *same)
    np.savez(tmp_path / "ten.npz", images=np.zeros((10, 1, 8, 8), np.uint8), labels=np.arange(10))
    assert "has 2 classes" in refused("--test", str(tmp_path / "ten.npz"))
    np.savez(tmp_path / "wide.npz", images=np.zeros((2, 1, 8, 9), np.uint8), labels=np.arange(2))
    assert "[1, 8, 8], and" in refused("--test", str(tmp_path / "wide.npz"))
    (tmp_path / "c1" / "cnn.safetensors").write_text("c1")
    monkeypatch.setattr(evaluation_noise, "check_fit", of_other_images)
    assert "made for other images" in refused("--classifiers", *same)
    other = Plan.make("dp_cgan", "dp_cgan", HYPER, PublicSpec("another", (1, 8, 8), 2, 40), NO_BUDGET, 0)
    (tmp_path / "another").mkdir()
    (tmp_path / "another" / "plan.json").write_text(json.dumps(other.to_dict()))
    assert "several data sets, another, toy" in refused("--runs", one, str(tmp_path / "another"))
    (tmp_path / "seed1" / "generator.safetensors").unlink()
    assert "train the run first" in refused()


@pytest.mark.parametrize(("column", "value", "message"), [
    ("value", "nan", "nan"), ("value", "1.5", "accuracy from 0 to 1"), ("seed", "-1", "seed must be a whole number"),
    ("draw", "1_0", "draw must be a whole number"),
])  # fmt: skip
def test_a_damaged_file_of_scores_is_named_with_its_line(tmp_path, column, value, message):
    cells = {"dataset": "toy", "run": "one", "epsilon": "10", "seed": "0", "draw": "0", "num_samples": "100",
             "evaluation": "0", "metric": "g2r_cnn", "value": "0.5"}  # fmt: skip
    path = tmp_path / "scores.csv"
    path.write_text(",".join(cells) + "\n" + ",".join((cells | {column: value}).values()) + "\n")
    with pytest.raises(UserError, match=f"scores.csv line 2: .*{message}"):
        evaluation_noise.read(path)
    path.write_text("\n".join([",".join(cells), *(",".join((cells | {"value": v}).values()) for v in ("0.5", "0.6"))]))
    with pytest.raises(UserError, match="line 3: the score of an earlier line is another"):
        evaluation_noise.read(path)


def test_rows_that_are_left_out_of_the_spreads_are_counted(tmp_path, arguments, scored, capsys):
    assert evaluation_noise.main(arguments) == 0 and "notice" not in capsys.readouterr().err
    assert evaluation_noise.main([*arguments, "--runs", str(tmp_path / "seed1"), "--draws", "3"]) == 0
    assert "notice: noise.csv lacks 4 lines" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--draws", "1"], "--draws must be at least 2, got 1"),
        (["--numbers", "50"], "--numbers must be at least 100"),
        (["--numbers", "1000,x"], "--numbers must be a whole number"),
        (["--classifiers", "one"], "--classifiers needs at least two folders"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments, wrong, message, capsys):
    assert evaluation_noise.main([*arguments, *wrong]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and said.count("\n") == 1
