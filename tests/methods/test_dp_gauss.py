"""DP-Gauss: what it releases, at what noise, and what its samples are."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from methods.core import registry
from methods.core.accounting.calibration import epsilon
from methods.core.gaussians import release as release_module
from methods.core.method import Context
from methods.core.privacy.ledger import BudgetExhausted, Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import Budget, PublicSpec
from methods.core.rng import named_rng
from methods.dp_gauss import DPGauss
from workflow.common.errors import UserError

FREE, TEN, ONE = Budget(math.inf, 1e-5, "none"), Budget(10.0, 1e-5, "sound"), Budget(1.0, 1e-5, "sound")


def spec(count: int, shape: tuple[int, int, int] = (1, 12, 12), classes: int = 2) -> PublicSpec:
    return PublicSpec("toy", shape, classes, count)


def build(public: PublicSpec, budget: Budget = TEN, **overrides: object) -> DPGauss:
    # As long as the brightest of the images below.
    hp = registry.hyper("dp_gauss", {"radius": 8.0, "spread_radius": 3.0, "least_signal": 500.0} | overrides)
    return DPGauss(hp, Context(public, DPGauss.plan(hp, public, budget), 0, torch.device("cpu")))


def trained(method: DPGauss, data: PrivateData, folder: Path, budget: Budget = TEN) -> DPGauss:
    with Ledger.open(folder / "ledger.jsonl", method.context.releases, budget, noise_key=b"3") as ledger:
        for t in range(method.num_steps):
            method.step(t, data, ledger)
    return method


def bars(count: int, shape: tuple[int, int, int] = (1, 12, 12)) -> PrivateData:
    """Class 0 has a bright left half and class 1 a bright upper one, each dim or bright at random."""
    draws = named_rng(0, "bars")
    labels = torch.arange(count) % 2
    images = 20 * torch.rand(count, *shape, generator=draws)
    light = 150 + 80 * (torch.rand(count, generator=draws) < 0.5).float()
    left, upper = torch.zeros(2, *shape)
    left[..., : shape[2] // 2], upper[:, : shape[1] // 2] = 1.0, 1.0
    images += light[:, None, None, None] * torch.where((labels == 0)[:, None, None, None], left, upper)
    return PrivateData(images.to(torch.uint8), labels)


@pytest.mark.parametrize(("budget", "sigma"), [(TEN, 0.49989), (ONE, 3.73063)])
def test_two_releases_share_the_budget_as_told_and_cost_one_gaussian_at_its_exact_noise(
    budget: Budget, sigma: float
) -> None:
    releases = DPGauss.plan(registry.hyper("dp_gauss", {"first_share": 0.2}), spec(60_000), budget)
    assert [(one.bounded, one.max_uses, one.sampling, one.adjacency) for one in releases] == [
        ("moments", 1, "all", "replace_one")
    ] * 2
    assert [one.noise for one in releases] == pytest.approx([sigma / 0.2**0.5, sigma / 0.8**0.5], rel=2e-3)
    assert [one.scale for one in releases] == pytest.approx([2**0.5 * one.noise for one in releases])
    for count in ("sound", "published"):
        assert epsilon(releases, 1e-5, count) == pytest.approx(budget.epsilon, rel=2e-3) and (
            epsilon(releases, 1e-5, count) <= budget.epsilon
        )


def test_a_first_share_of_one_is_one_release_and_one_gaussian_a_class(tmp_path: Path) -> None:
    method = trained(build(spec(400), first_share=1.0, splits=0), bars(400), tmp_path)
    assert [one.name for one in method.context.releases] == ["moments"]
    assert method.context.releases[0].noise == pytest.approx(0.49989, rel=2e-3)
    assert method.public_state()["means"].shape[:2] == (2, 1)


def test_adding_a_record_is_the_other_promise_at_less_noise() -> None:
    hp = registry.hyper("dp_gauss", {"adjacency": "add_or_remove"})
    one, two = (DPGauss.plan(value, spec(400), TEN) for value in (hp, registry.hyper("dp_gauss", {})))
    assert {release.adjacency for release in one} == {"add_or_remove"}
    assert [a.scale * 2**0.5 for a in one] == pytest.approx([b.scale for b in two])


def test_each_release_reads_every_record_once_and_no_second_time(tmp_path: Path) -> None:
    method, data = build(spec(30)), bars(30)
    with Ledger.open(tmp_path / "ledger.jsonl", method.context.releases, TEN) as ledger:
        for t in (0, 1):
            method.step(t, data, ledger)
        for t in (0, 1):
            with pytest.raises(BudgetExhausted):
                method.step(t, data, ledger)


def test_records_of_all_blocks_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for size in (100, 7):
        monkeypatch.setattr(release_module, "_BLOCK", size)
        method = trained(build(spec(30), FREE, splits=0), bars(30), tmp_path / str(size), FREE)
        found.append(method.public_state()["means"])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_the_second_release_is_about_the_means_that_the_first_gave(tmp_path: Path) -> None:
    """A run without noise: images all alike in a class have no spread, whatever the radius leaves of them."""
    data = PrivateData(torch.arange(2)[:, None, None, None].expand(-1, 1, 12, 12).mul(90).byte().repeat(20, 1, 1, 1),
                       torch.arange(40) % 2)  # fmt: skip
    method = trained(build(spec(40), FREE, splits=0), data, tmp_path, FREE)
    state = method.public_state()
    assert float(state["factors"].abs().max()) < 0.01
    dark, light = method.sample(torch.tensor([0] * 5 + [1] * 5), named_rng(0, "s")).float().split(5)
    assert float(dark.max()) <= 1 and float((light - 90).abs().max()) <= 1


@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 12, 16)])
def test_samples_look_like_their_class_and_vary_as_it_does(shape: tuple[int, int, int], tmp_path: Path) -> None:
    public = spec(4000, shape)
    method = trained(build(public, radius=16.0), bars(4000, shape), tmp_path)
    images = method.sample(torch.tensor([0] * 200 + [1] * 200), named_rng(0, "s")).float()
    assert images.shape == (400, *shape)
    left, upper = images[..., : shape[2] // 2].mean((1, 2, 3)), images[:, :, : shape[1] // 2].mean((1, 2, 3))
    for own, other in ((left[:200], left[200:]), (upper[200:], upper[:200])):
        assert float(own.mean()) == pytest.approx(200, abs=15) and float(other.mean()) == pytest.approx(110, abs=15)
        # 150 or 230, half and half.
        assert float(own.std()) == pytest.approx(40, abs=10)


def test_parts_keep_apart_what_one_gaussian_cannot(tmp_path: Path) -> None:
    def between(splits: int) -> float:
        folder = tmp_path / str(splits)
        folder.mkdir()
        method = trained(build(spec(4000), splits=splits), bars(4000), folder)
        light = method.sample(torch.zeros(1000, dtype=torch.int64), named_rng(0, "s"))[..., :6].float().mean((1, 2, 3))
        return float(((light > 185) & (light < 215)).float().mean())

    assert between(1) < 0.15 < 0.2 < between(0)


@pytest.mark.parametrize(
    ("records", "budget", "parts"), [(60_000, TEN, 2), (60_000, ONE, 1), (9_000, TEN, 1), (9, FREE, 2)]
)
def test_classes_are_split_where_what_is_left_of_them_stands_out_of_the_noise(
    records: int, budget: Budget, parts: int, tmp_path: Path
) -> None:
    method = build(spec(records, classes=10), budget, least_signal=3000.0)
    data = PrivateData(torch.zeros(9, 1, 12, 12, dtype=torch.uint8), torch.arange(9))
    assert trained(method, data, tmp_path, budget).public_state()["weights"].shape == (10, parts)


def test_a_rare_class_and_an_empty_one_still_have_samples(tmp_path: Path) -> None:
    images = torch.randint(256, (203, 1, 12, 12), generator=named_rng(0, "x"), dtype=torch.uint8)
    labels = torch.cat([torch.zeros(200), torch.ones(3)]).long()
    method = trained(build(spec(203, classes=3)), PrivateData(images, labels), tmp_path)
    drawn = method.sample(torch.arange(3).repeat(50), named_rng(0, "s"))
    assert all(value.isfinite().all() for value in method.public_state().values())
    assert float(drawn[2::3].float().mean()) == pytest.approx(127, abs=40)


@pytest.mark.parametrize(
    ("overrides", "shape", "message"),
    [
        ({"first_share": 1.0, "splits": 1}, (1, 12, 12), "splits must be 0 where first_share is 1, got 1.*such as 0.1"),
        ({"cutoff": 256.0}, (1, 256, 256), "cutoff 256 makes .* numbers .* at most 20000000 fit into memory"),
        ({"splits": 7}, (1, 12, 12), "splits must be 0 to 6, got 7"),
        ({"constant_share": 1.0}, (1, 12, 12), "constant_share must be 0.001 to 0.999, got 1"),
        ({"adjacency": "swap"}, (1, 12, 12), "replace_one"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(overrides: dict, shape: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(spec(60, shape), **overrides)
