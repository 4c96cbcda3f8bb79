"""Utility: one function with a direction, an epoch chosen without the images it is scored on, clear errors."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neural_network import MLPClassifier
from toys import squares

from evaluation import fitting, utility
from evaluation.classifiers import train
from evaluation.fitting import CnnSettings, Mlp, fit_cnn, fit_mlp
from evaluation.protocol import Protocol
from workflow.common.contracts import LabelledImages
from workflow.common.errors import UserError
from workflow.common.files import read_json, write_npz

FAST = Protocol(
    min_steps=0, batch_size=32, cnn_g2r_epochs=3, cnn_r2g_epochs=3, mlp_g2r_iterations=8, mlp_r2g_iterations=8
)

ON_TEST = replace(FAST, best_on_test=True)


def permuted(data, seed=5):
    return LabelledImages(data.images, np.random.default_rng(seed).permutation(data.labels))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("utility")
    for name, data in {"samples": squares(240, 1), "test": squares(90, 2), "faces": squares(60, 3, 2, 3, 32)}.items():
        write_npz(root / f"{name}.npz", images=data.images, labels=data.labels)
    return root


def run(folder, *extra, samples="samples", test="test"):
    return utility.main(
        ["--samples", str(folder / f"{samples}.npz"), "--test", str(folder / f"{test}.npz")]
        + ["--out", str(folder / "utility.json"), *extra]
    )


def test_separable_samples_are_useful_and_samples_with_wrong_labels_are_not():
    samples, test = squares(240, 1), squares(90, 2)
    useful = utility.score("g2r", samples, test, FAST, seed=0)
    useless = utility.score("g2r", permuted(samples), test, FAST, seed=0)
    for name in ("g2r_mlp", "g2r_cnn"):
        assert useful[name] > 0.95
        assert useless[name] < 0.75


def test_the_directions_are_the_same_measurement_with_the_sets_exchanged():
    one, other = squares(240, 1), permuted(squares(240, 2))
    forward = utility.score("g2r", one, other, FAST, seed=0)
    stored = {name: model for name, (model, *_) in utility.fit("r2g", one, 3, FAST, seed=0).items()}
    backward = utility.score("r2g", other, one, FAST, seed=0, stored=stored)
    assert forward["g2r_mlp"] == backward["r2g_mlp"]
    assert forward["g2r_cnn"] == backward["r2g_cnn"]


def test_training_and_the_choice_of_the_epoch_never_see_the_test_labels(monkeypatch):
    fitted = []
    original = utility.fit
    monkeypatch.setattr(utility, "fit", lambda *arguments: fitted.append(original(*arguments)) or fitted[-1])
    samples, test = squares(240, 1), squares(90, 2)
    for target in (test, permuted(test)):
        utility.score("g2r", samples, target, FAST, seed=0)
    (mlp, mlp_details, _), (other_mlp, other_details, _) = (each["mlp"] for each in fitted)
    assert mlp_details == other_details
    assert all(np.array_equal(*pair) for pair in zip(mlp.weights, other_mlp.weights, strict=True))
    (cnn, details, _), (other_cnn, other_details, _) = (each["cnn"] for each in fitted)
    assert details == other_details
    assert all(torch.equal(value, other_cnn.state_dict()[name]) for name, value in cnn.state_dict().items())


@pytest.mark.parametrize(
    ("held_out_scores", "best"), [([0.9, 0.5, 0.4], 1), ([0.2, 0.8, 0.8], 3), ([0.1, 0.7, 0.3], 2)]
)
def test_the_epoch_best_on_held_out_samples_is_kept_the_later_of_equals(monkeypatch, held_out_scores, best):
    seen, weights = [], []

    def scripted(model, data):
        seen.append(len(data))
        weights.append(model.head.weight.detach().clone())
        return held_out_scores[len(seen) - 1]

    monkeypatch.setattr(fitting, "accuracy", scripted)
    chosen, last, details = fit_cnn("lenet", squares(120, 1), 3, CnnSettings(3, 0.05, 32, holdout=0.1), seed=0)
    assert details["best_epoch"] == best
    assert seen == [12, 12, 12]
    assert torch.equal(chosen.head.weight, weights[best - 1])
    assert torch.equal(last.head.weight, weights[-1])
    assert not torch.equal(weights[0], weights[-1])


def test_the_best_epoch_on_test_images_is_reported_only_when_asked_for_and_moves_no_other_score(monkeypatch):
    samples, test = squares(120, 1), squares(90, 2)
    plain = utility.score("g2r", samples, test, FAST, seed=0)
    asked = utility.score("g2r", samples, test, ON_TEST, seed=0)
    best = asked.pop("g2r_cnn_best_on_test")
    assert asked == plain
    assert best >= max(plain["g2r_cnn"], plain["g2r_cnn_details"]["last_epoch_accuracy"])
    # Chosen on the test split, and on that alone.
    scores = iter([0.2, 0.9, 0.3])
    real = utility.accuracy
    monkeypatch.setattr(
        utility, "accuracy", lambda model, data: next(scores, None) or real(model, data) if data is test else 0.0
    )
    assert utility.score("g2r", samples, test, ON_TEST, 0)["g2r_cnn_best_on_test"] == 0.9
    stored = {name: model for name, (model, *_) in utility.fit("r2g", samples, 3, FAST, seed=0).items()}
    r2g = utility.score("r2g", samples, test, ON_TEST, 0, stored)
    assert set(r2g) == {"r2g_mlp", "r2g_cnn"}


def test_several_classifiers_of_gen2real_are_of_other_seeds_and_their_mean_counts():
    # Labels so wrong that another seed moves both accuracies.
    data = squares(240, 1)
    wrong = np.arange(240) < 130
    samples = LabelledImages(data.images, np.where(wrong, permuted(data).labels, data.labels))
    test = squares(90, 2)
    one = utility.score("g2r", samples, test, ON_TEST, seed=0)
    three = utility.score("g2r", samples, test, replace(ON_TEST, g2r_classifiers=3), seed=0)
    for name in ("g2r_mlp", "g2r_cnn", "g2r_cnn_best_on_test"):
        each = three[f"{name}_each"]
        assert each[0] == one[name] and len(each) == 3 and three[name] == pytest.approx(sum(each) / 3)
    assert len(set(three["g2r_cnn_each"])) > 1 and len(set(three["g2r_mlp_each"])) > 1
    # As many again begin with the same ones; another seed of the run shares none of them but by chance.
    more = utility.score("g2r", samples, test, replace(ON_TEST, g2r_classifiers=4), seed=0)
    assert more["g2r_cnn_each"][:3] == three["g2r_cnn_each"] and not any(name.endswith("_each") for name in one)
    # real2gen has one network for all runs, which no setting of gen2real moves.
    stored = {name: model for name, (model, *_) in utility.fit("r2g", data, 3, FAST, seed=0).items()}
    assert utility.score("r2g", samples, test, replace(FAST, g2r_classifiers=3), 0, stored).keys() == {
        "r2g_mlp", "r2g_cnn"
    }  # fmt: skip


def test_the_holdout_keeps_class_balance_and_shares_no_image_with_training():
    data = squares(300, 1)
    train, held_out = fitting.split(data, 0.1, seed=0)
    assert np.bincount(held_out.labels).tolist() == [10, 10, 10]
    pixels = [{image.tobytes() for image in part.images} for part in (train, held_out)]
    assert not pixels[0] & pixels[1]
    assert len(train) + len(held_out) == 300


def test_equal_seeds_give_equal_scores_and_other_seeds_other_classifiers():
    samples = squares(240, 1)
    first, again, other = (utility.fit("g2r", samples, 3, FAST, seed) for seed in (0, 0, 1))
    assert torch.equal(first["cnn"][0].head.weight, again["cnn"][0].head.weight)
    assert not torch.equal(first["cnn"][0].head.weight, other["cnn"][0].head.weight)
    assert np.array_equal(first["mlp"][0].weights[0], again["mlp"][0].weights[0])


def test_samples_of_a_single_class_score_the_share_of_that_class():
    samples = LabelledImages(np.zeros((60, 1, 28, 28), np.uint8), np.full(60, 1, np.int64))
    result = utility.score("g2r", samples, squares(90, 2), FAST, seed=0)
    assert result["g2r_mlp"] == pytest.approx(1 / 3)
    assert result["g2r_cnn"] == pytest.approx(1 / 3)


def test_blank_samples_of_all_classes_score_about_chance():
    samples = LabelledImages(np.zeros((90, 1, 28, 28), np.uint8), np.arange(90) % 3)
    result = utility.score("g2r", samples, squares(90, 2), FAST, seed=0)
    assert result["g2r_mlp"] <= 0.5
    assert result["g2r_cnn"] <= 0.5


@pytest.mark.parametrize("classes", [2, 3])
def test_a_stored_mlp_predicts_as_scikit_learn_does(tmp_path, monkeypatch, classes):
    fitted = []
    original = MLPClassifier.fit
    monkeypatch.setattr(MLPClassifier, "fit", lambda self, *data: fitted.append(self) or original(self, *data))
    data = squares(200, 1, classes)
    mlp, _ = fit_mlp(data, iterations=10, holdout=0.1, seed=0)
    mlp.save(tmp_path / "mlp.npz")
    expected = fitted[0].predict(data.images.reshape(200, -1).astype(np.float32) / 255)
    assert len(set(expected)) == classes
    assert np.array_equal(Mlp.load(tmp_path / "mlp.npz").predict(data.images), expected)


def test_the_cap_on_the_mlps_epochs_is_reported_and_does_not_warn(recwarn):
    _, details = fit_mlp(squares(120, 1), iterations=2, holdout=0.1, seed=0)
    assert (details["epochs"], details["stopped"]) == (2, "cap")
    assert not [warning for warning in recwarn if "converge" in str(warning.message)]


def test_small_sets_get_the_epochs_that_make_the_fewest_steps():
    settings = replace(FAST, min_steps=40)
    fitted = utility.fit("g2r", squares(240, 1), 3, settings, seed=0)
    assert fitted["cnn"][1]["epochs"] == math.ceil(40 / (216 // 32))
    assert fitted["mlp"][1]["epochs"] > FAST.mlp_g2r_iterations
    assert fitting.enough_epochs(4, 54_000, 128, 1000) == 4


def test_gen2real_needs_no_stored_classifiers_and_scores_no_other_direction(folder):
    assert run(folder, "--directions", "g2r", "--protocol", '{"cnn_g2r_epochs": 1, "min_steps": 0}') == 0
    scores = read_json(folder / "utility.json")
    assert {"g2r_mlp", "g2r_cnn", "num_samples"} <= set(scores)
    assert not [name for name in scores if name.startswith("r2g")]


def test_samples_beyond_the_protocols_number_are_left_out(folder):
    settings = {"num_samples": 120, "cnn_g2r_epochs": 1, "min_steps": 0}
    assert run(folder, "--directions", "g2r", "--protocol", json.dumps(settings)) == 0
    assert read_json(folder / "utility.json")["num_samples"] == 120


def test_real_images_are_as_many_as_the_protocol_says_of_them(folder):
    settings = json.dumps({"num_samples": 100, "real_images": 150, "cnn_g2r_epochs": 1, "min_steps": 0})
    assert run(folder, "--real", "--directions", "g2r", "--protocol", settings) == 0
    assert read_json(folder / "utility.json")["num_samples"] == 150


def test_the_graph_scores_real_images_as_such_and_samples_not():
    rules = (Path(__file__).resolve().parents[2] / "workflow/rules/evaluation.smk").read_text()
    samples, real = rules.split("rule real_utility:")
    assert "evaluation.utility --samples {input.samples}" in samples
    assert "evaluation.utility --real --samples {input.train}" in real


@pytest.mark.parametrize(
    ("extra", "samples", "message"),
    [
        (["--directions", "g2g"], "samples", "unknown direction 'g2g'; did you mean 'r2g'? valid: g2r, r2g"),
        (["--directions", "g2r,g2r"], "samples", "--directions names one twice: 'g2r,g2r'"),
        ([], "samples", "direction r2g needs --classifiers"),
        (["--directions", "r2g", "--classifiers", "nowhere"], "samples", "no such file: nowhere/mlp.npz"),
        (["--directions", "g2r"], "faces", "has images [3, 32, 32]"),
        (["--directions", "g2r"], "absent", "no such file"),
        (["--directions", "g2r", "--protocol", '{"cnn_epochs": 3}'], "samples", "protocol setting 'cnn_epochs'"),
    ],
)
def test_wrong_input_gives_one_line_and_exit_code_2(folder, capsys, extra, samples, message):
    assert run(folder, *extra, samples=samples) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_folder_in_the_outputs_place_is_refused_before_anything_is_trained(folder, capsys, monkeypatch):
    monkeypatch.setattr(utility, "evaluate", lambda *_: pytest.fail("trained"))
    (folder / "utility.json").unlink(missing_ok=True)
    (folder / "utility.json").mkdir()
    try:
        assert run(folder, "--directions", "g2r") == 2
    finally:
        (folder / "utility.json").rmdir()
    assert capsys.readouterr().err.endswith("utility.json: it is a folder\n")


def test_labels_unknown_to_the_test_split_are_refused(folder, capsys):
    write_npz(folder / "wide.npz", images=squares(60, 1).images, labels=np.arange(60) % 5)
    assert run(folder, "--directions", "g2r", samples="wide") == 2
    assert "has labels up to 4" in capsys.readouterr().err


def test_a_test_split_without_the_last_class_is_scored_where_the_classifiers_know_it(folder):
    test = squares(60, 2)
    write_npz(folder / "fewer.npz", images=test.images[test.labels < 2], labels=test.labels[test.labels < 2])
    train(squares(240, 1), test, FAST, 0, 1, folder / "classifiers")
    common = ["--classifiers", str(folder / "classifiers"), "--protocol", json.dumps(asdict(FAST))]
    assert run(folder, *common, test="fewer") == 0
    scores = read_json(folder / "utility.json")
    assert scores["g2r_cnn"] > 0.9 and scores["r2g_mlp"] > 0.9


@pytest.mark.parametrize("count", [9, 41])
def test_too_few_samples_to_hold_some_of_each_class_out_train_without_a_holdout(count):
    # A tenth of 9 images has no room for three classes; of 41, one class has a single image.
    data = squares(count, 1) if count == 9 else squares(60, 1).take(np.r_[0:60:3, 1:60:3, 2])
    assert len(data) == count
    scores = utility.score("g2r", data, squares(90, 2), FAST, seed=0)
    for name in ("mlp", "cnn"):
        details = scores[f"g2r_{name}_details"]
        assert details["held_out"] == 0 and details["epochs"] >= 1
        assert "best_epoch" not in details and "validation" not in details
        assert 0 <= scores[f"g2r_{name}"] <= 1
    assert "held_out" not in utility.score("g2r", squares(60, 1), squares(90, 2), FAST, seed=0)["g2r_cnn_details"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ('{"batch": 1}', "valid: batch_size, best_on_test, cnn_g2r_epochs"),
        ('{"num_samples": 0}', "num_samples must be at least 1"),
        ('{"num_samples": "10"}', "num_samples must be of type int"),
        ('{"num_samples": true}', "num_samples must be of type int"),
        ('{"holdout": NaN}', "NaN is no number of JSON"),
        ('{"holdout": 0.9}', "0.01 to 0.5, got 0.9"),
        ('{"schedule": "cosine"}', "schedule must be onecycle or step, got 'cosine'"),
        ('{"feature_network": "vgg"}', "feature_network must be small or vgg11_bn, got 'vgg'"),
        ("{", "--protocol is not readable"), ("absent.json", "no such file"),
    ],
)
def test_a_protocol_outside_its_bounds_is_refused_with_the_valid_choices(values, message):
    with pytest.raises(UserError, match=message):
        Protocol.parse(values)


def test_a_protocol_is_read_inline_or_from_a_file_and_takes_whole_numbers_for_real_ones(tmp_path):
    (tmp_path / "protocol.json").write_text('{"cnn_g2r_lr": 1}')
    assert Protocol.parse('{"cnn_g2r_lr": 1}') == Protocol.parse(str(tmp_path / "protocol.json"))
    assert Protocol.parse(None) == Protocol()


def test_ctrl_c_ends_an_mlp_and_leaves_no_half_trained_one(monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MLPClassifier, "_backprop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_mlp(squares(240, 1), 3, 0.1, seed=0)
