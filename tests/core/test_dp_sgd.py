"""DP-SGD through Opacus: what leaves is the sum of clipped per-example gradients plus the release's noise."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from methods.core.privacy import dp_sgd
from methods.core.privacy.grant import Grant, UnaccountedAccess
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.noise import NoiseSource
from methods.core.release import Budget, PublicSpec, Release
from methods.core.rng import named_rng, seeded
from methods.core.speed import one_backward_pass

CLIP = 0.5
BOUND = CLIP * (1 - dp_sgd.MARGIN)


def release(noise: float, kind: str = "gaussian") -> Release:
    return Release(
        name="g", kind=kind, clip=CLIP, noise=noise, bounded="sum", rows=100, rate=0.1, sampling="poisson",
        max_uses=2000, adjacency="add_or_remove",
    )  # fmt: skip


def network() -> nn.Sequential:
    with seeded(0, "network"):
        return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1))


def losses(model: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    return model(rows).squeeze(1).square() * 3


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


class Setup:
    """A network under plain SGD of rate 1: its movement is minus the released sum over the expected batch."""

    def __init__(
        self, folder: Path, noise: float = 1e-9, kind: str = "gaussian", chunk: int = 0, expected: int = 1
    ) -> None:
        self.model = network()
        self.release = release(noise, kind)
        budget = Budget(1e18, 1e-5, "published") if kind == "gaussian" else Budget(math.inf, 1e-5, "none")
        self.ledger = Ledger.open(folder / "ledger.jsonl", (self.release,), budget, noise_key=b"3 noise")
        sgd = torch.optim.SGD(self.model.parameters(), lr=1.0)
        self.optimizer = dp_sgd.PrivateOptimizer(self.model, sgd, self.release, expected, chunk)

    def released(self, batch: torch.Tensor, measure: Callable = losses) -> torch.Tensor:
        before = flat(self.model)
        with self.ledger.charge("g") as grant:
            self.optimizer.step(grant, measure, batch)
        return before - flat(self.model)


@pytest.fixture(autouse=True)
def _any_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    # These tests look at the mechanism, some of them with next to no noise.
    monkeypatch.setattr("methods.core.accounting.calibration.epsilon", lambda *_: 1.0)


def clipped_by_hand(batch: torch.Tensor) -> torch.Tensor:
    total = torch.zeros_like(flat(network()))
    for row in batch:
        model = network()
        losses(model, row[None]).sum().backward()
        gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        total += gradient * min(1.0, BOUND / float(gradient.norm()))
    return total


@pytest.mark.parametrize("chunk", [0, 3, 7])
def test_released_sum_clips_each_whole_gradient_once_however_the_rows_are_cut(tmp_path: Path, chunk: int) -> None:
    batch = torch.randn(7, 6, generator=named_rng(0, "x")) * torch.tensor([0.01, 0.1, 1, 1, 3, 10, 100])[:, None]
    released = Setup(tmp_path, chunk=chunk).released(batch)
    torch.testing.assert_close(released, clipped_by_hand(batch), rtol=1e-4, atol=1e-6)


def test_many_rows_are_all_summed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dp_sgd, "_MOST_SUMMED", 3)
    batch = torch.randn(11, 6, generator=named_rng(0, "x"))
    for chunk in (0, 2, 8):
        (folder := tmp_path / str(chunk)).mkdir()
        released = Setup(folder, chunk=chunk).released(batch)
        torch.testing.assert_close(released, clipped_by_hand(batch), rtol=1e-4, atol=1e-6)


def noiseless_sums(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Returns a list to which each sum that a grant is asked to noise is added, in double precision."""
    sums: list[torch.Tensor] = []
    monkeypatch.setattr(Grant, "noise", lambda grant, total: sums.append(total.double()) or 0 * total)
    return sums


