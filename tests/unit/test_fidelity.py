"""Fidelity through torch-fidelity: hand-worked values, arguments it knows, and numbers or notices, never NaN."""

import json
import math

import numpy as np
import pytest
import torch
from synthetic_images import squares
from torch.nn import functional

from evaluation import fidelity, nets
from evaluation.fidelity import (
    DEFAULTS,
    KEY_METRIC_FID,
    KEY_METRIC_ISC_MEAN,
    KEY_METRIC_PRECISION,
    KEY_METRIC_RECALL,
    ClassifierExtractor,
    FeatureExtractorBase,
    RgbImages,
    metrics,
    register_feature_extractor,
)
from evaluation.protocol import Protocol
from workflow.common.contracts import LabelledImages
from workflow.common.files import read_json, write_npz


class PixelExtractor(FeatureExtractorBase):
    """Features that a hand can work out: the first pixels themselves, and logits set by the first pixel."""

    SHARPNESS = {"sharp": 100.0, "flat": 0.0, "mild": 1.0}

    def __init__(self, name, features_list, **kwargs):
        super().__init__(name, features_list)

    @staticmethod
    def get_provided_features_list():
        return "pixels", "sharp", "flat", "mild"

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return "sharp" if metric == "isc" else "pixels"

    def forward(self, images):
        classes = functional.one_hot(images[:, 0, 0, 0].long() % 10, 10).float()
        found = {name: classes * scale for name, scale in self.SHARPNESS.items()}
        found["pixels"] = images[:, 0, 0, :3].float()
        return tuple(found[name] for name in self.features_list)


register_feature_extractor("test-pixels", PixelExtractor)


def gaussian_pixels(mean, covariance, count=4000, seed=0):
    values = np.random.default_rng(seed).multivariate_normal(mean, covariance, count).round().clip(0, 255)
    return values.astype(np.uint8).reshape(count, 1, 1, 3)


