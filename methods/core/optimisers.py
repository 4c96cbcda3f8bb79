"""Optimiser steps and weight averages that the methods share."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

BETAS = (0.5, 0.9)


def adam(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Adam:
    """Returns Adam with betas (0.5, 0.9), the choice of GS-WGAN and DP-GAN-DPAC for every network."""
    return torch.optim.Adam(parameters, lr=learning_rate, betas=BETAS, foreach=True)


def descend(loss: torch.Tensor, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """One optimiser step of `network` down a scalar loss, which leaves no gradient in the networks it runs through."""
    parameters = list(network.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    optimizer.step()


@torch.no_grad()
def blend(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Moves the parameters of `average` towards those of `network`, of which they take the share 1 - decay."""
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, step: int, decay: float) -> None:
    """Moves `average` towards `network` with decay min(1 - 1 / (step + 1), decay); step counts from 1.

    Buffers (spectral norm's vectors) are copied: they are directions, whose mean is none.
    """
    blend(average, network, min(1 - 1 / (step + 1), decay))
    for kept, value in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(value)
