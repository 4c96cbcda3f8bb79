"""The optimiser and the weight average that GS-WGAN and DP-GAN-DPAC share."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def adam(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Adam:
    """Returns Adam with betas (0.5, 0.9), both papers' choice for every network."""
    return torch.optim.Adam(parameters, lr=learning_rate, betas=(0.5, 0.9), foreach=True)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, step: int, decay: float) -> None:
    """Moves `average` towards `network` with decay min(1 - 1 / (step + 1), decay); step counts from 1.

    Buffers (spectral norm's vectors) are copied: they are directions, whose mean is none.
    """
    decay = min(1 - 1 / (step + 1), decay)
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)
    for kept, value in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(value)
