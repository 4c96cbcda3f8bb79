"""Gradients written out by hand are those that autograd traces through the networks' own forward passes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from methods.core.sharded.losses import critic_loss, image_gradients, score_loss
from methods.core.sharded.nets import Classifier, Critic
from methods.core.sharded.stacks import NetworkBatch
from methods.core.speed import written_gradients
from methods.core.speed.choices import CHOICES
from methods.core.speed.written_gradients import Terms

PENALTY, DRIFT = 10.0, 0.01
DATA = {"grey": ((1, 28, 28), 10), "faces": ((3, 32, 32), 2)}


def build(kind, data: str, spectral: bool = False, seed: int = 5, width: int = 6) -> nn.Module:
    torch.manual_seed(seed)
    network = kind(*DATA[data], width, spectral)
    if spectral:
        for _ in range(20):
            network(torch.zeros(1, *DATA[data][0]), torch.zeros(1, dtype=torch.long))
    return network


def batch(data: str, size: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    (shape, classes) = DATA[data]
    real, fake = (torch.rand(size, *shape, generator=rng) for _ in range(2))
    return real, fake, torch.randint(classes, (size,), generator=rng), torch.rand(size, 1, 1, 1, generator=rng)


def traced_penalty(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network(images, labels).sum(), images, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def traced_critic_loss(network: nn.Module, real, fake, labels, share) -> torch.Tensor:
    on_real = network(real, labels)
    wasserstein = network(fake, labels).mean() - on_real.mean() + DRIFT * on_real.square().mean()
    return wasserstein + PENALTY * traced_penalty(network, share * real + (1 - share) * fake, labels)


def traced_score_loss(network: nn.Module, images, labels) -> torch.Tensor:
    scores = network(images, labels)
    return DRIFT * scores.square().mean() - scores.mean() + PENALTY * traced_penalty(network, images, labels)


def gradients(loss: torch.Tensor, network: nn.Module) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(network.parameters())))


def assert_same(ours: list[torch.Tensor], traced: list[torch.Tensor], tolerance: float = 1e-3) -> None:
    for written, expected in zip(ours, traced, strict=True):
        assert expected.norm() > 0
        assert (written - expected).norm() <= tolerance * expected.norm()


# From 32 channels below a layer on, a processor takes another product for its gradient.
@pytest.mark.parametrize("width", [6, 16])
@pytest.mark.parametrize("data", DATA)
def test_a_critics_loss_and_gradient(data, width):
    network, inputs = build(Critic, data, width=width), batch(data)
    loss, traced = critic_loss(network, *inputs, PENALTY, DRIFT, "fp32"), traced_critic_loss(network, *inputs)
    torch.testing.assert_close(loss, traced)
    assert_same(gradients(loss, network), gradients(traced, network))


@pytest.mark.parametrize(("wide", "many"), [(0, 0), (1000, 0), (1000, 10**9)])
@pytest.mark.parametrize("data", DATA)
def test_every_form_of_a_layer_that_some_device_takes_gives_that_gradient(data, wide, many, monkeypatch):
    monkeypatch.setattr(written_gradients, "_WIDE", wide)
    monkeypatch.setattr(written_gradients, "_MANY", many)
    network, inputs = build(Critic, data), batch(data)
    loss, traced = critic_loss(network, *inputs, PENALTY, DRIFT, "fp32"), traced_critic_loss(network, *inputs)
    assert_same(gradients(loss, network), gradients(traced, network))


@pytest.mark.parametrize(("size", "folded"), [(8, False), (48, True)])
def test_a_layers_kernel_is_folded_for_many_places_alone(size, folded, monkeypatch):
    """The second layer of 48 grey images has 9,408 places below it; the first one's kernel is folded whatever they are.

    A gradient by the images passes through the second and the third layer, whose 7x7 places are fewer than 8,192.
    """
    kernels, fold = [], written_gradients._folded_kernel
    monkeypatch.setattr(written_gradients, "_folded_kernel", lambda kernel: kernels.append(kernel) or fold(kernel))
    (images, _, labels, _) = batch("grey", size)
    image_gradients(build(Critic, "grey"), images, labels, "fp32")
    assert [kernel.shape[1] for kernel in kernels] == ([1, 6] if folded else [1])


def test_images_that_are_neither_scored_nor_penalised_are_refused():
    network, (real, _, labels, _) = build(Critic, "grey"), batch("grey")
    terms = Terms(torch.ones(2), 1, 2, DRIFT, PENALTY)
    parts = network.parts(lambda name: network.get_parameter(name)[None])
    with pytest.raises(ValueError, match="5 images, of which 2 are scored and 2 penalised"):
        written_gradients.loss(parts, real[None], labels[None], terms, torch.float32)


@pytest.mark.parametrize("data", DATA)
def test_a_classifiers_loss_and_gradient(data):
    network, (images, _, labels, _) = build(Classifier, data), batch(data)
    loss = score_loss(network, images, labels, PENALTY, DRIFT, "fp32")
    traced = traced_score_loss(network, images, labels)
    torch.testing.assert_close(loss, traced)
    assert_same(gradients(loss, network), gradients(traced, network))


def test_spectral_norm_is_part_of_the_gradient_and_iterates_once_an_update():
    network, inputs = build(Critic, "grey", spectral=True), batch("grey")
    vectors = {name: value.clone() for name, value in network.named_buffers()}
    network.eval()
    traced = gradients(traced_critic_loss(network, *inputs), network)
    assert_same(gradients(critic_loss(network, *inputs, PENALTY, DRIFT, "fp32"), network), traced)
    assert all(torch.equal(vectors[name], value) for name, value in network.named_buffers())
    other = build(Critic, "grey", spectral=True)
    for net in (network.train(), other):
        net.trunk[0].parametrizations.weight[0]._u.fill_(0.4)
    critic_loss(network, *inputs, PENALTY, DRIFT, "fp32")
    other.trunk[0].weight  # noqa: B018  each reading iterates
    assert torch.equal(network.trunk[0].parametrizations.weight[0]._u, other.trunk[0].parametrizations.weight[0]._u)


@pytest.mark.parametrize("kind", [Critic, Classifier])
@pytest.mark.parametrize("data", DATA)
def test_image_gradients_descend_minus_the_score(kind, data):
    network, (images, _, labels, _) = build(kind, data), batch(data)
    fakes = images.clone().requires_grad_()
    (traced,) = torch.autograd.grad(-network(fakes, labels).sum(), fakes)
    torch.testing.assert_close(image_gradients(network, images, labels, "fp32"), traced, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("written", [True, False])
def test_image_gradients_iterate_no_spectral_norm(written):
    network, (images, _, labels, _) = build(Critic, "grey", spectral=True), batch("grey")
    for layer in (network.trunk[0], network.embedding):
        layer.parametrizations.weight[0]._u.fill_(0.4)
    vectors = {name: value.clone() for name, value in network.named_buffers()}
    with CHOICES.changed(written_gradients=written):
        image_gradients(network, images, labels, "fp32")
    assert network.training
    assert all(torch.equal(vectors[name], value) for name, value in network.named_buffers())


@pytest.mark.parametrize("data", DATA)
def test_each_network_of_a_batch_takes_its_own_gradient(data):
    networks = [build(Critic, data, seed=seed) for seed in (5, 6, 7)]
    together = NetworkBatch.of(networks, networks[0], 1e-3)
    for weight in together.weights.values():
        weight.requires_grad_()
    inputs = [torch.stack([part + place * part / 7 for place in range(3)]) for part in batch(data)]
    inputs[2] = batch(data)[2].expand(3, -1)
    losses = critic_loss(together, *inputs, PENALTY, DRIFT, "fp32")
    ours = torch.autograd.grad(losses.sum(), list(together.weights.values()))
    for place, network in enumerate(networks):
        traced = traced_critic_loss(network, *(part[place] for part in inputs))
        torch.testing.assert_close(losses[place], traced)
        assert_same([part[place] for part in ours], gradients(traced, network))
    fakes, labels = inputs[1][0], inputs[2][0]
    of_all = image_gradients(together, fakes, labels, "fp32")
    for place, network in enumerate(networks):
        torch.testing.assert_close(of_all[place], image_gradients(network, fakes, labels, "fp32"), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("width", [6, 16])
def test_bf16_is_as_near_single_precision_as_autocast_is(width):
    network, inputs = build(Critic, "grey", width=width), batch("grey", 16)
    exact = gradients(traced_critic_loss(network, *inputs), network)
    with torch.autocast("cpu", torch.bfloat16):
        traced = traced_critic_loss(network, *inputs)
    ours, theirs = (
        torch.stack([(half - full).norm() for half, full in zip(gradients(loss, network), exact, strict=True)]).sum()
        for loss in (critic_loss(network, *inputs, PENALTY, DRIFT, "bf16"), traced)
    )
    assert 0 < ours < 1.5 * theirs


def test_an_image_without_gradient_pulls_nowhere():
    network, inputs = build(Critic, "grey"), batch("grey")
    with torch.no_grad():
        network.trunk[0].weight.zero_()
    assert all(part.isfinite().all() for part in gradients(critic_loss(network, *inputs, 10.0, 0.0, "fp32"), network))


def test_updates_lower_the_loss():
    network, (real, fake, labels, share) = build(Critic, "grey"), batch("grey")
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    before = critic_loss(network, real, fake, labels, share, PENALTY, DRIFT, "fp32").item()
    for _ in range(20):
        loss = critic_loss(network, real, fake, labels, share, PENALTY, DRIFT, "fp32")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert critic_loss(network, real, fake, labels, share, PENALTY, DRIFT, "fp32").item() < before - 0.1
