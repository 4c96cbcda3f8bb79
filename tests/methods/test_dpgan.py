"""DPGAN: when its generator steps, what one record can move, and what must not depend on a private batch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from toys import without_noise

from methods.core import registry
from methods.core.method import Context
from methods.core.privacy.grant import Grant
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import Budget, PublicSpec
from methods.core.rng import named_rng
from methods.dpgan import DPGAN
from workflow.common.errors import UserError

FREE = Budget(math.inf, 1e-5, "none")
PUBLIC = PublicSpec("toy", (1, 28, 28), 10, 60)
# With its learning rate at zero the discriminator stays what it is, whatever the data are.
FROZEN = {"learning_rate": 0.0}


def records(seed: int = 0, shape: tuple[int, int, int] = (1, 28, 28)) -> PrivateData:
    rng = named_rng(seed, "records")
    images = torch.randint(256, (60, *shape), generator=rng).to(torch.uint8)
    return PrivateData(images, torch.randint(10, (60,), generator=rng))


def build(budget: Budget = FREE, public: PublicSpec = PUBLIC, **overrides: object) -> DPGAN:
    hp = registry.hyper("dpgan", {"steps": 4, "batch_size": 6, "dim": 2, "latent": 3, **overrides})
    return DPGAN(hp, Context(public, DPGAN.plan(hp, public, budget), 0, torch.device("cpu")))


def judged(method: DPGAN, score: float) -> DPGAN:
    """Sets the discriminator's last bias so high or low that every image gets the verdict `score`."""
    private = copy.deepcopy(method.private_state())
    last = [key for key in private["discriminator"] if key.endswith("bias")][-1]
    private["discriminator"][last].fill_(score)
    method.load(method.public_state(), private)
    return method


def logs(method: DPGAN, folder: Path, first: int = 0, last: int | None = None, seed: int = 0) -> list[dict[str, float]]:
    """Runs steps first .. last - 1 and returns their logs; the ledger continues where `first` is not 0."""
    releases = method.context.releases
    with Ledger.open(folder / "ledger.jsonl", releases, FREE, resume=first > 0, noise_key=b"0") as ledger:
        return [method.step(t, records(seed), ledger) for t in range(first, last or method.num_steps)]


def rates(found: list[dict[str, float]]) -> list[float]:
    return [log["discriminator_steps"] for log in found if log]


def test_fakes_that_pass_raise_the_discriminator_steps(tmp_path: Path) -> None:
    fooled = judged(build(steps=16, patience=2, **FROZEN), 50.0)
    found = logs(fooled, tmp_path)
    # Two generator steps at each of 1, 2 and 5 discriminator steps, one more step left over.
    assert [t + 1 for t, log in enumerate(found) if log] == [1, 2, 4, 6, 11, 16]
    assert rates(found) == [1, 2, 2, 5, 5, 10]


def test_fakes_that_are_told_apart_raise_nothing_and_lower_nothing(tmp_path: Path) -> None:
    sharp = judged(build(steps=6, patience=1, **FROZEN), -50.0)
    assert rates(logs(sharp, tmp_path / "sharp")) == [1] * 6
    # A threshold of nothing: the first fake told apart ends the raises.
    method = judged(build(steps=18, patience=1, threshold=0.0, **FROZEN), 50.0)
    assert rates(logs(method, tmp_path / "flips", 0, 3)) == [2, 5]
    assert rates(logs(judged(method, -50.0), tmp_path / "flips", 3)) == [5] * 3


def test_a_constant_number_of_discriminator_steps_is_kept(tmp_path: Path) -> None:
    found = logs(judged(build(steps=7, generator_every=3, patience=1, **FROZEN), 50.0), tmp_path)
    assert [t + 1 for t, log in enumerate(found) if log] == [3, 6]


def test_a_resumed_run_keeps_the_adaptive_state(tmp_path: Path) -> None:
    settings = {"steps": 16, "patience": 2, **FROZEN}
    straight = logs(judged(build(**settings), 50.0), tmp_path / "straight")
    for at in (4, 9):
        method = judged(build(**settings), 50.0)
        found = logs(method, tmp_path / f"{at}", 0, at)
        stored = copy.deepcopy((method.public_state(), method.private_state()))
        resumed = build(**settings)
        resumed.load(*stored)
        assert found + logs(resumed, tmp_path / f"{at}", at) == straight


def test_the_generator_and_its_rule_are_blind_to_the_private_batch(tmp_path: Path) -> None:
    settings = {"steps": 6, "patience": 2, "threshold": 1.0, **FROZEN}
    one, other = build(**settings), build(**settings)
    assert logs(one, tmp_path / "a", seed=0) == logs(other, tmp_path / "b", seed=1)
    before = build(**settings).public_state()
    assert all(torch.equal(value, other.public_state()[key]) for key, value in one.public_state().items())
    assert any(not torch.equal(value, before[key]) for key, value in one.public_state().items())