def frechet(one, other):
    """The Frechet distance of two Gaussians, with the matrix root written as S^(1/2) T S^(1/2)."""
    (m, s), (n, t) = (
        (x.reshape(len(x), -1).astype(float).mean(0), np.cov(x.reshape(len(x), -1), rowvar=False)) for x in (one, other)
    )
    values, vectors = np.linalg.eigh(s)
    root = vectors @ np.diag(np.sqrt(values.clip(0))) @ vectors.T
    trace = np.sqrt(np.linalg.eigvalsh(root @ t @ root).clip(0)).sum()
    return ((m - n) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * trace


def fid(one, other):
    return metrics(one, other, fid=True, feature_extractor="test-pixels")[KEY_METRIC_FID]


def test_fid_of_two_gaussians_is_the_frechet_distance_of_their_moments():
    one = gaussian_pixels([100, 120, 140], [[90, 30, 0], [30, 60, 10], [0, 10, 40]], seed=1)
    other = gaussian_pixels([110, 115, 140], [[40, -20, 5], [-20, 80, 0], [5, 0, 60]], seed=2)
    assert fid(one, other) == pytest.approx(frechet(one, other), rel=1e-4)
    assert fid(one, other) > 125


def test_fid_of_a_shift_is_its_squared_length_and_of_a_set_with_itself_zero():
    one = gaussian_pixels([100, 120, 140], np.diag([90, 60, 40]))
    assert fid(one, one + np.array([3, 4, 0], np.uint8)) == pytest.approx(25, abs=1e-2)
    assert fid(one, one) == pytest.approx(0, abs=1e-2)


@pytest.mark.parametrize(
    ("layer", "labels", "expected"),
    [
        ("sharp", np.arange(1000) % 10, 10.0),  # sure of each image, all classes alike: one per class
        ("sharp", np.full(1000, 3), 1.0),  # sure, but of one class only
        ("flat", np.arange(1000) % 10, 1.0),  # never sure
        # p = e/(e+9) for the class itself and 1/(e+9) for the others; the marginal is 1/10 each.
        ("mild", np.arange(1000) % 10, math.exp(math.e / (math.e + 9) - math.log(math.e + 9) + math.log(10))),
    ],
)
def test_inception_score_of_classifiers_worked_by_hand(layer, labels, expected):
    images = labels.astype(np.uint8).reshape(-1, 1, 1, 1).repeat(3, axis=3)
    # One split: ten shuffled splits of a hundred would not have all classes alike.
    found = metrics(images, None, isc=True, isc_splits=1, feature_extractor="test-pixels", feature_layer_isc=layer)
    assert found[KEY_METRIC_ISC_MEAN] == pytest.approx(expected, rel=1e-6)


def test_precision_and_recall_of_identical_distant_and_half_covered_sets():
    def score(one, other):
        found = metrics(one, other, prc=True, feature_extractor="test-pixels")
        return found[KEY_METRIC_PRECISION], found[KEY_METRIC_RECALL]

    random = np.random.default_rng(0)
    low, high = (random.integers(start, start + 50, (400, 1, 1, 3)).astype(np.uint8) for start in (0, 200))
    assert score(low, low) == (1, 1)
    assert score(low, high) == (0, 0)
    precision, recall = score(low, np.concatenate([low, high]))
    assert (precision, recall) == (1, pytest.approx(0.5))


def test_an_argument_that_torch_fidelity_does_not_know_is_an_error():
    with pytest.raises(TypeError, match="no argument prc_neighbourhood"):
        metrics(np.zeros((8, 1, 4, 4), np.uint8), None, isc=True, prc_neighbourhood=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("fidelity")
    torch.manual_seed(0)
    nets.save(nets.Classifier("small", (1, 28, 28), 3), root / "features.safetensors")
    for name, data in {"real": squares(150, 1), "samples": squares(60, 2)}.items():
        write_npz(root / f"{name}.npz", images=data.images, labels=data.labels)
    return root


def run(folder, samples="samples", protocol="{}"):
    return fidelity.main(
        ["--samples", str(folder / f"{samples}.npz"), "--real", str(folder / "real.npz"), "--protocol", protocol]
        + ["--classifiers", str(folder), "--out", str(folder / "fidelity.json")]
    )


def test_every_argument_passed_to_torch_fidelity_is_one_it_knows(folder, monkeypatch):
    calls = []
    original = fidelity.calculate_metrics
    monkeypatch.setattr(fidelity, "calculate_metrics", lambda **given: calls.append(given) or original(**given))
    assert run(folder) == 0
    assert len(calls) == 2
    assert all(set(call) <= set(DEFAULTS) for call in calls)
    assert not any(call["cache"] for call in calls)


def test_the_extractor_gives_the_networks_own_features_and_logits_for_grey_images(folder):
    network, images = nets.load(folder / "features.safetensors"), squares(20, 3).images
    extractor = ClassifierExtractor("x", ["logits", "penultimate"], folder / "features.safetensors").eval()
    rgb = torch.stack([RgbImages(images)[index] for index in range(20)])
    assert rgb.shape == (20, 3, 28, 28) and rgb.dtype == torch.uint8
    logits, features = extractor(rgb)
    assert torch.allclose(logits, network(torch.from_numpy(images)), atol=1e-5)
    assert torch.allclose(features, network.features(torch.from_numpy(images)), atol=1e-5)


def test_the_command_writes_every_metric_and_one_notice_for_missing_inception_weights(
    folder, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert run(folder) == 0
    found = read_json(folder / "fidelity.json")
    assert set(found) == {
        "is", "is_std", "fid_classifier", "precision", "recall", "distinct_fraction", "num_samples", "num_real"
    }  # fmt: skip
    assert 1 <= found["is"] <= 3 and found["fid_classifier"] > 0
    assert (found["num_samples"], found["num_real"], found["distinct_fraction"]) == (60, 150, 1)
    error = capsys.readouterr().err
    assert error.startswith("notice: no fid_inception: ") and error.count("\n") == 1
    assert not list(tmp_path.rglob("*.pt*"))


def test_equal_names_with_other_images_are_scored_anew_and_equal_images_alike(folder):
    scores = []
    for seed in (2, 4, 2):
        data = squares(60, seed)
        write_npz(folder / "again.npz", images=data.images, labels=data.labels)
        assert run(folder, "again") == 0
        scores.append(read_json(folder / "fidelity.json"))
    assert scores[0] == scores[2]
    assert scores[0]["fid_classifier"] != scores[1]["fid_classifier"]


@pytest.mark.parametrize(("count", "absent"), [(60, set()), (5, {"is", "is_std", "fid_classifier"}), (1, None)])
def test_blank_and_tiny_sample_sets_give_numbers_or_notices(folder, capsys, count, absent):
    write_npz(folder / "blank.npz", images=np.zeros((count, 1, 28, 28), np.uint8), labels=np.arange(count) % 3)
    assert run(folder, "blank", '{"inception_images": 0}') == 0
    found = json.loads((folder / "fidelity.json").read_text())
    every = {"is", "is_std", "fid_classifier", "precision", "recall"}
    assert every - set(found) == (every if absent is None else absent)
    assert all(math.isfinite(value) for value in found.values())
    assert capsys.readouterr().err.count("notice: ") == len(every - set(found))
    assert found["distinct_fraction"] == pytest.approx(1 / count)
    if count == 60:
        assert found["is"] == pytest.approx(1) and found["fid_classifier"] > 0


def test_a_metric_that_is_not_finite_is_left_out_with_a_notice(folder, monkeypatch):
    monkeypatch.setattr(fidelity, "calculate_metrics", lambda **given: dict.fromkeys(RESULTS, math.nan))
    found, notices = fidelity.fidelity(squares(60, 2), squares(150, 1), folder / "features.safetensors", Protocol())
    assert set(found) == {"num_samples", "num_real", "distinct_fraction"}
    assert [notice.split(":")[0] for notice in notices] == [
        "no is", "no is_std", "no fid_classifier", "no precision", "no recall"
    ]  # fmt: skip


RESULTS = (
    fidelity.KEY_METRIC_ISC_MEAN, fidelity.KEY_METRIC_ISC_STD, KEY_METRIC_FID, KEY_METRIC_PRECISION, KEY_METRIC_RECALL
)  # fmt: skip


def test_the_protocol_caps_the_images_of_each_metric(folder, monkeypatch):
    sizes = []
    original = fidelity.metrics
    monkeypatch.setattr(
        fidelity,
        "metrics",
        lambda samples, real, **given: sizes.append((len(samples), len(real))) or original(samples, real, **given),
    )
    settings = Protocol(fid_real_images=100, prc_images=30)
    found, _ = fidelity.fidelity(squares(60, 2), squares(150, 1), folder / "features.safetensors", settings)
    assert sizes == [(60, 100), (30, 30)]
    assert found["num_real"] == 100


def test_distinct_fraction_counts_repeated_images_once():
    images = squares(10, 1).images
    assert fidelity.distinct_fraction(np.concatenate([images, images[:6]])) == 10 / 16


def test_inception_weights_are_opened_only_if_they_are_the_published_file(folder, monkeypatch, tmp_path, capsys):
    other = tmp_path / "weights.pth"
    other.write_bytes(b"anything")
    assert run(folder, protocol=json.dumps({"inception_weights": str(other)})) == 2
    assert "is not torch-fidelity's" in capsys.readouterr().err
    assert run(folder, protocol=json.dumps({"inception_weights": str(tmp_path / "absent")})) == 2
    assert "no such file" in capsys.readouterr().err
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(fidelity, "INCEPTION_HASH", fidelity.sha256(other)[:8])
    cached = tmp_path / "hub" / "checkpoints" / fidelity.INCEPTION_FILE
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"anything")
    assert fidelity.inception_weights(Protocol()) == cached


def test_inception_fid_takes_capped_sets_and_the_weights_file(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(fidelity, "inception_weights", lambda protocol: tmp_path / "weights.pth")
    monkeypatch.setattr(fidelity, "calculate_metrics", lambda **given: calls.append(given) or {KEY_METRIC_FID: 7.0})
    found = fidelity.inception_fid(squares(60, 2), squares(150, 1), Protocol(inception_images=40))
    assert found == ({"fid_inception": 7.0}, [])
    assert len(calls[0]["input1"]) == len(calls[0]["input2"]) == 40
    assert calls[0]["feature_extractor"] == "inception-v3-compat"
    assert calls[0]["feature_extractor_weights_path"] == str(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((9, 3, 32, 32), np.uint8), np.arange(9) % 3, "not of one dataset"),
        (np.zeros((9, 1, 28, 28), np.uint8), np.arange(9) % 4, "has labels up to 3"),
        (np.zeros((9, 1, 28, 28), np.float32), np.arange(9) % 3, "images must be uint8"),
        (np.zeros((0, 1, 28, 28), np.uint8), np.arange(0), "holds no images"),
    ],
)
def test_wrong_samples_give_one_line_and_exit_code_2(folder, capsys, images, labels, message):
    write_npz(folder / "wrong.npz", images=images, labels=labels)
    assert run(folder, "wrong") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_samples_are_capped_by_a_fixed_draw_that_depends_on_its_name():
    data = LabelledImages(np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1), np.zeros(100, np.int64))
    draws = [fidelity.capped(data, 20, name).images.ravel().tolist() for name in ("fid", "fid", "prc")]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 20
