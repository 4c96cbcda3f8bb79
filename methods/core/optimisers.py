"""Optimiser steps, weight averages, and the states of networks and optimisers, that the methods share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.adamw import adamw

from methods.core.speed.choices import CHOICES

BETAS = (0.5, 0.9)


def adam(
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    betas: tuple[float, float] = BETAS,
    weight_decay: float = 0.0,
) -> torch.optim.Adam:
    """Returns Adam in one pass over each tensor; betas (0.5, 0.9) are GS-WGAN's and DP-GAN-DPAC's for every network."""
    fused = CHOICES.fused_adam
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, betas=betas, weight_decay=weight_decay, fused=fused)
    if fused:
        optimizer.register_step_pre_hook(_lay_out_gradients)
    return optimizer


def _lay_out_gradients(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    # The kernel walks through memory: a gradient laid out otherwise would silently meet the wrong weights.
    for parameter in (each for group in optimizer.param_groups for each in group["params"]):
        if parameter.grad is not None and parameter.grad.stride() != parameter.stride():
            parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)


@torch.no_grad()
def adam_update(
    weights: Mapping[str, torch.Tensor],
    gradients: Sequence[torch.Tensor],
    first: Mapping[str, torch.Tensor],
    second: Mapping[str, torch.Tensor],
    *,
    updates: int,
    learning_rate: float,
    betas: tuple[float, float] = BETAS,
    decay: float = 0.0,
) -> None:
    """One step of Adam (epsilon 1e-8) in place, in one pass over each tensor; stacked networks share the call.

    Args:
        weights, first, second: contiguous tensors of equal names and shapes; the moments start at zero.
        gradients: of the weights, in their order.
        updates: steps taken before this one, by all networks alike.
        decay: share of each weight that is lost before the step.

    Raises:
        ValueError: a weight or a moment is not contiguous, or a moment has another shape than its weight.
    """
    # See `_lay_out_gradients`.
    if not all(value.is_contiguous() for kept in (weights, first, second) for value in kept.values()):
        raise ValueError("weights and moments must be contiguous")
    # Past the end of the shorter one, the kernel would write into what is not its own.
    if any(kept[name].shape != weight.shape for name, weight in weights.items() for kept in (first, second)):
        raise ValueError("a moment must have the shape of its weight")
    gradients = [gradient.contiguous() for gradient in gradients]
    # On the weights' device: the kernel reads them there.
    steps = [torch.full((), float(updates), device=weight.device) for weight in weights.values()]
    adamw(
        [value.detach() for value in weights.values()], gradients, [first[name] for name in weights],
        [second[name] for name in weights], [], steps, fused=CHOICES.fused_adam, amsgrad=False, beta1=betas[0],
        beta2=betas[1], lr=learning_rate, weight_decay=decay / learning_rate, eps=1e-8, maximize=False,
    )  # fmt: skip


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


def states(parts: Mapping[str, nn.Module | torch.optim.Optimizer]) -> dict[str, Any]:
    """Returns each part's state under its name, as plain dicts."""
    return {name: dict(part.state_dict()) for name, part in parts.items()}


def restore(parts: Mapping[str, nn.Module | torch.optim.Optimizer], stored: Mapping[str, Any]) -> None:
    """Puts back, in place, what `states` returned. Raises KeyError for a part that `stored` lacks."""
    for name, part in parts.items():
        part.load_state_dict(stored[name])