@pytest.mark.parametrize("count", [600, 20_000])
def test_of_equal_records_one_moves_the_sum_by_no_more_than_the_clip_however_many_they_are(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums, setup = noiseless_sums(monkeypatch), Setup(tmp_path)
    with seeded(0, "wide"):
        model = nn.Linear(784, 1)
    setup.optimizer = dp_sgd.PrivateOptimizer(model, torch.optim.SGD(model.parameters()), setup.release, 1)
    for number in range(6):
        record = torch.rand(1, 784, generator=named_rng(number, "record")) if number % 2 else torch.full((1, 784), 0.9)
        for rows in (count, count - 1):
            setup.released(record.expand(rows, 784))
    moved = [float((with_it - without).norm()) for with_it, without in zip(sums[::2], sums[1::2], strict=True)]
    assert CLIP * (1 - 4e-4) < min(moved) <= max(moved) <= CLIP


@pytest.mark.parametrize("chunk", [0, 8])
def test_units_that_stand_at_zero_do_not_switch_by_how_many_records_there_are(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were last digits to follow from the number of rows, one record would move the others' gradients."""
    sums, setup = noiseless_sums(monkeypatch), Setup(tmp_path)
    record = torch.rand(1, 784, generator=named_rng(0, "record"))
    with seeded(0, "wide"):
        model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 1))
    with torch.no_grad():
        model[0].bias -= model[0](record.repeat(chunk or 64, 1))[0]
    setup.optimizer = dp_sgd.PrivateOptimizer(model, torch.optim.SGD(model.parameters()), setup.release, 1, chunk)
    for rows in range(1, 34):
        setup.released(record.repeat(rows, 1), lambda network, rows: 1e4 * network(rows).squeeze(1))
    moved = [float((after - before).norm()) for before, after in itertools.pairwise(sums)]
    assert CLIP * (1 - 4e-4) < min(moved) <= max(moved) <= CLIP


class Convolutions(nn.Module):
    """Layers whose per-example gradients are kept (many places, few weights) or not (the third), one without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 3, (3, 2), (1, 2), (0, 1)), nn.Tanh(), nn.Conv2d(3, 12, 3, 2, 1, bias=False), nn.Tanh(),
            nn.Conv2d(12, 20, 3), nn.Flatten(), nn.Linear(20, 1),
        )  # fmt: skip

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.layers(rows.view(-1, 2, 8, 10))


def autocast_losses(model: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return 1000 * losses(model, rows).float()


def convolutions_released(batch: torch.Tensor, measure: Callable, last: bool) -> tuple[nn.Module, torch.Tensor]:
    """Returns the network and the noiseless sum, by a step whose expected batch and learning rate are 1."""
    with seeded(0, "convolutions"):
        model = Convolutions()
    if last:
        model.to(memory_format=torch.channels_last)
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer, before = dp_sgd.PrivateOptimizer(model, sgd, release(0.0), 1), flat(model)
    optimizer.step(Grant(release(0.0), NoiseSource(b"0"), 1), measure, batch)
    moved = before - flat(model)
    with torch.no_grad():
        nn.utils.vector_to_parameters(before, model.parameters())
    return model, moved


@pytest.mark.parametrize("last", [False, True])
def test_the_sum_over_convolutions_is_that_of_clipped_gradients(last: bool) -> None:
    batch = torch.randn(5, 160, generator=named_rng(0, "x")) * torch.tensor([0.01, 0.1, 1, 3, 10])[:, None]
    model, released = convolutions_released(batch, losses, last)
    plain, total = copy.deepcopy(model), torch.zeros_like(released)
    for row in batch:
        gradients = torch.autograd.grad(losses(plain, row[None]).sum(), list(plain.parameters()))
        gradient = torch.cat([part.flatten() for part in gradients])
        total += gradient * min(1.0, BOUND / float(gradient.norm()))
    torch.testing.assert_close(released, total, rtol=1e-3, atol=1e-5)


def test_in_half_precision_what_is_summed_is_what_was_clipped() -> None:
    for row in torch.randn(8, 160, generator=named_rng(0, "x")) * 10:
        _, released = convolutions_released(row[None], autocast_losses, True)
        # Half precision keeps three digits: a norm of other numbers than those that are summed would show here.
        assert float(released.double().norm()) == pytest.approx(BOUND, rel=1e-5)


@pytest.mark.parametrize("size", [2, 9, 33])
def test_in_half_precision_a_record_moves_the_sum_by_its_own_row_alone(size: int) -> None:
    """Kernels are chosen by the size of a batch: were the others' digits to follow from it, they would move as well."""
    batch = torch.randn(size, 160, generator=named_rng(0, "x")) * 10
    sums = [convolutions_released(rows, autocast_losses, True)[1] for rows in (batch, batch[1:], batch[:1])]
    torch.testing.assert_close(sums[0] - sums[1], sums[2], rtol=0, atol=1e-4 * CLIP)


