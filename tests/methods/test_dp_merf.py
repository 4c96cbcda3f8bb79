"""DP-MERF: the embedding it releases, and the generator that learns from nothing else."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from methods.core import registry
from methods.core.accounting.calibration import epsilon
from methods.core.method import Context
from methods.core.privacy.ledger import BudgetExhausted, Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import Budget, PublicSpec
from methods.core.rng import named_rng
from methods.core.speed.upsampling import doubled_bilinearly
from methods.dp_merf import DPMERF
from workflow.common.errors import UserError

FREE = Budget(math.inf, 1e-5, "none")


def spec(count: int, shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10) -> PublicSpec:
    return PublicSpec("toy", shape, classes, count)


def records(count: int, shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10) -> tuple[torch.Tensor, ...]:
    rng = named_rng(0, "records")
    images = torch.randint(256, (count, *shape), generator=rng).to(torch.uint8)
    return images, torch.randint(classes, (count,), generator=rng)


def build(public: PublicSpec, budget: Budget = FREE, **overrides: object) -> DPMERF:
    hp = registry.hyper("dp_merf", {"features": 64, **overrides})
    return DPMERF(hp, Context(public, DPMERF.plan(hp, public, budget), 0, torch.device("cpu")))


def target(public: PublicSpec, data: tuple[torch.Tensor, ...], folder: Path, budget: Budget = FREE) -> torch.Tensor:
    method = build(public, budget)
    with Ledger.open(folder / "ledger.jsonl", method.context.releases, budget, noise_key=b"5") as ledger:
        method.prepare(PrivateData(*data), ledger)
    return method.private_state()["target"]


def test_the_embedding_is_the_mean_of_features_by_class(tmp_path: Path) -> None:
    images, labels = records(700)
    method = build(spec(700))
    flat = images.flatten(1).float() / 255
    phase = flat @ method._frequencies
    features = torch.cat([phase.cos(), phase.sin()], dim=1) / math.sqrt(32)
    wanted = torch.stack([features[labels == k].sum(0) / 700 for k in range(10)])
    torch.testing.assert_close(target(spec(700), (images, labels), tmp_path), wanted, rtol=1e-4, atol=1e-6)


def test_replacing_a_record_moves_the_sum_by_at_most_two(tmp_path: Path) -> None:
    images, labels = records(40)
    changed, relabelled = images.clone(), labels.clone()
    changed[0], relabelled[0] = 255 - images[0], (labels[0] + 1) % 10
    one = target(spec(40), (images, labels), tmp_path / "a")
    other = target(spec(40), (changed, relabelled), tmp_path / "b")
    moved = float((one - other).norm()) * 40
    assert moved == pytest.approx(math.sqrt(2), rel=1e-3)
    assert moved <= DPMERF.plan(registry.hyper("dp_merf", {}), spec(40), Budget(1.0, 1e-5, "sound"))[0].sensitivity


def test_noise_is_the_plans_scale_over_the_records(tmp_path: Path) -> None:
    data, budget = records(200), Budget(1.0, 1e-5, "sound")
    noise = target(spec(200), data, tmp_path / "a", budget) - target(spec(200), data, tmp_path / "b")
    # 3.7306: the exact Gaussian multiplier of epsilon 1 at delta 1e-5.
    assert float(noise.std()) == pytest.approx(2 * 3.7306 / 200, rel=0.08)


@pytest.mark.parametrize(("eps", "sigma"), [(10.0, 0.49989), (1.0, 3.73063)])
def test_plan_is_one_release_at_the_exact_gaussian_noise(eps: float, sigma: float) -> None:
    budget = Budget(eps, 1e-5, "sound")
    (release,) = DPMERF.plan(registry.hyper("dp_merf", {}), spec(60000), budget)
    assert (release.max_uses, release.sampling, release.rate, release.clip) == (1, "all", 1.0, 1.0)
    assert release.noise == pytest.approx(sigma, rel=2e-3)
    assert epsilon((release,), 1e-5, "sound") <= eps


def test_the_data_are_read_once(tmp_path: Path) -> None:
    method = build(spec(20))
    data = PrivateData(*records(20))
    with Ledger.open(tmp_path / "ledger.jsonl", method.context.releases, FREE) as ledger:
        method.prepare(data, ledger)
        method.step(0, data, ledger)
        with pytest.raises(BudgetExhausted):
            method.prepare(data, ledger)


def test_length_scale_follows_the_image_size_unless_given() -> None:
    def mean_square(method: DPMERF) -> float:
        return float(method._frequencies.square().mean())

    assert mean_square(build(spec(10), features=2000)) == pytest.approx(7.5 / 784, rel=0.02)
    assert mean_square(build(spec(10, (3, 32, 32), 2), features=2000)) == pytest.approx(7.5 / 3072, rel=0.02)
    assert mean_square(build(spec(10), features=2000, length_scale=50.0)) == pytest.approx(1 / 50, rel=0.02)


def test_the_authors_generator_has_its_size() -> None:
    # 15x200 + 200, two batch norms, 200x784 + 784, convolutions 16->8 and 8->1 of 5x5.
    expected = 3200 + 400 + 157584 + 1568 + 3208 + 201
    parameters = build(spec(10))._generator.parameters()
    assert sum(parameter.numel() for parameter in parameters) == expected


def test_the_generator_learns_classes_from_the_embedding(tmp_path: Path) -> None:
    labels = torch.arange(400) % 2
    images = torch.zeros(400, 1, 28, 28, dtype=torch.uint8)
    images[labels == 1] = 255
    public = spec(400, classes=2)
    method = build(public, Budget(10.0, 1e-5, "sound"), features=200, steps=60, length_scale=800.0)
    data = PrivateData(images, labels)
    with Ledger.open(tmp_path / "ledger.jsonl", method.context.releases, Budget(10.0, 1e-5, "sound")) as ledger:
        method.prepare(data, ledger)
        for t in range(method.num_steps):
            method.step(t, data, ledger)
    dark, light = method.sample(torch.tensor([0] * 20 + [1] * 20), named_rng(0, "s")).float().split(20)
    assert float(dark.mean()) < 60 < 195 < float(light.mean())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_a_doubling_and_its_convolution_are_torchs(shape: tuple[int, int, int]) -> None:
    generator = build(spec(60, shape))._generator
    for convolution in generator.convolutions:
        maps = torch.randn(3, convolution.in_channels, 4, 7, generator=named_rng(0, "maps"), requires_grad=True)
        doubled = functional.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=True)
        wanted, found = convolution(doubled), doubled_bilinearly(maps, convolution)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        upstream, into = torch.randn(wanted.shape, generator=named_rng(0, "up")), [maps, *convolution.parameters()]
        for one, other in zip(*(torch.autograd.grad(out, into, upstream) for out in (found, wanted)), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"features": 0}, "features must be 2 to 100000, got 0"),
        ({"hidden": 0}, "hidden must be 1 to 8192, got 0"),
        ({"length_scale": -4.0}, "length_scale must be 0 to 1e\\+06, got -4.0"),
        ({"batch_size": 1}, "batch_size must be 2 to 16384, got 1"),
    ],
)
def test_a_setting_out_of_range_is_refused(overrides: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(spec(10), **overrides)


def test_an_image_size_that_no_doubling_reaches_is_refused_before_any_charge() -> None:
    with pytest.raises(UserError, match="multiples of 4"):
        build(spec(10, (1, 10, 16)))
