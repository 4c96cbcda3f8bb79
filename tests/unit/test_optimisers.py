"""The stacked Adam step is Adam's, whatever the layout of a gradient."""

import pytest
import torch

from methods.core.optimisers import adam_update


def stepped(gradients, **settings):
    """Returns the weights after one update per gradient [5, 3], by `adam_update`."""
    weights, first, second = ({"w": value} for value in (start(), torch.zeros(5, 3), torch.zeros(5, 3)))
    for number, gradient in enumerate(gradients):
        adam_update(weights, [gradient], first, second, updates=number, learning_rate=0.1, **settings)
    return weights["w"]


def start():
    return torch.linspace(-1, 1, 15).view(5, 3)


def some_gradients():
    draws = torch.Generator().manual_seed(0)
    return [torch.randn(5, 3, generator=draws) for _ in range(4)]


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
