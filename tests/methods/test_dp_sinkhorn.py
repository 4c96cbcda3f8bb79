"""DP-Sinkhorn: its transport against independent solutions, and what one record can do to a step."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from toys import without_noise

from methods import dp_sinkhorn
from methods.core import registry
from methods.core.method import Context
from methods.core.privacy.grant import Grant
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import Budget, PublicSpec
from methods.core.rng import named_rng
from methods.dp_sinkhorn import DPSinkhorn
from workflow.common.errors import UserError

FREE = Budget(math.inf, 1e-5, "none")
SOUND = Budget(10.0, 1e-5, "sound")
PUBLIC = PublicSpec("toy", (1, 28, 28), 10, 60)
PIXELS = 28 * 28


def records(seed: int = 0) -> PrivateData:
    rng = named_rng(seed, "records")
    images = torch.randint(256, (60, 1, 28, 28), generator=rng).to(torch.uint8)
    return PrivateData(images, torch.randint(10, (60,), generator=rng))


def build(budget: Budget = FREE, public: PublicSpec = PUBLIC, **overrides: object) -> DPSinkhorn:
    settings = {"steps": 2, "batch_size": 60, "generated": 10, "width": 2, "learning_rate": 1e-3}
    hp = registry.hyper("dp_sinkhorn", {**settings, **overrides})
    return DPSinkhorn(hp, Context(public, DPSinkhorn.plan(hp, public, budget), 0, torch.device("cpu")))


def one_step(method: DPSinkhorn, data: PrivateData, folder: Path, budget: Budget = FREE) -> DPSinkhorn:
    with Ledger.open(folder / "ledger.jsonl", method.context.releases, budget) as ledger:
        method.step(0, data, ledger)
        assert ledger.uses("batch_gradient") == 1
    return method


@pytest.fixture
def sent_back(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Collects every gradient that enters a generator."""
    seen, backward = [], torch.Tensor.backward

    def spy(tensor: torch.Tensor, gradient: torch.Tensor | None = None, **named: object) -> None:
        seen.append(gradient.clone())
        backward(tensor, gradient, **named)

    monkeypatch.setattr(torch.Tensor, "backward", spy)
    return seen


# ---------------------------------------------------------------- transport


def toy_measures() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = named_rng(0, "measures")
    x, y = (torch.randn(count, 3, generator=rng, dtype=torch.float64) for count in (5, 7))
    weights = torch.rand(7, generator=rng, dtype=torch.float64) + 0.2
    return x, y, weights / weights.sum()


def entropic(cost: torch.Tensor, weights: torch.Tensor, regularization: float, iterations: int = 150) -> torch.Tensor:
    plan = dp_sinkhorn._transport_plan(cost, weights, regularization, iterations)
    return (plan * cost).sum() + regularization * (plan * (plan * len(cost) / weights).log()).sum()


def test_a_small_regularisation_gives_the_optimal_transport() -> None:
    x, y, weights = toy_measures()
    cost = torch.cdist(x, y).square()
    rows, columns = np.kron(np.eye(5), np.ones(7)), np.kron(np.ones(5), np.eye(7))
    masses = np.concatenate([np.full(5, 0.2), weights.numpy()])
    exact = linprog(cost.flatten().numpy(), A_eq=np.concatenate([rows, columns]), b_eq=masses).fun
    plan = dp_sinkhorn._transport_plan(cost, weights, 0.003, 2000)
    assert float((plan * cost).sum()) == pytest.approx(exact, rel=1e-3)
    assert torch.allclose(plan.sum(1), torch.full((5,), 0.2, dtype=torch.float64))
    assert torch.allclose(plan.sum(0), weights, atol=1e-3)


def test_the_plan_is_the_scaling_of_the_gibbs_kernel() -> None:
    x, y, weights = toy_measures()
    cost, rows = torch.cdist(x, y).square(), torch.full((5,), 0.2, dtype=torch.float64)
    kernel, right = (-cost / 2.0).exp(), torch.ones(7, dtype=torch.float64)
    for _ in range(1000):
        left = rows / (kernel @ right)
        right = weights / (kernel.T @ left)
    expected = left[:, None] * kernel * right
    assert torch.allclose(dp_sinkhorn._transport_plan(cost, weights, 2.0, 500), expected, atol=1e-10)


def test_equal_measures_are_at_divergence_zero_and_others_are_not() -> None:
    x, _, _ = toy_measures()
    uniform = torch.full((5,), 0.2, dtype=torch.float64)

    def divergence(y: torch.Tensor) -> float:
        between, own, other = (torch.cdist(a, b).square() for a, b in ((x, y), (x, x), (y, y)))
        return float(
            entropic(between, uniform, 3.0) - (entropic(own, uniform, 3.0) + entropic(other, uniform, 3.0)) / 2
        )

    assert divergence(x.flip(0)) == pytest.approx(0.0, abs=1e-9)
    assert divergence(x + 0.5) == pytest.approx(0.75, rel=1e-5)