def test_the_norm_of_a_convolution_holds_where_its_terms_cancel() -> None:
    # Few places, so that Gram matrices are the cheaper form; equal patches, and deltas whose sum is nearly nothing.
    layer = nn.Conv2d(64, 128, 3)
    images = torch.full((1, 64, 6, 6), 30.0)
    deltas = torch.ones(1, 128, 4, 4) * torch.tensor([1.0, -1.0]).repeat(8).view(4, 4)
    deltas[..., 0, 0] += 1e-4
    one_backward_pass.LayerGradients(layer, images, deltas).store_norms()
    patches = torch.nn.functional.unfold(images.double(), 3)
    exact = (deltas.double().flatten(2) @ patches.mT).norm(dim=(1, 2))
    assert float(layer.weight._norm_sample) == pytest.approx(float(exact), rel=1e-4)


@pytest.mark.parametrize(("size", "stride", "padding"), [((4, 4), (2, 2), (1, 1)), ((2, 6), (2, 3), (0, 2))])
def test_norms_from_blocks_of_pixels_are_those_of_the_gradients(size, stride, padding) -> None:
    # More rows than are multiplied at once, and a margin of pixels that no patch reaches.
    layer, rng = nn.Conv2d(64, 256, size, stride, padding), named_rng(0, "x")
    images = torch.randn(35, 64, 13, 11, generator=rng)
    deltas = torch.randn(layer(images[:1]).shape, generator=rng).repeat(35, 1, 1, 1) * torch.rand(35, 1, 1, 1)
    gradients = one_backward_pass.LayerGradients(layer, images, deltas)
    assert gradients._folding
    gradients.store_norms()
    patches = torch.nn.functional.unfold(images.double(), size, padding=padding, stride=stride)
    exact = (deltas.double().flatten(2) @ patches.mT).norm(dim=(1, 2))
    torch.testing.assert_close(layer.weight._norm_sample.double(), exact, rtol=1e-6, atol=0)


def test_norms_from_blocks_of_pixels_hold_where_their_terms_cancel() -> None:
    layer = nn.Conv2d(64, 256, 4, 2)
    images, deltas = torch.full((1, 64, 10, 10), 30.0), torch.ones(1, 256, 4, 4)
    deltas *= torch.tensor([1.0, -1.0]).repeat(8).view(4, 4)
    deltas[..., 0, 0] += 1e-4
    gradients = one_backward_pass.LayerGradients(layer, images, deltas)
    assert gradients._folding
    gradients.store_norms()
    patches = torch.nn.functional.unfold(images.double(), 4, stride=2)
    exact = (deltas.double().flatten(2) @ patches.mT).norm(dim=(1, 2))
    assert float(layer.weight._norm_sample) == pytest.approx(float(exact), rel=1e-4)


def test_norms_of_gradients_that_are_not_kept_are_those_of_the_gradients() -> None:
    # Places enough that the gradients are made, too few to keep them, and more rows than are made at once.
    layer, rng = nn.Conv2d(16, 32, 3), named_rng(0, "x")
    images, deltas = torch.randn(70, 16, 5, 5, generator=rng), torch.randn(70, 32, 3, 3, generator=rng)
    gradients = one_backward_pass.LayerGradients(layer, images, deltas)
    assert gradients._passing
    gradients.store_norms()
    exact = deltas.double().flatten(2) @ torch.nn.functional.unfold(images.double(), 3).mT
    torch.testing.assert_close(layer.weight._norm_sample.double(), exact.norm(dim=(1, 2)), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm1d(6), nn.Conv2d(2, 2, 1, groups=2), nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")]
)
def test_a_layer_whose_gradients_are_unknown_is_refused(layer: nn.Module) -> None:
    with pytest.raises(ValueError, match=type(layer).__name__):
        dp_sgd.PrivateOptimizer(layer, torch.optim.SGD(layer.parameters(), lr=1.0), release(1.0), 1)


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm1d(6, affine=False), nn.BatchNorm1d(6, affine=False, track_running_stats=False),
              nn.LazyBatchNorm2d(affine=False), nn.InstanceNorm1d(6, track_running_stats=True)]
)  # fmt: skip
def test_a_layer_that_mixes_examples_without_parameters_of_its_own_is_refused(layer: nn.Module) -> None:
    network = nn.Sequential(nn.Linear(6, 6), layer, nn.Linear(6, 1))
    with pytest.raises(ValueError, match="own example alone"):
        dp_sgd.PrivateOptimizer(network, torch.optim.SGD(network.parameters(), lr=1.0), release(1.0), 1)


