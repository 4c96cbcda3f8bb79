"""Stacked teachers: each is a function of its own records, trains as it would alone, and in chunks of any size."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from methods.core.accounting import data_dependent
from methods.core.partition import partition
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import Budget
from methods.core.rng import named_rng, seeded
from methods.core.teachers.ensemble import Teachers
from methods.core.teachers.nets import DISCRIMINATORS, Generator

SHAPE, CLASSES, RECORDS, TEACHERS, BATCH = (1, 28, 28), 10, 20, 5, 3
PARTS = partition(RECORDS, TEACHERS, 0)


def records(changed: int | None = None) -> PrivateData:
    rng = named_rng(0, "records")
    images = torch.randint(256, (RECORDS, *SHAPE), generator=rng).to(torch.uint8)
    labels = torch.randint(CLASSES, (RECORDS,), generator=rng)
    if changed is not None:
        images[changed], labels[changed] = 255 - images[changed], (labels[changed] + 1) % CLASSES
    return PrivateData(images, labels)


def network(kind: str) -> torch.nn.Module:
    return DISCRIMINATORS[kind](SHAPE, CLASSES, hidden=6, channels=4)


def teachers(kind: str, chunk: int | None = None) -> Teachers:
    return Teachers(lambda: network(kind), PARTS, CLASSES, 1e-2, 0, torch.device("cpu"), chunk=chunk)


def public_batch(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = named_rng(number, "fakes")
    labels = torch.randint(CLASSES, (4,), generator=rng)
    return torch.rand(4, *SHAPE, generator=rng), F.one_hot(labels, CLASSES).float()


def train(made: Teachers, data: PrivateData, folder: Path, steps: int = 3) -> Teachers:
    path = folder / f"{len(list(folder.iterdir()))}.jsonl"
    with Ledger.open(path, (), Budget(math.inf, 1e-5, "none")) as ledger:
        for i in range(steps):
            with ledger.internal("teacher training") as grant:
                made.train(data, [grant], [public_batch(i)], BATCH)
    return made


@pytest.mark.parametrize("kind", sorted(DISCRIMINATORS))
def test_a_record_moves_its_own_teacher_and_no_other(kind: str, tmp_path: Path) -> None:
    record = 7
    ((owner,),) = [(record == PARTS).any(dim=1).nonzero().flatten().tolist()]
    others = [i for i in range(TEACHERS) if i != owner]
    one, other = (train(teachers(kind), records(changed), tmp_path).state() for changed in (None, record))
    for part in ("weights", "first", "second"):
        pairs = [(one[part][name], other[part][name]) for name in one[part]]
        assert all(torch.equal(a[others], b[others]) for a, b in pairs)
        assert any(not torch.equal(a[owner], b[owner]) for a, b in pairs)


def test_each_record_has_at_most_one_teacher_and_each_is_read(tmp_path: Path) -> None:
    seen: list[int] = []

    class Recorder:
        def read(self, grant, index):
            seen.extend(index.flatten().tolist())
            return records().read(grant, index)

    train(teachers("mlp"), Recorder(), tmp_path, steps=4)
    # Four steps of three go three times round a part of four.
    assert sorted(seen) == sorted(PARTS.flatten().tolist() * 3)
    assert len(set(PARTS.flatten().tolist())) == PARTS.numel()


# Of batch norm's gradients too many are near zero, of which Adam makes whole steps: see the gradients below.
@pytest.mark.parametrize("kind", sorted(set(DISCRIMINATORS) - {"conv_norm"}))
@pytest.mark.parametrize("chunk", [1, 2, 5, None])
def test_stacked_training_equals_one_by_one(kind: str, chunk: int | None, tmp_path: Path) -> None:
    stacked = teachers(kind, chunk)
    start = copy.deepcopy(stacked.state()["weights"])
    train(stacked, records(), tmp_path)
    for teacher in range(TEACHERS):
        alone = trained_alone(kind, {name: value[teacher] for name, value in start.items()}, teacher, tmp_path)
        for name, value in alone.items():
            torch.testing.assert_close(stacked.state()["weights"][name][teacher], value, atol=2e-4, rtol=1e-3)


def trained_alone(kind: str, start: dict, teacher: int, folder: Path) -> dict[str, torch.Tensor]:
    net = network(kind)
    net.load_state_dict(start)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2, betas=(0.5, 0.999))
    with Ledger.open(folder / f"alone{teacher}.jsonl", (), Budget(math.inf, 1e-5, "none")) as ledger:
        for i in range(3):
            with ledger.internal("reference") as grant:
                index = PARTS[teacher][(torch.arange(BATCH) + i * BATCH) % PARTS.shape[1]]
                images, labels = records().read(grant, index)
            real = net(images.float() / 255, F.one_hot(labels, CLASSES).float())
            fake = net(*public_batch(i))
            optimizer.zero_grad()
            (F.softplus(-real).mean() + F.softplus(fake).mean()).backward()
            optimizer.step()
    return net.state_dict()


@pytest.mark.parametrize("kind", sorted(DISCRIMINATORS))
@pytest.mark.parametrize("chunk", [1, 2, None])
def test_image_gradients_are_each_teachers_own(kind: str, chunk: int | None) -> None:
    stacked, (images, labels) = teachers(kind, chunk), public_batch(0)
    lent = torch.cat(list(stacked.gradients(images, labels)))
    assert stacked.logits(images, labels).shape == (TEACHERS, len(images))
    for teacher in range(TEACHERS):
        net = network(kind)
        net.load_state_dict({name: value[teacher] for name, value in stacked.state()["weights"].items()})
        own = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.softplus(-net(own, labels)).mean(), own)
        torch.testing.assert_close(lent[teacher], -gradient.flatten(1), atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(stacked.logits(images, labels)[teacher], net(images, labels), atol=1e-5, rtol=1e-4)


def test_teachers_start_apart_and_from_the_seed() -> None:
    one, again = teachers("mlp").state()["weights"], teachers("mlp").state()["weights"]
    assert all(torch.equal(one[name], again[name]) for name in one)
    weight = one["hidden.weight"]
    assert not torch.equal(weight[0], weight[1])
    assert float(weight.std()) == pytest.approx(0.02, rel=0.05)


def test_the_generator_makes_each_image_from_its_own_inputs() -> None:
    for shape, classes in ((SHAPE, CLASSES), ((3, 32, 32), 2)):
        with seeded(0, "generator"):
            generator = Generator(shape, classes, width=4, latent=3)
        latents, labels = torch.rand(6, 3), F.one_hot(torch.arange(6) % classes, classes).float()
        assert generator(latents, labels).shape == (6, *shape)
        generator.eval()
        whole = generator(latents, labels)
        torch.testing.assert_close(whole[:2], generator(latents[:2], labels[:2]))
        assert whole.min() >= 0 and whole.max() <= 1


# ---------------------------------------------------------------- the data-dependent bound


def test_the_bound_is_never_negative_and_never_above_the_worst_case() -> None:
    for noise in (0.3, 2.0, 20.0, 500.0):
        for log_q in [-math.inf, -1e5, -300.0, -20.0, -5.0, -2.0, -0.7, -1e-9, 0.0, 1.0]:
            for cost, worst in (
                (data_dependent.laplace_cost, data_dependent.laplace_rdp),
                (data_dependent.gaussian_cost, data_dependent.gaussian_rdp),
            ):
                each = cost(torch.tensor([log_q]), noise)
                assert torch.isfinite(each).all()
                assert (each >= 0).all() and (each <= worst(noise)).all()
                torch.testing.assert_close(cost(torch.full((3,), log_q), noise), 3 * each)


def test_a_sure_vote_is_cheap_and_a_close_one_costs_the_worst_case() -> None:
    sure, close = torch.tensor([-200.0]), torch.tensor([math.log(0.5)])
    some = data_dependent.ORDERS.sub(8).abs().argmin()
    for cost, worst in (
        (data_dependent.laplace_cost, data_dependent.laplace_rdp),
        (data_dependent.gaussian_cost, data_dependent.gaussian_rdp),
    ):
        assert cost(sure, 5.0)[some] < 1e-3 * worst(5.0)[some]
        assert torch.equal(cost(close, 5.0), worst(5.0))


def test_the_bounds_agree_with_a_calculation_by_hand() -> None:
    order = int((data_dependent.ORDERS == 4).nonzero())
    # Laplace, eps0 = 1/4, q = 1e-3: log((1 - q) ((1 - q) / (1 - e^eps0 q))^3 + q e^(3 eps0)) / 3.
    q, eps0 = 1e-3, 0.25
    by_hand = math.log((1 - q) * ((1 - q) / (1 - math.exp(eps0) * q)) ** 3 + q * math.exp(3 * eps0)) / 3
    assert float(data_dependent.laplace_cost(torch.tensor([math.log(q)]), 4.0)[order]) == pytest.approx(by_hand)
    # Gaussian counts, sigma = 40 (multiplier 40 / sqrt 2), q = 1e-12.
    q, sigma = 1e-12, 40.0
    mu2 = sigma * math.sqrt(-math.log(q))
    mu1 = mu2 + 1
    eps1, eps2 = mu1 / sigma**2, mu2 / sigma**2
    a = (1 - q) / (1 - (q * math.exp(eps2)) ** ((mu2 - 1) / mu2))
    b = math.exp(eps1) / q ** (1 / (mu1 - 1))
    by_hand = math.log((1 - q) * a**3 + q * b**3) / 3
    cost = data_dependent.gaussian_cost(torch.tensor([math.log(q)]), sigma / math.sqrt(2))
    assert float(cost[order]) == pytest.approx(by_hand, rel=1e-4, abs=1e-15)


def test_doubt_bounds_the_chance_of_another_answer() -> None:
    rng = torch.Generator().manual_seed(0)
    cases = (
        ([60.0, 30.0, 10.0], 50.0),
        ([60.0, 30.0, 10.0], -90.0),
        ([40.0, 35.0, 25.0], 90.0),
        ([55.0, 45.0, 0.0], 50.0),
    )
    for counts, threshold in cases:
        noisy = torch.tensor(counts) + 12 * torch.randn(100_000, 3, generator=rng)
        top, winner = noisy.max(dim=1)
        answers = torch.where(top >= threshold, winner, 3)
        chance = 1 - float(answers.bincount(minlength=4).max()) / len(answers)
        doubt = math.exp(float(data_dependent.log_doubt_of_winner(torch.tensor([counts]), 12.0, threshold)))
        assert chance <= doubt * 1.02 + 0.002
        assert doubt <= 2.5 * chance + 0.01
    noisy = 3 + 4 * torch.distributions.Laplace(0.0, 1.0).sample((100_000,))
    doubt = math.exp(float(data_dependent.log_doubt_of_sign(torch.tensor([3.0]), 4.0)))
    assert float((noisy < 0).float().mean()) == pytest.approx(doubt, abs=0.01)


def test_the_data_dependent_epsilon_of_the_worst_case_is_that_of_its_accountant() -> None:
    # 1,600 Gaussian answers at multiplier 20: the exact curve (mu = 2) gives 9.997, Renyi DP a little more.
    total = 1600 * data_dependent.gaussian_rdp(20.0)
    assert 8 < data_dependent.epsilon(total, 1e-5) < 12