@pytest.mark.parametrize("match_classes", [False, True])
def test_the_gradient_is_that_of_the_entropic_cost(match_classes: bool) -> None:
    settings = {"regularization": 3.0, "iterations": 100, "label_scale": 1.0, "l1_weight": 0.5}
    method = build(match_classes=match_classes, **settings)
    rng = named_rng(0, "points")
    points, others = (torch.rand(count, 3, generator=rng, dtype=torch.float64) * 2 - 1 for count in (4, 6))
    labels, targets = torch.tensor([0, 1, 1, 2]), torch.tensor([0, 0, 1, 2, 3, 1])
    weights = method._weights(labels, targets).double()
    kept = weights > 0
    apart = 2.0 * (labels[:, None] != targets) * (1 + 0.5)

    def value(moved: torch.Tensor) -> float:
        cost = torch.cdist(moved, others).square() + 0.5 * torch.cdist(moved, others, p=1) + apart
        return float(entropic(cost[:, kept], weights[kept], 3.0, 100))

    gradient = method._gradient(points, labels, others, targets)
    for index in range(points.numel()):
        shift = torch.zeros(12, dtype=torch.float64)
        shift[index] = 1e-5
        slope = (value(points + shift.view(4, 3)) - value(points - shift.view(4, 3))) / 2e-5
        assert float(gradient.flatten()[index]) == pytest.approx(slope, abs=1e-5)


def test_alternates_take_the_place_of_the_first_generated_points() -> None:
    labels, points = torch.arange(10), torch.rand(10, PIXELS)
    rivals, rival_labels = build(alternates=0.2)._rivals(points, labels, named_rng(0, "draws"))
    assert torch.equal(rivals[:8], points[2:])
    assert rival_labels.tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert not any(torch.equal(row, point) for row in rivals[8:] for point in points)
    rivals, rival_labels = build(alternates=0.0)._rivals(points, labels, named_rng(0, "draws"))
    assert torch.equal(rivals, points) and torch.equal(rival_labels, labels)


def test_a_generated_batch_that_equals_the_records_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent_back: list[torch.Tensor]
) -> None:
    monkeypatch.setattr(Grant, "poisson_batch", lambda self, count: torch.arange(10))
    images = torch.randint(256, (60, 1, 28, 28), generator=named_rng(0, "images")).to(torch.uint8)
    made = (images[:10] / 127.5 - 1).requires_grad_()
    # A regularisation that mixes the points: either term alone would pull them together, or apart.
    method = build(alternates=0.0, balanced_labels=True, regularization=500.0, label_scale=0.0)
    monkeypatch.setattr(method._generator, "forward", lambda latents, labels: made)
    one_step(method, PrivateData(images, torch.arange(60) % 10), tmp_path / "same")
    one_step(method, PrivateData(images.flip(0), torch.arange(60) % 10), tmp_path / "other")
    assert float(sent_back[0].norm()) < 1e-3 < 1 < float(sent_back[1].norm())


def test_matched_records_carry_the_generated_mass_of_their_class() -> None:
    method = build(match_classes=True)
    labels, targets = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 1, 1, 5])
    expected = torch.tensor([3 / 4, 1 / 12, 1 / 12, 1 / 12, 0.0])
    assert torch.allclose(method._weights(labels, targets), expected)


# ---------------------------------------------------------------- privacy


def test_the_plan_declares_one_row_of_twice_the_clip() -> None:
    (release,) = build(SOUND, batch_size=6).context.releases
    assert (release.kind, release.bounded, release.rows, release.sampling) == ("gaussian", "function", 1, "poisson")
    assert (release.rate, release.max_uses, release.adjacency) == (0.1, 2, "add_or_remove")
    assert release.sensitivity == 2 * release.clip


class Without:
    """Private data in which one record was never there."""

    def __init__(self, data: PrivateData, missing: int) -> None:
        self.data, self.missing = data, missing

    def __len__(self) -> int:
        return len(self.data)

    def read(self, grant: Grant, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.data.read(grant, index[index != self.missing])


@pytest.mark.parametrize("match_classes", [False, True])
def test_one_record_moves_a_step_by_at_most_twice_the_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent_back: list[torch.Tensor], match_classes: bool
) -> None:
    without_noise(monkeypatch)
    # Two records at opposite ends: without one of them all generated mass goes to the other.
    images = torch.zeros(60, 1, 28, 28, dtype=torch.uint8)
    images[7] = 255
    data = PrivateData(images, torch.full((60,), 3))
    monkeypatch.setattr(Grant, "poisson_batch", lambda self, count: torch.tensor([2, 7]))
    for name, source in (("all", data), ("less", Without(data, 7))):
        method = build(SOUND, clip=0.01, match_classes=match_classes, balanced_labels=True)
        one_step(method, source, tmp_path / name, SOUND)
    assert all(float(gradient.norm()) == pytest.approx(0.01, rel=1e-4) for gradient in sent_back)
    # More than the clip, so that a sensitivity of one clip would be too little.
    moved = float((sent_back[0] - sent_back[1]).norm())
    assert method.hp.clip * 1.05 < moved <= method.context.releases[0].sensitivity


