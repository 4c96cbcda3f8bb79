"""A stack of networks does what as many networks and optimisers, one by one, would do."""

from __future__ import annotations

import math

import pytest
import torch

from methods.core.optimisers import adam
from methods.core.sharded.losses import critic_loss, image_gradients, score_loss
from methods.core.sharded.nets import Classifier, Critic
from methods.core.sharded.stacks import NetworkBatch, NetworkStore, StackedStore, at_once
from methods.core.speed.choices import CHOICES

SHAPE, CLASSES, RATE = (1, 28, 28), 10, 1e-3


def build(kind=Critic) -> torch.nn.Module:
    torch.manual_seed(5)
    return kind(SHAPE, CLASSES, 2, spectral=False)


def batch(networks: int, size: int = 4, seed: int = 0) -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(seed)
    real, fake = (torch.rand(networks, size, *SHAPE, generator=rng) for _ in range(2))
    labels = torch.randint(CLASSES, (networks, size), generator=rng)
    return real, fake, labels, torch.rand(networks, size, 1, 1, 1, generator=rng)


def alone(network: torch.nn.Module, updates: list[tuple[torch.Tensor, ...]], which: int) -> torch.nn.Module:
    """Trains one network by torch's own optimiser on its part of the batches."""
    optimizer = adam(network.parameters(), RATE)
    for real, fake, labels, share in updates:
        loss = critic_loss(network, real[which], fake[which], labels[which], share[which], 10.0, 0.001, "fp32")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def store(count: int) -> NetworkStore:
    return NetworkStore(build, count, RATE)


def together(networks: NetworkBatch, updates: list[tuple[torch.Tensor, ...]]) -> None:
    for update in updates:
        networks.descend(lambda critic, update=update: critic_loss(critic, *update, 10.0, 0.001, "fp32"))


def test_a_batch_trains_as_networks_one_by_one_do():
    updates = [batch(3, seed=seed) for seed in range(3)]
    stored = store(5)
    which = torch.tensor([4, 0, 2])
    networks = stored.take(which)
    together(networks, updates)
    for place in range(3):
        straight = alone(build(), updates, place)
        for name, value in straight.named_parameters():
            torch.testing.assert_close(networks.weights[name][place], value, rtol=1e-4, atol=1e-6)


def test_networks_continue_where_they_were_put_back_and_others_stay():
    first, second = batch(2, seed=1), batch(2, seed=2)
    stored, which = store(4), torch.tensor([1, 3])
    for update in (first, second):
        networks = stored.take(which)
        together(networks, [update])
        stored.put(which, networks)
    straight = alone(build(), [first, second], 1)
    weights = stored.take(torch.arange(4)).weights
    for name, value in straight.named_parameters():
        torch.testing.assert_close(weights[name][3], value, rtol=1e-4, atol=1e-6)
        assert torch.equal(weights[name][0], dict(build().named_parameters())[name])


def test_gradients_are_each_networks_own():
    stored, update = store(2), batch(2)
    networks = stored.take(torch.arange(2))
    together(networks, [update])
    real, _, labels, _ = update
    gradients = image_gradients(networks, real, labels, "fp32")
    for place in range(2):
        expected = image_gradients(alone(build(), [update], place), real[place], labels[place], "fp32")
        torch.testing.assert_close(gradients[place], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("off", [(), ("written_gradients",), ("stacks",)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e38])
@pytest.mark.parametrize("width", [8, 5])
def test_a_network_gone_wild_reaches_its_own_row_alone(width, value, precision, off):
    """One record may spoil its shard's networks; were its neighbours in the stack to move, so would their rows."""
    real, fake, labels, share = batch(16)
    rows = []
    for spoilt in (False, True):
        networks = NetworkStore(lambda: Critic(SHAPE, CLASSES, width, spectral=False), 16, RATE).take(torch.arange(16))
        networks.weights = {name: torch.full_like(value, 0.01) for name, value in networks.weights.items()}
        if spoilt:
            for weight in networks.weights.values():
                weight[5] = value
        with CHOICES.changed(**dict.fromkeys(off, False)):
            networks.descend(lambda critic: critic_loss(critic, real, fake, labels, share, 10.0, 0.001, precision))
            rows.append(image_gradients(networks, fake, labels, precision).flatten(1))
    before, after = (torch.cat([part[:5], part[6:]]) for part in rows)
    assert before.isfinite().all() and before.abs().sum() > 0
    assert torch.equal(before, after)
    assert not torch.equal(rows[0][5], rows[1][5])


def test_copies_of_one_trained_network_go_on_apart():
    images, _, labels, _ = batch(1)
    single = NetworkBatch.copies(build(Classifier), 1, RATE)
    single.descend(lambda scorer: score_loss(scorer, images, labels, 10.0, 0.001, "fp32"))
    pair = single.repeated(2)
    assert pair.updates.tolist() == [1, 1]
    other, _, classes, _ = batch(2, seed=3)
    pair.descend(lambda scorer: score_loss(scorer, other, classes, 10.0, 0.001, "fp32"))
    name = "trunk.0.weight"
    assert not torch.equal(pair.weights[name][0], pair.weights[name][1])
    assert torch.equal(single.weights[name], single.repeated(1).weights[name])


def test_a_stack_is_restored_from_its_state():
    stored, which = store(3), torch.tensor([2])
    networks = stored.take(which)
    together(networks, [batch(1)])
    stored.put(which, networks)
    other = store(3)
    other.load(stored.state())
    for restored, kept in ((other.take(which), stored.take(which)),):
        assert torch.equal(restored.updates, kept.updates)
        for kind in ("weights", "first", "second"):
            for name, value in getattr(kept, kind).items():
                assert torch.equal(getattr(restored, kind)[name], value)


@pytest.mark.parametrize("which", [[], [0], [3, 4, 7, 8], list(range(0, 40, 3)), list(range(40))])
def test_stacks_cover_everything_once_and_each_network_has_its_place(which):
    made = list(at_once(torch.tensor(which, dtype=torch.int64), torch.device("cpu")))
    assert sorted(number for one in made for number in one.numbers[one.places].tolist()) == which
    (size,) = {len(one.numbers) for one in made} or {0}
    for one in made:
        assert one.places.tolist() == [number % size for number in one.numbers[one.places].tolist()]
        # What fills a stack up is in it already, so that no other's records are read.
        assert set(one.numbers.tolist()) == set(one.numbers[one.places].tolist())


def test_of_a_stack_what_fills_it_up_is_let_go():
    stored = StackedStore(lambda: Critic(SHAPE, CLASSES, 8, spectral=False), 6, RATE)
    (stack,) = at_once(torch.tensor([1, 4]), torch.device("cpu"))
    networks = stored.take(stack)
    networks.updates = torch.arange(1.0, 1 + len(stack.numbers))
    networks.weights = {name: value + networks.updates.view(-1, *[1] * (value.ndim - 1))
                        for name, value in networks.weights.items()}  # fmt: skip
    before = {name: value.clone() for name, value in stored.state()["weights"].items()}
    stored.put(stack, networks)
    # Shard 4 stands at the first place, shard 1 at the second one.
    assert stored.state()["updates"].tolist() == [0, 2, 0, 0, 1, 0]
    for name, value in stored.state()["weights"].items():
        torch.testing.assert_close((value - before[name]).flatten(1).mean(1), torch.tensor([0.0, 2, 0, 0, 1, 0]))
