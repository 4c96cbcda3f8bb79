"""The classifiers of a dataset: their networks are the papers', and what is stored is what was trained."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from toys import squares

from evaluation import classifiers, nets
from evaluation.features import REAL, RealFeatures
from evaluation.fitting import CnnSettings, Mlp, accuracy, fit_cnn, random_crop
from evaluation.nets import Classifier
from evaluation.protocol import Protocol
from workflow.common.errors import UserError
from workflow.common.files import read_json, write_npz

PROTOCOL = '{"batch_size": 32, "min_steps": 20, "feature_crop": 1}'
# Products of the channels of VGG11's consecutive convolutions after the first; a scale and a shift per output channel.
VGG_PAIRS = 64 * 128 + 128 * 256 + 256 * 256 + 256 * 512 + 3 * 512 * 512
VGG_NORMS = 2 * (64 + 128 + 2 * 256 + 4 * 512)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("classifiers")
    for name, data in {"train": squares(240, 1), "test": squares(90, 2)}.items():
        write_npz(root / f"{name}.npz", images=data.images, labels=data.labels)
    arguments = ["--train", str(root / "train.npz"), "--test", str(root / "test.npz"), "--protocol", PROTOCOL]
    assert classifiers.main([*arguments, "--out", str(root / "out")]) == 0
    return root


def test_the_card_gives_each_classifiers_test_accuracy_as_the_stored_files_have_it(trained):
    card, test = read_json(trained / "out" / "classifiers.json"), squares(90, 2)
    stored = {
        "features": nets.load(trained / "out" / "features.safetensors"),
        "cnn": nets.load(trained / "out" / "cnn.safetensors"),
        "mlp": Mlp.load(trained / "out" / "mlp.npz"),
    }
    for name, model in stored.items():
        assert card[name]["test_accuracy"] == accuracy(model, test) > 0.9
    assert (card["features"]["network"], card["cnn"]["network"]) == ("small", "lenet")
    assert (card["image_shape"], card["num_classes"]) == ([1, 28, 28], 3)


def test_the_real_features_beside_the_classifiers_are_those_of_the_stored_network_and_the_train_split(trained):
    network, protocol = nets.load(trained / "out" / nets.FEATURES), Protocol.parse(PROTOCOL)
    statistics = RealFeatures.of(network, squares(240, 1), protocol)
    with np.load(trained / "out" / REAL) as stored:
        assert str(stored["key"]) == statistics.key
        assert np.allclose(stored["near"], statistics.near, atol=1e-5)
        assert np.allclose(stored["sigma"], statistics.sigma, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "shape", "classes", "parameters", "width"),
    [
        ("lenet", (1, 28, 28), 10, 61_706, 84),
        ("gender_cnn", (3, 32, 32), 2, 896 + 18_496 + 73_856 + 2_048 * 128 + 128 + 258, 128),
        ("vgg11_bn", (1, 28, 28), 10, 9 * (64 + VGG_PAIRS) + VGG_NORMS + 5_130, 512),
        ("vgg11_bn", (3, 32, 32), 2, 9 * (3 * 64 + VGG_PAIRS) + VGG_NORMS + 1_026, 512),
        ("small", (1, 28, 28), 10, None, 128),
        ("small", (3, 32, 32), 2, None, 128),
    ],
)
def test_networks_have_the_papers_sizes(name, shape, classes, parameters, width):
    network = Classifier(name, shape, classes).eval()
    images = torch.randint(0, 256, (2, *shape), dtype=torch.uint8)
    assert network.features(images).shape == (2, width)
    assert network(images).shape == (2, classes)
    if parameters is not None:
        assert sum(value.numel() for value in network.parameters()) == parameters


def test_pixels_are_normalised_by_the_papers_public_constants(monkeypatch):
    network = Classifier("lenet", (1, 28, 28), 10)
    seen = []
    monkeypatch.setattr(network, "body", torch.nn.Sequential(torch.nn.Flatten()).requires_grad_(False))
    network.body.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    network.features(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))
    assert seen[0].flatten().tolist() == pytest.approx([-0.1307 / 0.3081, (1 - 0.1307) / 0.3081])


def test_a_random_crop_shifts_each_image_by_its_own_draw_and_fills_with_zeros():
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3)
    crops = random_crop(image.repeat(200, 2, 1, 1), 1)
    shifted = torch.nn.functional.pad(image, (1,) * 4)[0, 0].unfold(0, 3, 1).unfold(1, 3, 1).reshape(9, 3, 3)
    matches = (crops[:, 0, None] == shifted).flatten(2).all(2)
    assert matches.sum(1).tolist() == [1] * 200
    assert matches.any(0).all()
    assert torch.equal(crops[:, 0], crops[:, 1])


def test_the_learning_rate_schedules_differ_and_both_learn():
    test = squares(90, 2)
    fitted = [
        fit_cnn("small", squares(240, 1), 3, CnnSettings(2, 0.05, 32, schedule), seed=0)[0]
        for schedule in ("onecycle", "step")
    ]
    assert min(accuracy(model, test) for model in fitted) > 0.9
    assert not torch.equal(fitted[0].head.weight, fitted[1].head.weight)


def test_files_that_are_no_stored_classifier_are_refused(trained, tmp_path):
    whole = (trained / "out" / "cnn.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name in ("cut", "other"):
        with pytest.raises(UserError, match="is not a stored classifier"):
            nets.load(tmp_path / f"{name}.safetensors")
    (tmp_path / "mlp.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match="is not a stored MLP"):
        Mlp.load(tmp_path / "mlp.npz")


def test_images_a_network_cannot_take_are_refused():
    with pytest.raises(UserError, match="too small for the network vgg11_bn"):
        Classifier("vgg11_bn", (3, 16, 16), 2)
    with pytest.raises(UserError, match="1 or 3 channels"):
        Classifier("small", (2, 28, 28), 2)


def test_a_test_split_with_a_class_the_train_split_lacks_is_refused(trained, tmp_path, capsys):
    write_npz(tmp_path / "test.npz", images=squares(20, 1).images, labels=np.arange(20) % 4)
    arguments = ["--train", str(trained / "train.npz"), "--test", str(tmp_path / "test.npz"), "--out", str(tmp_path)]
    assert classifiers.main(arguments) == 2
    assert "has labels up to 3" in capsys.readouterr().err
