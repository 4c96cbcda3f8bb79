"""Every method on every shape: it refuses one before anything is charged, or it trains and draws images of it."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import harness
import pytest
import torch

from methods.core.privacy.private_data import PrivateData
from methods.core.release import Budget, PublicSpec
from methods.core.rng import named_rng
from methods.core.runs import generator
from methods.core.runs.plan import Plan
from methods.core.runs.sample import draw
from methods.core.runs.train import train
from methods.core.runs.warm_start import make, wanted
from workflow.common.errors import UserError

CPU = torch.device("cpu")
RECORDS = 24
SQUARES = (28, 32, 64)
OTHERS = ((27, 27), (20, 30), (10, 16), (20, 28), (16, 48), (4, 4), (1, 1), (30, 30), (33, 64))
# Of a step or two: the shapes of what the networks pass on are tested, not what they learn.
SMALLER = {"steps": 2, "teacher_network": "mlp", "top_k": 1, "projected": 1, "warm_start_steps": 0, "generated": 4}
CLASSIFIER = {"classifier_start": 0, "classifier_fake_steps": 1, "classifier_real_steps": 1, "fakes_per_class": 1}


def settings(name: str) -> dict:
    """The settings of a toy run of a method: of the contract's tests, and smaller still."""
    return harness.sizes(name, harness.TINY | SMALLER | CLASSIFIER)


def plan(name: str, spec: PublicSpec, **other: object) -> Plan:
    budget = Budget(float("inf"), 1e-5, "none") if name == "nonprivate" else Budget(10.0, 1e-5, "sound")
    return Plan.make(name, name, settings(name) | other, spec, budget, 0)


def images_of(one: Plan, folder: Path) -> torch.Tensor:
    """Trains a plan on random pixels and returns images of every class."""
    spec, rng = one.public, named_rng(0, "toy data")
    images = torch.randint(256, (spec.num_train, *spec.image_shape), generator=rng).to(torch.uint8)
    data = PrivateData(images, torch.arange(spec.num_train) % spec.num_classes)
    warm = None
    if wanted(one) is not None:
        warm = folder / "critics"
        make(one.method, wanted(one), one.public, data, 0, CPU, warm)
    train(one, data, folder / "run", CPU, warm)
    return draw(one, generator.load(folder / "run"), one.public.num_classes, CPU)[0]


def check(name: str, spec: PublicSpec, folder: Path, **other: object) -> bool:
    """Returns whether a method takes a shape. An error of any kind but a refused plan fails the test."""
    try:
        one = plan(name, spec, **other)
    except UserError as error:
        assert spec.dataset in str(error) or "x".join(map(str, spec.image_shape[1:])) in str(error)
        return False
    assert images_of(one, folder).shape == (spec.num_classes, *spec.image_shape)
    return True


# Any two of a side, colours and classes meet in one of these.
PAIRS = {(28, 1, 2), (28, 3, 100), (32, 1, 100), (32, 3, 2), (64, 1, 2), (64, 3, 100)}


@pytest.mark.parametrize(
    ("size", "colours", "classes"),
    [
        pytest.param(*each, marks=[] if each in PAIRS else [pytest.mark.slow])
        for each in product(SQUARES, (1, 3), (2, 100))
    ],
)
def test_every_method_makes_square_images(name: str, size: int, colours: int, classes: int, tmp_path: Path) -> None:
    assert check(name, PublicSpec("toy", (colours, size, size), classes, RECORDS), tmp_path)


@pytest.mark.parametrize(("height", "width"), OTHERS)
def test_another_shape_is_refused_or_made(name: str, height: int, width: int, tmp_path: Path) -> None:
    takes = check(name, PublicSpec("toy", (3, height, width), 3, RECORDS), tmp_path)
    assert takes or name != "dp_cgan", "the errors of the others name it as what takes any size"


@pytest.mark.parametrize("size", SQUARES)
@pytest.mark.parametrize("method", ["gs_wgan", "dpac"])
def test_shards_drawn_apart_make_square_images(method: str, size: int, tmp_path: Path) -> None:
    spec = PublicSpec("toy", (3, size, size), 2, RECORDS)
    for network in ("dcgan", "resnet"):
        other = {"shards_per_step": 1.0, "spectral_norm": False, "generator": network}
        assert check(method, spec, tmp_path / network, **other)


@pytest.mark.parametrize("size", SQUARES)
def test_warm_started_critics_make_square_images(size: int, tmp_path: Path) -> None:
    spec = PublicSpec("toy", (1, size, size), 2, RECORDS)
    assert check("gs_wgan", spec, tmp_path, warm_start_steps=1, spectral_norm=True, generator="resnet")


def test_one_class_is_refused_or_made(name: str, tmp_path: Path) -> None:
    assert check(name, PublicSpec("toy", (1, 28, 28), 1, RECORDS), tmp_path) or name == "dpac"


def test_one_record_is_refused_or_trained_on(name: str, tmp_path: Path) -> None:
    check(name, PublicSpec("toy", (1, 28, 28), 2, 1), tmp_path)
