"""Adam steps of one network and of a stack are the textbook's, whatever the layout of a gradient."""

import pytest
import torch

from methods.core.optimisers import adam, adam_update


def stepped(gradients, **settings):
    """Returns the weights after one update per gradient [5, 3], by `adam_update`."""
    weights, first, second = ({"w": value} for value in (start(), torch.zeros(5, 3), torch.zeros(5, 3)))
    for number, gradient in enumerate(gradients):
        adam_update(weights, [gradient], first, second, updates=number, learning_rate=0.1, **settings)
    return weights["w"]


def start():
    return torch.linspace(-1, 1, 15).view(5, 3)


def some_gradients():
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(5, 3, generator=rng) for _ in range(4)]


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_it_steps_as_torchs_adam_after_a_share_of_the_weights_is_lost(decay):
    weight = torch.nn.Parameter(start())
    optimizer = torch.optim.Adam([weight], lr=0.1, betas=(0.5, 0.999))
    for gradient in some_gradients():
        weight.data.mul_(1 - decay)
        weight.grad = gradient
        optimizer.step()
    torch.testing.assert_close(stepped(some_gradients(), betas=(0.5, 0.999), decay=decay), weight.detach())


def test_a_gradient_laid_out_otherwise_meets_its_own_weights():
    transposed = [gradient.T.contiguous().T for gradient in some_gradients()]
    assert not transposed[0].is_contiguous()
    assert torch.equal(stepped(transposed), stepped(some_gradients()))


def test_weights_laid_out_otherwise_are_refused():
    zeros, weight = torch.zeros(5, 3), start().T.contiguous().T
    with pytest.raises(ValueError, match="contiguous"):
        adam_update({"w": weight}, [zeros], {"w": zeros}, {"w": zeros}, updates=0, learning_rate=0.1)


def test_moments_of_fewer_networks_than_there_are_weights_are_refused_and_not_run_over():
    weights, fewer, whole = (torch.ones(count, 3) for count in (4, 2, 4))
    for first, second in ((fewer, whole), (whole, fewer)):
        with pytest.raises(ValueError, match="shape of its weight"):
            adam_update({"w": weights}, [weights], {"w": first}, {"w": second}, updates=0, learning_rate=0.1)
    assert (weights == 1).all()


@pytest.mark.parametrize("laid_out", [torch.contiguous_format, torch.channels_last])
def test_adam_meets_gradients_of_any_layout(laid_out):
    def after(layout, make):
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 24).view(2, 3, 2, 2).to(memory_format=laid_out))
        optimizer = make([weight])
        rng = torch.Generator().manual_seed(0)
        for _ in range(3):
            weight.grad = torch.randn(2, 3, 2, 2, generator=rng).to(memory_format=layout)
            optimizer.step()
        return weight.detach()

    expected = after(laid_out, lambda weights: torch.optim.Adam(weights, lr=0.1, betas=(0.5, 0.9), foreach=False))
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.testing.assert_close(after(layout, lambda weights: adam(weights, 0.1)), expected)
