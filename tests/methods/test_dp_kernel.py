"""Why Table 5 says that no epsilon is proved for DP-Kernel: the gradient that trains its generator sees no noise.

A small form of the mechanism after its description (Jiang, Sun and Yu, "Functional Rényi Differential Privacy for
Generative Modeling", NeurIPS 2023) and the released code: the mean embeddings of records and of generated images are
read at all of them, Gaussian noise with the kernel as its covariance is added to these values, and the squared MMD of
the noisy values is back-propagated through the kernel.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

NOISES = (0.6, 1.95, 8.0)
SCALES = (1.0, 2.0, 4.0)


def kernel(points: Tensor) -> Tensor:
    """Returns the sum of Gaussian kernels float64 [N, N] of points [N, D]."""
    return sum(torch.exp(-torch.cdist(points, points) ** 2 / (2 * scale**2)) for scale in SCALES)


def gradient(records: Tensor, generated: Tensor, noise: float, seed: int = 0) -> tuple[float, Tensor]:
    """Returns the loss of one step and its gradient [M, D] by the generated points."""
    generated = generated.clone().requires_grad_()
    among = kernel(torch.cat([records, generated]))
    count = len(records)
    values = torch.cat([among[:count, :count].mean(0), among[:count, count:].mean(0)])
    if noise:
        spread = math.sqrt(2 * len(SCALES)) / count * noise
        law = torch.distributions.MultivariateNormal(torch.zeros_like(values), among.detach() * spread)
        torch.manual_seed(seed)
        values = values + law.sample()
    loss = values[:count].mean() - 2 * values[count:].mean() + among[count:, count:].mean()
    loss.backward()
    return loss.item(), generated.grad


def cosine(one: Tensor, other: Tensor) -> float:
    return torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0).item()


@pytest.fixture(scope="module")
def points() -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(5)
    sizes = (40, 12), (24, 12)
    records, generated = (torch.randn(size, generator=draws, dtype=torch.float64) for size in sizes)
    return records, generated + 0.5


@pytest.mark.parametrize("noise", NOISES)
def test_the_gradient_is_the_one_without_noise_though_the_loss_is_not(points, noise):
    clean, expected = gradient(*points, noise=0.0)
    losses = set()
    for seed in range(5):
        loss, found = gradient(*points, noise=noise, seed=seed)
        losses.add(loss)
        assert f"{cosine(found, expected):.4f}" == "1.0000" and torch.allclose(found, expected, rtol=1e-12)
    assert len(losses) == 5 and max(abs(loss - clean) for loss in losses) > 0.005 * noise


@pytest.mark.parametrize("noise", NOISES)
def test_so_two_sets_that_differ_in_one_record_are_told_apart_with_certainty(points, noise):
    records, generated = points
    neighbour = records.clone()
    neighbour[0] = -neighbour[0]
    first, second = (gradient(records, generated, noise, seed)[1] for seed in (1, 2))
    other = gradient(neighbour, generated, noise, seed=3)[1]
    assert (first - second).abs().max() < 1e-12 < 1e-6 < (first - other).abs().max()


def test_noise_that_did_reach_the_gradient_would_show(points):
    """The measure can fail: the same noise, added to the gradient as a sound mechanism does, turns it."""
    _, expected = gradient(*points, noise=0.0)
    clipped = expected / expected.norm()
    found = clipped + NOISES[0] * torch.randn(clipped.shape, generator=torch.Generator().manual_seed(1)).double()
    assert cosine(found, expected) < 0.5
