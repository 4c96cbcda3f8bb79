"""The networks have the papers' sizes, shapes and normalisations."""

from __future__ import annotations

import pytest
import torch

from methods.core.sharded.nets import Classifier, Critic, DCGANGenerator, ResNetGenerator, draw_latents
from methods.core.speed.choices import CHOICES
from methods.core.speed.pixel_norm import pixel_norm

MNIST, FACES = ((1, 28, 28), 10), ((3, 32, 32), 2)


def parameters(net: torch.nn.Module) -> int:
    return sum(value.numel() for value in net.parameters())


@pytest.mark.parametrize(
    ("build", "data", "expected"),
    [
        (ResNetGenerator, MNIST, 3_826_177), (ResNetGenerator, FACES, 3_798_019),
        (Critic, MNIST, 1_071_105), (Critic, FACES, 1_041_537),
        (Classifier, MNIST, 1_067_018), (Classifier, FACES, 1_037_442),
    ],
)  # fmt: skip
def test_parameter_counts_at_full_width_are_the_papers(build, data, expected):
    assert parameters(build(*data, width=64)) == expected


@pytest.mark.parametrize("build", [ResNetGenerator, DCGANGenerator])
@pytest.mark.parametrize(("shape", "classes"), [MNIST, FACES])
def test_generators_make_images_between_0_and_1_of_the_data_sets_shape(build, shape, classes):
    rng = torch.Generator().manual_seed(0)
    images = build(shape, classes, width=4)(draw_latents(6, rng), torch.arange(6) % classes)
    assert images.shape == (6, *shape)
    assert images.min() >= 0 and images.max() <= 1


@pytest.mark.parametrize(("shape", "classes"), [MNIST, FACES])
def test_generators_depend_on_the_label(shape, classes):
    for build in (ResNetGenerator, DCGANGenerator):
        net, latents = build(shape, classes, width=4), torch.zeros(2, 10)
        first, second = net(latents, torch.tensor([0, 1]))
        assert not torch.equal(first, second)


def test_pixel_norm_gives_unit_mean_square_over_channels():
    x = torch.randn(3, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(pixel_norm(x).square().mean(dim=1), torch.ones(3, 4, 4), atol=1e-4)


def test_pixel_norms_gradient_is_autograds_also_in_a_stack():
    x = torch.randn(2, 5, 3, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    for layout in (torch.contiguous_format, torch.channels_last):
        assert torch.autograd.gradcheck(pixel_norm, (x.to(memory_format=layout).requires_grad_(),))
    torch.testing.assert_close(pixel_norm(x), pixel_norm(x.to(memory_format=torch.channels_last)))
    stack = torch.randn(4, 2, 5, 3, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)
    ways = [torch.vmap(pixel_norm)(stack), torch.stack([pixel_norm(part) for part in stack])]
    torch.testing.assert_close(*ways)
    torch.testing.assert_close(*(torch.autograd.grad(way.square().sum() + way.sum(), stack)[0] for way in ways))


@pytest.mark.parametrize(("shape", "classes"), [MNIST, FACES])
@pytest.mark.parametrize("build", [ResNetGenerator, DCGANGenerator])
def test_layers_with_fewer_products_make_the_same_images(build, shape, classes):
    net = build(shape, classes, width=4).eval()
    latents, labels = draw_latents(6, torch.Generator().manual_seed(0)), torch.arange(6) % classes
    images = net(latents, labels)
    with CHOICES.changed(folded_upsampling=False, by_places=False):
        plain = net(latents, labels)
    torch.testing.assert_close(images, plain)
    assert not torch.equal(images, plain)
    assert images.std() > 0


def test_latents_are_fair_bits():
    bits = draw_latents(4000, torch.Generator().manual_seed(0))
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    assert abs(bits.mean().item() - 0.5) < 0.02


def test_classifier_score_is_the_labels_logit_minus_the_mean_of_the_others():
    net = Classifier((1, 28, 28), 10, width=2)
    net.eval()
    images, labels = torch.rand(4, 1, 28, 28), torch.tensor([0, 3, 9, 3])
    logits = net.linear(net.trunk(images))
    for row, label in enumerate(labels):
        others = [logits[row, k] for k in range(10) if k != label]
        assert torch.allclose(net(images, labels)[row], logits[row, label] - sum(others) / 9, atol=1e-6)


def test_spectral_norm_bounds_every_layer_of_the_critic():
    net = Critic((1, 28, 28), 10, width=4)
    for _ in range(50):
        net(torch.zeros(1, 1, 28, 28), torch.zeros(1, dtype=torch.long))
    net.eval()
    for layer in (net.trunk[0], net.trunk[2], net.trunk[4], net.linear, net.embedding):
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2).item() == pytest.approx(1, abs=0.02)