class Without:
    """Stands in for PrivateData and leaves one record out of every batch; a batch without it stays as it is."""

    def __init__(self, data: PrivateData, record: int | None) -> None:
        self.data, self.record = data, record

    def __len__(self) -> int:
        return len(self.data)

    def read(self, grant: Grant, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.data.read(grant, index if self.record is None else index[index != self.record])


def test_a_step_reads_the_batch_that_its_grant_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(Grant, "poisson_batch", lambda self, count: torch.tensor([5, count - 1]))
    monkeypatch.setattr(PrivateData, "read", _noting(PrivateData.read, read))
    logs(build(steps=1), tmp_path)
    assert read == [[5, 59]]


@pytest.mark.parametrize("fakes", [0, 3000])
def test_fakes_have_uniform_labels(fakes: int) -> None:
    method = build(public=PublicSpec("toy", (1, 28, 28), 10, 2000), batch_size=2000, fakes=fakes)
    counts = method._fakes(named_rng(0, "draws"))[:, -10:].sum(0)
    expected = (fakes or 2000) / 10
    assert counts.sum() == 10 * expected and (counts - expected).abs().max() < 5 * (0.9 * expected) ** 0.5


def _noting(whole: Callable, seen: list[list[int]]) -> Callable:
    def read(self: PrivateData, grant: Grant, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(index.tolist())
        return whole(self, grant, index)

    return read


# Convolutions of width 2 take their norms from whole gradients, the third of width 16 from Gram matrices.
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("dim", "shape"), [(2, (1, 28, 28)), (16, (1, 28, 28)), (16, (3, 32, 32)), (3, (3, 64, 64))])
def test_one_record_moves_the_discriminator_by_at_most_the_declared_sensitivity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dim: int, shape: tuple[int, int, int], precision: str
) -> None:
    without_noise(monkeypatch)
    budget = Budget(10.0, 1e-5, "sound")
    states = []
    for name, record in (("all", None), ("less", 59)):
        settings = {"steps": 1, "batch_size": 60, "clip": 0.01, "dim": dim, "fakes": 6, "precision": precision}
        method = build(budget, PublicSpec("toy", shape, 10, 60), **settings)
        # The last of several parts holds the record that goes.
        method._private._chunk = 7
        # A plain step of rate 1 moves by the sum over the expected 60 records and 60 fakes.
        method._private._optimizer.original_optimizer = torch.optim.SGD(method._discriminator.parameters(), lr=1.0)
        with Ledger.open(tmp_path / name / "ledger.jsonl", method.context.releases, budget) as ledger:
            method.step(0, Without(records(shape=shape), record), ledger)
        states.append(torch.cat([value.flatten() for value in method.private_state()["discriminator"].values()]))
    (release,) = method.context.releases
    # A gradient this large always meets its clip.
    assert float((states[0] - states[1]).norm()) * 120 == pytest.approx(release.sensitivity, rel=1e-3)


def test_few_fakes_count_as_a_whole_batch(tmp_path: Path) -> None:
    moved = []
    for name, repeats, weight in (("few", 1, 5.0), ("many", 5, 1.0)):
        method = build(steps=1)
        fakes = functional.pad(torch.rand(3, 28 * 28 + 10, generator=named_rng(0, "fakes")), (0, 1)).repeat(repeats, 1)
        sgd = torch.optim.SGD(method._discriminator.parameters(), lr=1.0)
        method._private._optimizer.original_optimizer = sgd
        with (
            Ledger.open(tmp_path / name, method.context.releases, FREE) as ledger,
            ledger.charge("discriminator_gradient") as grant,
        ):
            method._private.step(grant, method._losses, fakes[:0], fakes, weight)
        moved.append(torch.cat([value.flatten() for value in method.private_state()["discriminator"].values()]))
    torch.testing.assert_close(*moved)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_the_label_maps_equal_the_full_size_convolution(shape: tuple[int, int, int]) -> None:
    network = build(public=PublicSpec("toy", shape, 10, 60))._discriminator
    images, one_hot = torch.rand(5, *shape), torch.eye(10)[:5]
    maps = one_hot[:, :, None, None].expand(-1, -1, *shape[1:])
    full = network.layers(torch.cat([network.image(images), network.label(maps)], dim=1))
    torch.testing.assert_close(network(images, one_hot), full)


def test_the_published_networks_have_the_published_size() -> None:
    method = build(dim=128, latent=128)
    sizes = [sum(p.numel() for p in network.parameters()) for network in (method._generator, method._discriminator)]
    assert [round(size / 1e6, 2) for size in sizes] == [2.27, 1.72]


@pytest.mark.parametrize(
    ("field", "value"), [("dim", 1), ("latent", 0), ("generator_every", -1), ("patience", 0), ("threshold", 1.5)]
)
def test_a_setting_out_of_range_is_refused(field: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"{field}.*{value}"):
        build(**{field: value})


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UserError, match=r"precision.*fp16.*bf16"):
        build(precision="fp16")


def test_half_precision_changes_a_score_and_its_gradient_by_little() -> None:
    found = []
    for precision in ("fp32", "bf16"):
        method = build(dim=16, unit_gain=True, precision=precision)
        scores = method._score(method._discriminator, method._fakes(named_rng(0, "draws")))
        found.append(torch.cat([part.flatten() for part in torch.autograd.grad(
            functional.softplus(-scores).mean(), list(method._generator.parameters())
        )]))  # fmt: skip
    assert found[1].dtype == torch.float32 and not torch.equal(*found)
    assert float(torch.cosine_similarity(*found, dim=0)) > 0.99


def test_another_image_size_is_refused() -> None:
    with pytest.raises(UserError, match=r"28x28.*64x64, toy has 48x48"):
        build(public=PublicSpec("toy", (3, 48, 48), 2, 60))


@pytest.mark.parametrize("fakes", [0, 3])
def test_fakes_weigh_as_much_as_a_batch_of_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fakes: int
) -> None:
    method, seen = build(fakes=fakes), []
    monkeypatch.setattr(method._private, "step", lambda grant, losses, reals, rows, weight: seen.append((rows, weight)))
    logs(method, tmp_path, last=1)
    ((rows, weight),) = seen
    assert len(rows) * weight == pytest.approx(method.hp.batch_size) and (rows[:, -1] == 0).all()