def test_a_norm_of_each_example_alone_is_taken() -> None:
    network = nn.Sequential(nn.Linear(6, 6), nn.InstanceNorm1d(6), nn.Linear(6, 1))
    dp_sgd.PrivateOptimizer(network, torch.optim.SGD(network.parameters(), lr=1.0), release(1.0), 1)


def test_a_layer_called_twice_is_refused(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    with setup.ledger.charge("g") as grant, pytest.raises(ValueError, match="once"):
        setup.optimizer.step(grant, lambda model, rows: losses(model, rows) + losses(model, rows), torch.zeros(2, 6))


@pytest.mark.parametrize(
    ("measure", "shape"),
    [
        (lambda model, rows: losses(model, rows).mean(), r"\[\]"),
        (lambda model, rows: model(rows).square(), r"\[64, 1\]"),
        (lambda model, rows: model(rows) - model(rows).detach()[:, 0], r"\[64, 64\]"),
    ],
    ids=["a mean", "a column", "pairs"],
)
def test_what_is_no_loss_of_each_row_is_refused(tmp_path: Path, measure: Callable, shape: str) -> None:
    with pytest.raises(ValueError, match=rf"one loss a row, \[64\], got {shape}"):
        Setup(tmp_path).released(torch.zeros(3, 6), measure)


def test_one_record_moves_the_sum_by_at_most_the_clip(tmp_path: Path) -> None:
    batch = torch.randn(5, 6, generator=named_rng(0, "x")) * 50
    with_it, without = Setup(tmp_path / "a").released(batch), Setup(tmp_path / "b").released(batch[:-1])
    assert 0.99 * CLIP < float((with_it - without).norm()) < 1.001 * CLIP


@pytest.mark.parametrize("bad", [math.inf, math.nan, 1e30])
def test_a_non_finite_row_counts_as_zero(tmp_path: Path, bad: float) -> None:
    batch = torch.randn(4, 6, generator=named_rng(0, "x"))
    poisoned = torch.cat([batch, torch.full((1, 6), bad)])
    torch.testing.assert_close(Setup(tmp_path / "a").released(poisoned), Setup(tmp_path / "b").released(batch))


@pytest.fixture(params=[True, False], ids=["one backward pass", "row by row"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to the same sum."""
    monkeypatch.setattr(dp_sgd.CHOICES, "one_backward_pass", request.param)


@pytest.mark.usefixtures("either_way")
def test_a_row_whose_loss_is_finite_and_whose_gradient_is_not_counts_as_zero(tmp_path: Path) -> None:
    def kinked(model: nn.Module, rows: torch.Tensor) -> torch.Tensor:
        out, bad = model(rows).squeeze(1), rows[:, 0] == 7
        # The root of a number that is always zero: a loss of 0, whose slope is 0 times infinity.
        root = torch.where(bad, (out - out.detach()).abs(), 1.0).sqrt()
        return torch.where(bad, root, out.square() * 3)

    batch = torch.randn(4, 6, generator=named_rng(0, "x"))
    poisoned = torch.cat([batch[:2], torch.full((1, 6), 7.0), batch[2:]])
    assert kinked(network(), poisoned).isfinite().all()
    released = Setup(tmp_path / "a").released(poisoned, kinked)
    torch.testing.assert_close(released, Setup(tmp_path / "b").released(batch))


@pytest.mark.usefixtures("either_way")
def test_gradients_beyond_the_clip_end_at_it_on_average_to_seven_digits(tmp_path: Path) -> None:
    def steep(model: nn.Module, rows: torch.Tensor) -> torch.Tensor:
        return 1e4 * (model(rows)[:, 0] + 1).square()

    setup, norms = Setup(tmp_path, noise=0.0), []
    for row in torch.randn(200, 6, generator=named_rng(0, "x")).split(1):
        # From zero: a movement of weights would lose the last digits.
        taken: list[torch.Tensor] = []
        setup.optimizer._optimizer.original_optimizer.step = lambda taken=taken: taken.extend(
            parameter.grad.double().flatten() for parameter in setup.model.parameters()
        )
        with setup.ledger.charge("g") as grant:
            setup.optimizer.step(grant, steep, row)
        norms.append(float(torch.cat(taken).norm()) / BOUND)
    # A single one is rounded in its seventh digit; twice a clip's 1e-6 would show in the mean.
    assert sum(norms) / len(norms) == pytest.approx(1.0, abs=1e-7)
    assert max(norms) < 1 + 5e-7


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("clip", [0.5, 1e-5, 1e-9])
def test_no_row_ends_above_the_clip_however_near_it_is_to_the_largest_float(clip: float) -> None:
    """Single precision has few digits for the factors of such rows, and none for those of the longest."""
    with seeded(0, "few places"):
        # Norms of so few places come from Gram matrices, in double precision, and do not overflow.
        model = nn.Sequential(nn.Conv2d(64, 128, 3, bias=False), nn.Flatten())
    declared = dataclasses.replace(release(0.0), clip=clip)
    optimizer = dp_sgd.PrivateOptimizer(model, torch.optim.SGD(model.parameters(), lr=1.0), declared, 1)
    optimizer._optimizer.original_optimizer.step = lambda: norms.append(float(model[0].weight.grad.double().norm()))
    image, norms = torch.rand(1, 64, 4, 4, generator=named_rng(0, "x")), []
    for size in torch.logspace(10, 35, 60):
        grant = Grant(declared, NoiseSource(b"0"), 1)
        optimizer.step(grant, lambda network, rows: network(rows).sum(1), image * size)
    assert clip * (1 - 1e-3) < max(norms) <= clip


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_no_row_of_any_size_ends_above_the_clip(half: bool, seed: int) -> None:
    # Layers wide enough that rounding adds up, at weights and images from tiny to huge.
    rng = named_rng(seed, "sizes")
    with seeded(seed, "wide"):
        model = nn.Sequential(
            nn.Conv2d(1, 24, 5, 2, 2), nn.LeakyReLU(0.2), nn.Conv2d(24, 48, 5, 2, 2), nn.Softplus(), nn.Flatten(),
            nn.Linear(48 * 49, 3),
        )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10.0 ** float(torch.rand((), generator=rng) * 6 - 3))

    def cross_entropy(network: nn.Module, rows: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = network(rows)
        return nn.functional.cross_entropy(100 * logits.float(), torch.zeros(len(rows), dtype=int), reduction="none")

    sgd, norms = torch.optim.SGD(model.parameters(), lr=1.0), []
    optimizer, before = dp_sgd.PrivateOptimizer(model, sgd, release(0.0), 1), copy.deepcopy(model.state_dict())
    for power in torch.linspace(-4, 18, 12).tolist():
        taken: list[torch.Tensor] = []
        optimizer._optimizer.original_optimizer.step = lambda taken=taken: taken.append(
            torch.cat([parameter.grad.double().flatten() for parameter in model.parameters()])
        )
        row = torch.rand((1, 1, 28, 28), generator=rng) * 10.0**power
        optimizer.step(Grant(release(0.0), NoiseSource(b"0"), 1), cross_entropy, row)
        norms.append(float(taken[0].norm()) / CLIP)
    assert 0.999 < max(norms) <= 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_sum_and_noise_are_both_divided_by_the_expected_batch(tmp_path: Path) -> None:
    batch = torch.randn(7, 6, generator=named_rng(0, "x"))
    one, many = Setup(tmp_path / "a", noise=2.0), Setup(tmp_path / "b", noise=2.0, expected=50)
    torch.testing.assert_close(many.released(batch) * 50, one.released(batch), rtol=1e-3, atol=1e-4)
    empty = torch.cat([many.released(torch.zeros(0, 6)) for _ in range(100)])
    assert float(empty.std()) * 50 == pytest.approx(2.0 * CLIP, rel=0.05)


def test_an_empty_batch_still_adds_noise_of_the_release(tmp_path: Path) -> None:
    setup = Setup(tmp_path, noise=2.0)
    drawn = torch.cat([setup.released(torch.zeros(0, 6)) for _ in range(100)])
    assert float(drawn.std()) == pytest.approx(2.0 * CLIP, rel=0.05)
    assert float(drawn.mean()) == pytest.approx(0.0, abs=0.1)


def test_noise_belongs_to_the_use(tmp_path: Path) -> None:
    empty = torch.zeros(0, 6)
    first, second = Setup(tmp_path / "a", 2.0), Setup(tmp_path / "b", 2.0)
    one, other = first.released(empty), first.released(empty)
    assert torch.equal(one, second.released(empty))
    assert not torch.equal(one, other)


def test_without_privacy_there_is_neither_clip_nor_noise(tmp_path: Path) -> None:
    batch = torch.randn(5, 6, generator=named_rng(0, "x")) * 50
    model = network()
    losses(model, batch).sum().backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    torch.testing.assert_close(Setup(tmp_path, 0.0, "none").released(batch), gradient, rtol=1e-4, atol=1e-2)


def test_a_step_needs_an_open_grant_of_its_own_release(tmp_path: Path) -> None:
    setup, before = Setup(tmp_path), flat(network())
    with setup.ledger.charge("g") as grant:
        pass
    with pytest.raises(UnaccountedAccess):
        setup.optimizer.step(grant, losses, torch.zeros(2, 6))
    with setup.ledger.internal("look") as internal, pytest.raises(UnaccountedAccess):
        setup.optimizer.step(internal, losses, torch.zeros(2, 6))
    other = dataclasses.replace(setup.release, name="other", clip=CLIP / 4)
    with (
        Ledger.open(tmp_path / "other.jsonl", (other,), Budget(1e18, 1e-5, "published"), noise_key=b"3") as ledger,
        ledger.charge("other") as foreign,
        pytest.raises(UnaccountedAccess),
    ):
        setup.optimizer.step(foreign, losses, torch.zeros(2, 6))
    assert torch.equal(before, flat(setup.model))


@pytest.mark.parametrize("one_pass", [True, False])
def test_a_row_of_infinite_loss_and_finite_gradient_counts_as_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_pass: bool
) -> None:
    monkeypatch.setattr(dp_sgd, "CHOICES", dataclasses.replace(dp_sgd.CHOICES, one_backward_pass=one_pass))
    batch = torch.randn(4, 6, generator=named_rng(0, "x"))

    def endless(model: nn.Module, rows: torch.Tensor) -> torch.Tensor:
        return losses(model, rows) + torch.where((rows == batch[1]).all(1), math.inf, 0.0)

    without = Setup(tmp_path / "without").released(batch[[0, 2, 3]])
    torch.testing.assert_close(Setup(tmp_path / "with").released(batch, endless), without, rtol=1e-4, atol=1e-6)


def test_a_grant_serves_one_step(tmp_path: Path) -> None:
    setup = Setup(tmp_path)
    with setup.ledger.charge("g") as grant:
        setup.optimizer.step(grant, losses, torch.zeros(2, 6))
        assert isinstance(grant, Grant) and not grant.open
        with pytest.raises(UnaccountedAccess):
            setup.optimizer.step(grant, losses, torch.zeros(2, 6))


def test_the_release_states_a_poisson_sum() -> None:
    spec = PublicSpec("toy", (1, 28, 28), 10, 1000)
    stated = dp_sgd.release("g", SimpleNamespace(clip=1.5, batch_size=10, steps=20), spec, noise=2.0)
    assert (stated.rate, stated.max_uses, stated.sampling, stated.bounded) == (0.01, 20, "poisson", "sum")
    assert (stated.kind, stated.sensitivity, stated.scale, stated.rows) == ("gaussian", 1.5, 3.0, 1000)


def test_a_batch_beyond_the_data_draws_each_record_for_certain() -> None:
    spec = PublicSpec("toy", (1, 28, 28), 10, 5)
    assert dp_sgd.release("g", SimpleNamespace(clip=1.5, batch_size=10, steps=20), spec, noise=2.0).rate == 1.0
