"""Fidelity through torch-fidelity: hand-worked values, arguments it knows, and numbers or notices, never NaN."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional
from toys import squares

from evaluation import features, fidelity, nets
from evaluation.features import RealFeatures, extract, moments
from evaluation.fidelity import (
    KEY_METRIC_FID,
    KEY_METRIC_ISC_MEAN,
    KEY_METRIC_ISC_STD,
    KEY_METRIC_PRECISION,
    KEY_METRIC_RECALL,
    RgbImages,
    frechet_distance,
    inception_score,
    metrics,
    precision_recall,
)
from evaluation.inputs import capped
from evaluation.protocol import Protocol
from evaluation.wavelets import packet_moments, wavelet_distance
from workflow.common.contracts import LabelledImages
from workflow.common.errors import UserError
from workflow.common.files import read_json, write_npz
from workflow.common.torchvision_guard import ensure_torchvision

ensure_torchvision()

from torch_fidelity import FeatureExtractorBase, register_feature_extractor  # noqa: E402


class ClassifierExtractor(FeatureExtractorBase):
    """A feature network as torch-fidelity takes one, to let it compute the metrics from images by itself."""

    def __init__(self, name, features_list, feature_extractor_weights_path, **kwargs):
        super().__init__(name, features_list)
        self.network = nets.load(feature_extractor_weights_path)

    @staticmethod
    def get_provided_features_list():
        return "penultimate", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return "logits" if metric == "isc" else "penultimate"

    def forward(self, images):
        features = self.network.features(images[:, :1])
        outputs = {"penultimate": features, "logits": self.network.head(features)}
        return tuple(outputs[name] for name in self.features_list)


register_feature_extractor("test-classifier", ClassifierExtractor)


def gaussian(mean, covariance, count=4000, seed=0):
    return np.random.default_rng(seed).multivariate_normal(mean, covariance, count).astype(np.float32)


def frechet(one, other):
    """The Frechet distance of two Gaussians, with the matrix root written as S^(1/2) T S^(1/2)."""
    (m, s), (n, t) = ((x.astype(float).mean(0), np.cov(x, rowvar=False)) for x in (one, other))
    values, vectors = np.linalg.eigh(s)
    root = vectors @ np.diag(np.sqrt(values.clip(0))) @ vectors.T
    trace = np.sqrt(np.linalg.eigvalsh(root @ t @ root).clip(0)).sum()
    return ((m - n) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * trace


def fid(one, other):
    return frechet_distance(*(moments(torch.from_numpy(values)) for values in (one, other)))[KEY_METRIC_FID]


def test_fid_of_two_gaussians_is_the_frechet_distance_of_their_moments():
    one = gaussian([100, 120, 140], [[90, 30, 0], [30, 60, 10], [0, 10, 40]], seed=1)
    other = gaussian([110, 115, 140], [[40, -20, 5], [-20, 80, 0], [5, 0, 60]], seed=2)
    assert fid(one, other) == pytest.approx(frechet(one, other), rel=1e-4)
    assert fid(one, other) > 125


def test_fid_of_a_shift_is_its_squared_length_and_of_a_set_with_itself_zero():
    one = gaussian([100, 120, 140], np.diag([90, 60, 40]))
    assert fid(one, one + np.array([3, 4, 0], np.float32)) == pytest.approx(25, abs=1e-2)
    assert fid(one, one) == pytest.approx(0, abs=1e-2)


@pytest.mark.parametrize(
    ("sharpness", "labels", "expected"),
    [
        (100.0, np.arange(1000) % 10, 10.0),  # sure of each image, all classes alike: one per class
        (100.0, np.full(1000, 3), 1.0),  # sure, but of one class only
        (0.0, np.arange(1000) % 10, 1.0),  # never sure
        # p = e/(e+9) for the class itself and 1/(e+9) for the others; the marginal is 1/10 each.
        (1.0, np.arange(1000) % 10, math.exp(math.e / (math.e + 9) - math.log(math.e + 9) + math.log(10))),
    ],
)
def test_inception_score_of_classifiers_worked_by_hand(sharpness, labels, expected):
    logits = sharpness * functional.one_hot(torch.from_numpy(labels), 10).float()
    # One split: ten shuffled splits of a hundred would not have all classes alike.
    assert inception_score(logits, 1)[KEY_METRIC_ISC_MEAN] == pytest.approx(expected, rel=1e-6)


def test_precision_and_recall_of_identical_distant_and_half_covered_sets():
    def score(one, other):
        scores = precision_recall(one, other)
        return scores[KEY_METRIC_PRECISION], scores[KEY_METRIC_RECALL]

    draws = torch.Generator().manual_seed(0)
    low, high = (torch.randint(start, start + 50, (400, 3), generator=draws).float() for start in (0, 200))
    assert score(low, low) == (1, 1)
    assert score(low, high) == (0, 0)
    precision, recall = score(low, torch.cat([low, high]))
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


def scored(folder, samples, real, protocol):
    network = nets.load(folder / nets.FEATURES)
    return fidelity.fidelity(samples, RealFeatures.of(network, real, protocol), network, protocol)


def test_every_metric_is_what_torch_fidelity_computes_from_the_images(folder):
    samples, real, protocol = squares(300, 2), squares(400, 1), Protocol(fid_real_images=350, prc_images=200)
    scores, notices = scored(folder, samples, real, protocol)
    given = {"feature_extractor": "test-classifier", "feature_extractor_weights_path": folder / nets.FEATURES}
    wide = metrics(samples.images, capped(real, 350, "fid").images, isc=True, fid=True, isc_splits=10, **given)
    narrow = metrics(*(capped(data, 200, "prc").images for data in (samples, real)), prc=True, **given)
    assert notices == []
    assert {name: scores[name] for name in ("is", "is_std", "fid_classifier", "precision", "recall")} == pytest.approx(
        {
            "is": wide[KEY_METRIC_ISC_MEAN],
            "is_std": wide[KEY_METRIC_ISC_STD],
            "fid_classifier": wide[KEY_METRIC_FID],
            "precision": narrow[KEY_METRIC_PRECISION],
            "recall": narrow[KEY_METRIC_RECALL],
        },
        rel=1e-4,
    )
    assert 0 < scores["precision"] < 1
    assert scores["num_real"] == 350


def test_features_and_logits_are_the_networks_own(folder):
    network, images = nets.load(folder / nets.FEATURES), squares(features.BATCH + 20, 3).images
    penultimate, logits = extract(network, images)
    assert torch.allclose(logits, network(torch.from_numpy(images)), atol=1e-5)
    assert torch.allclose(penultimate, network.features(torch.from_numpy(images)), atol=1e-5)


def test_torch_fidelity_sees_grey_images_in_three_channels():
    rgb = RgbImages(squares(20, 3).images)
    assert (rgb[7].shape, rgb[7].dtype, len(rgb)) == ((3, 28, 28), torch.uint8, 20)


@pytest.fixture
def computed(monkeypatch):
    """The numbers of real images whose features were computed, in order."""
    sizes = []
    original = RealFeatures.of.__func__
    spy = classmethod(
        lambda cls, network, real, protocol: sizes.append(len(real)) or original(cls, network, real, protocol)
    )
    monkeypatch.setattr(RealFeatures, "of", spy)
    return sizes


def test_stored_features_of_the_real_images_are_read_back_and_score_alike(folder, tmp_path, computed):
    network, real, protocol = nets.load(folder / nets.FEATURES), squares(150, 1), Protocol()
    RealFeatures.of(network, real, protocol).save(tmp_path)
    kept = RealFeatures.find(tmp_path, network, real, protocol)
    assert computed == [150]
    assert fidelity.fidelity(squares(60, 2), kept, network, protocol) == scored(folder, squares(60, 2), real, protocol)


def test_the_wavelet_distance_is_that_of_the_images_and_no_network_has_a_part_in_it(folder):
    samples, real = squares(60, 2), squares(150, 1)
    expected = wavelet_distance(packet_moments(samples.images), packet_moments(capped(real, 100, "fid").images))
    network, protocol = nets.load(folder / nets.FEATURES), Protocol(fid_real_images=100)
    first = fidelity.fidelity(samples, RealFeatures.of(network, real, protocol), network, protocol)[0]
    torch.nn.init.normal_(next(network.parameters()))
    second = fidelity.fidelity(samples, RealFeatures.of(network, real, protocol), network, protocol)[0]
    assert first["fwd"] == second["fwd"] == expected and first["fid_classifier"] != second["fid_classifier"]


@pytest.mark.parametrize("other", ["images", "network", "fid_real_images", "prc_images"])
def test_stored_features_of_other_images_another_network_or_protocol_are_not_used(folder, tmp_path, computed, other):
    network, real, protocol = nets.load(folder / nets.FEATURES), squares(150, 1), Protocol()
    RealFeatures.of(network, real, protocol).save(tmp_path)
    if other == "images":
        real = squares(150, 5)
    elif other == "network":
        network.head.weight.data[0, 0] += 1
    else:
        protocol = Protocol(**{other: 100})
    kept = RealFeatures.find(tmp_path, network, real, protocol)
    assert computed == [150, 150]
    assert kept.key == RealFeatures.of(network, real, protocol).key


def test_a_spoilt_file_of_features_is_one_line(folder, tmp_path):
    (tmp_path / features.REAL).write_bytes(b"no npz")
    with pytest.raises(UserError, match="holds no features"):
        RealFeatures.find(tmp_path, nets.load(folder / nets.FEATURES), squares(150, 1), Protocol())


def test_the_command_writes_every_metric_and_one_notice_for_missing_inception_weights(
    folder, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert run(folder) == 0
    scores = read_json(folder / "fidelity.json")
    assert set(scores) == {
        "is", "is_std", "fid_classifier", "precision", "recall", "fwd", "distinct_fraction", "num_samples", "num_real"
    }  # fmt: skip
    assert 1 <= scores["is"] <= 3 and scores["fid_classifier"] > 0
    assert (scores["num_samples"], scores["num_real"], scores["distinct_fraction"]) == (60, 150, 1)
    error = capsys.readouterr().err
    assert error.startswith("notice: no fid_inception: ") and error.count("\n") == 1
    assert error.endswith(" nor named by the protocol's inception_weights\n")
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


@pytest.mark.parametrize(("count", "absent"), [(60, set()), (5, {"is", "is_std"}), (1, None)])
def test_blank_and_tiny_sample_sets_give_numbers_or_notices(folder, capsys, count, absent):
    write_npz(folder / "blank.npz", images=np.zeros((count, 1, 28, 28), np.uint8), labels=np.arange(count) % 3)
    assert run(folder, "blank", '{"inception_images": 0}') == 0
    scores = json.loads((folder / "fidelity.json").read_text())
    every = {"is", "is_std", "fid_classifier", "precision", "recall", "fwd"}
    assert every - set(scores) == (every if absent is None else absent)
    assert all(math.isfinite(value) for value in scores.values())
    assert capsys.readouterr().err.count("notice: ") == len(every - set(scores))
    assert scores["distinct_fraction"] == pytest.approx(1 / count)
    if count == 60:
        assert scores["is"] == pytest.approx(1) and min(scores["fid_classifier"], scores["fwd"]) > 0


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_a_metric_that_is_not_finite_is_left_out_with_a_notice(folder):
    network = nets.load(folder / nets.FEATURES)
    real = RealFeatures.of(network, squares(150, 1), Protocol())
    network.head.weight.data.fill_(math.nan)
    scores, notices = fidelity.fidelity(squares(60, 2), real, network, Protocol())
    others = {"num_samples", "num_real", "distinct_fraction", "fwd"}
    assert set(scores) == others | {"fid_classifier", "precision", "recall"}
    assert [notice.split(":")[0] for notice in notices] == ["no is", "no is_std"]
    network = nets.load(folder / nets.FEATURES)
    network.body[-2].bias.data.fill_(math.inf)
    scores, notices = fidelity.fidelity(squares(60, 2), real, network, Protocol())
    assert "fid_classifier" not in scores and any(notice.startswith("no fid_classifier: ") for notice in notices)


def test_one_real_image_has_no_covariance_and_no_fid(folder):
    scores, notices = scored(folder, squares(60, 2), squares(1, 1), Protocol())
    assert set(scores) == {"num_samples", "num_real", "distinct_fraction", "is", "is_std"}
    absent = ["no fid_classifier", "no precision", "no recall", "no fwd"]
    assert [notice.split(":")[0] for notice in notices] == absent


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
    scores = fidelity.inception_fid(squares(60, 2), squares(150, 1), Protocol(inception_images=40))
    assert scores == ({"fid_inception": 7.0}, [])
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
    draws = [capped(data, 20, name).images.ravel().tolist() for name in ("fid", "fid", "prc")]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 20
