"""Many networks of one architecture, stacked as tensors, so that several train together in a few large operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from methods.core.optimisers import BETAS
from methods.core.written_gradients import Parts

_EPSILON = 1e-8
# Networks in work at a time: more do not run faster on a processor, and a GPU's memory bounds them.
_AT_ONCE = {"cpu": 16, "cuda": 128}


@dataclass
class Members:
    """Some networks taken out of a stack, or copied from one network: weights and Adam's state, [M, ...] each."""

    network: nn.Module
    weights: dict[str, torch.Tensor]
    first: dict[str, torch.Tensor]
    second: dict[str, torch.Tensor]
    updates: torch.Tensor

    @classmethod
    def copies(cls, network: nn.Module, count: int) -> Members:
        """Returns `count` equal networks with the weights of `network` [1, ...] and a fresh Adam."""
        weights = {name: value.detach().expand(count, *value.shape) for name, value in network.named_parameters()}
        zeros = {name: torch.zeros_like(value) for name, value in weights.items()}
        updates = torch.zeros(count, device=next(iter(weights.values())).device)
        return cls(network, weights, zeros, {name: value.clone() for name, value in zeros.items()}, updates)

    def parts(self) -> Parts:
        """Returns what the networks, critics or classifiers, are made of."""
        return self.network.parts(self.weights.__getitem__)

    def descend(self, make_loss: Callable[[Members], torch.Tensor], learning_rate: float) -> None:
        """One Adam step of each network down its own entry of the losses [M] that `make_loss` returns."""
        self.weights = {name: value.detach().requires_grad_() for name, value in self.weights.items()}
        # A network's weights are in its own summand alone, so the sum's gradient is each one's own.
        gradients = torch.autograd.grad(make_loss(self).sum(), list(self.weights.values()))
        self.updates = self.updates + 1
        with torch.no_grad():
            for name, gradient in zip(list(self.weights), gradients, strict=True):
                self._adam(name, gradient, learning_rate)

    def repeated(self, count: int) -> Members:
        """Returns `count` copies of a single network, Adam's state included."""

        def repeat(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {name: value.detach().repeat(count, *[1] * (value.ndim - 1)) for name, value in values.items()}

        return Members(
            self.network, repeat(self.weights), repeat(self.first), repeat(self.second), self.updates.repeat(count)
        )

    def _adam(self, name: str, gradient: torch.Tensor, learning_rate: float) -> None:
        one_each = (-1,) + (1,) * (gradient.ndim - 1)
        first = self.first[name].lerp(gradient, 1 - BETAS[0])
        second = self.second[name].mul(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        unbiased = (second / (1 - BETAS[1] ** self.updates).view(one_each)).sqrt_().add_(_EPSILON)
        step = learning_rate / (1 - BETAS[0] ** self.updates).view(one_each)
        self.weights[name] = self.weights[name] - step * first / unbiased
        self.first[name], self.second[name] = first, second


class Stack:
    """N networks that start alike, each with its own Adam (betas as `optimisers.adam`).

    Args:
        build: makes the network, a critic or classifier; it may not keep buffers, as spectral norm does.
        count: N.
    """

    def __init__(self, build: Callable[[], nn.Module], count: int) -> None:
        self._network = build()
        start = Members.copies(self._network, count)
        self._all = {
            kind: {name: value.clone() for name, value in getattr(start, kind).items()}
            for kind in ("weights", "first", "second")
        }
        self._updates = start.updates

    def take(self, which: torch.Tensor) -> Members:
        """Returns copies of the networks `which` int64 [M]."""
        parts = ({name: value[which] for name, value in values.items()} for values in self._all.values())
        return Members(self._network, *parts, self._updates[which])

    def put(self, which: torch.Tensor, members: Members) -> None:
        """Stores `members` as the networks `which` int64 [M]."""
        for kind, values in self._all.items():
            for name, value in values.items():
                value[which] = getattr(members, kind)[name].detach()
        self._updates[which] = members.updates

    def state(self) -> dict[str, Any]:
        """Returns all weights and Adam states, for a checkpoint."""
        return {**self._all, "updates": self._updates}

    def load(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned."""
        self._all = {kind: dict(state[kind]) for kind in self._all}
        self._updates = state["updates"]


def at_once(which: torch.Tensor, device: torch.device) -> Iterator[torch.Tensor]:
    """Yields the parts of `which` int64 [M] that fit in work together; none for an empty one."""
    if len(which):
        yield from which.to(device).split(_AT_ONCE[device.type])