def test_the_noise_is_that_of_the_release_and_an_empty_batch_has_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent_back: list[torch.Tensor]
) -> None:
    for count in (0, 1, 60):
        monkeypatch.setattr(Grant, "poisson_batch", lambda self, _, count=count: torch.arange(count))
        method = one_step(build(SOUND), records(), tmp_path / str(count), SOUND)
    (release,) = method.context.releases
    # The shape tells nothing of the batch.
    assert [list(gradient.shape) for gradient in sent_back] == [[10, 1, 28, 28]] * 3
    for gradient in sent_back:
        spread = release.scale * math.sqrt(10 * PIXELS)
        assert float(gradient.norm()) == pytest.approx(math.hypot(spread, release.clip), rel=0.05)


def test_the_generator_is_blind_but_for_the_grants_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def states(folder: str) -> list[dict[str, torch.Tensor]]:
        return [one_step(build(), records(seed), tmp_path / folder / str(seed)).public_state() for seed in (0, 1)]

    one, other = states("seeing")
    assert any(not torch.equal(one[key], other[key]) for key in one)
    monkeypatch.setattr(Grant, "rows", lambda self, rows: torch.ones_like(rows))
    one, other = states("blind")
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_step_reads_the_batch_that_its_grant_drew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[list[int]] = []
    data, read = records(), PrivateData.read
    monkeypatch.setattr(
        PrivateData, "read", lambda self, grant, index: (reads.append(list(index)), read(self, grant, index))[1]
    )
    monkeypatch.setattr(Grant, "poisson_batch", lambda self, count: torch.tensor([count - 1, 5]))
    one_step(build(), data, tmp_path)
    assert reads == [[59, 5]]


# ---------------------------------------------------------------- generator


@pytest.mark.parametrize("public", [PUBLIC, PublicSpec("toy", (3, 32, 32), 2, 60)])
def test_an_image_depends_on_its_own_latent_and_label_alone(
    public: PublicSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, labels = build(public=public, latent=5, latent_law="gaussian"), torch.arange(24) % 2
    whole = method.sample(labels, named_rng(1, "samples"))
    monkeypatch.setattr(dp_sinkhorn, "_BLOCK", 5)
    parts = method.sample(labels, named_rng(1, "samples"))
    # A block's size may change a matrix product's last digit, hence a rounding.
    assert int((whole.int() - parts.int()).abs().max()) <= 1


def test_the_paper_networks_have_the_papers_size() -> None:
    hp = registry.hyper("dp_sinkhorn", {})
    grey = dp_sinkhorn._ConvGenerator(hp, 1, 10)
    assert sum(value.numel() for value in grey.parameters()) == 24 * 256 * 49 + 256 * 128 * 16 + 128 * 64 * 16 + 1553
    hp = registry.hyper("dp_sinkhorn", {"latent": 32, "width": 2})
    assert dp_sinkhorn._ResidualGenerator(hp, 3, 2)(torch.rand(2, 32), torch.arange(2)).shape == (2, 3, 32, 32)


def test_the_average_is_what_is_sampled(tmp_path: Path) -> None:
    last = one_step(build(ema=0.0), records(), tmp_path / "last")
    assert all(torch.equal(value, last.private_state()["generator"][key]) for key, value in last.public_state().items())
    mean = one_step(build(ema=0.5), records(), tmp_path / "mean")
    assert any(
        not torch.equal(value, mean.private_state()["generator"][key]) for key, value in mean.public_state().items()
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"latent_law": "cauchy"}, "latent_law must be uniform or gaussian, got"),
        ({"generated": 0}, "generated must be 1 to 4096, got 0"),
        ({"regularization": 0.0}, "regularization must be 1e-09 to 1e\\+09, got 0"),
        ({"alternates": 1.5}, "alternates must be 0 to 1, got 1.5"),
        ({"l1_weight": -1.0}, "l1_weight must be 0 to 1e\\+06, got -1"),
        ({"public": PublicSpec("toy", (1, 8, 8), 10, 60)}, "28x28, 32x32, 64x64, toy has 8x8"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(**overrides)
