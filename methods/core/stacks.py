"""Many networks of one architecture, stacked as tensors, so that several train together in a few large operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, vmap

from methods.core.optimisers import BETAS
from methods.core.written_gradients import Parts

_EPSILON = 1e-8
# How torch's parametrisation names what it keeps of a layer.
_RAW, _U, _V = (f".parametrizations.weight.{name}" for name in ("original", "0._u", "0._v"))
# Networks in work at a time: more do not run faster on a processor, and a GPU's memory bounds them.
_AT_ONCE = {"cpu": 16, "cuda": 128}
# Generators of a stack by convolutions in groups, or one by one, which a processor does faster.
_GROUPED = {"cpu": False, "cuda": True}


@dataclass
class Members:
    """M networks of one architecture: weights and Adam's state, [M, ...] each, and spectral norm's vectors.

    Attributes:
        network: the architecture without spectral norm; its own weights are not used.
        weights: as the optimiser sees them, before spectral norm.
        first, second, updates: Adam's moments and each network's number of updates [M].
        vectors: u [M, out] and v [M, in] of each weight that is divided by its largest singular value.
    """

    network: nn.Module
    weights: dict[str, torch.Tensor]
    first: dict[str, torch.Tensor]
    second: dict[str, torch.Tensor]
    updates: torch.Tensor
    vectors: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, networks: Sequence[nn.Module], plain: nn.Module) -> Members:
        """Returns the networks as a stack with a fresh Adam; `plain` is one of them built without spectral norm."""
        states = [network.state_dict() for network in networks]
        stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}
        weights = {name.replace(_RAW, ".weight"): value for name, value in stacked.items() if not _is_vector(name)}
        vectors = {
            name.removesuffix(_U) + ".weight": (value, stacked[name.removesuffix(_U) + _V])
            for name, value in stacked.items()
            if name.endswith(_U)
        }
        return cls._fresh(plain, weights, vectors)

    @classmethod
    def copies(cls, network: nn.Module, count: int) -> Members:
        """Returns `count` networks with the weights of `network`, which has no spectral norm, and a fresh Adam."""
        weights = {name: value.detach().repeat(count, *[1] * value.ndim) for name, value in network.named_parameters()}
        return cls._fresh(network, weights, {})

    @classmethod
    def _fresh(cls, network: nn.Module, weights: dict[str, torch.Tensor], vectors: dict[str, Any]) -> Members:
        first, second = ({name: torch.zeros_like(value) for name, value in weights.items()} for _ in range(2))
        one = next(iter(weights.values()))
        return cls(network, weights, first, second, torch.zeros(len(one), device=one.device), vectors)

    def effective(self, iterate: bool = False) -> dict[str, torch.Tensor]:
        """Returns the weights that the networks compute with; with `iterate`, after a power iteration of each norm."""
        weights = dict(self.weights)
        for name, pair in self.vectors.items():
            matrix = weights[name].flatten(2)
            if iterate:
                self.vectors[name] = pair = _power_iteration(matrix.detach(), *pair)
            norms = torch.einsum("mo,moi,mi->m", pair[0], matrix, pair[1])
            weights[name] = weights[name] / norms.view(-1, *[1] * (weights[name].ndim - 1))
        return weights

    def parts(self, iterate: bool = False) -> Parts:
        """Returns what the networks, critics or classifiers, are made of; `iterate` as `effective`'s."""
        return self.network.parts(self.effective(iterate).__getitem__)

    def generate(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns each generator's own images [M, N, C, H, W] of latents [M, N, 10] and labels int64 [M, N].

        Traced with respect to the weights where torch traces; each call iterates spectral norms once.
        """

        def one(weights: dict[str, torch.Tensor], latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return functional_call(self.network, weights, (latents, labels))

        weights = self.effective(iterate=True)
        if _GROUPED[latents.device.type]:
            return vmap(one)(weights, latents, labels)
        # Not by index, whose backward pass would fill a whole stack for each network.
        each = {name: value.unbind() for name, value in weights.items()}
        return torch.stack([
            one({name: parts[place] for name, parts in each.items()}, *inputs)
            for place, inputs in enumerate(zip(latents, labels, strict=True))
        ])  # fmt: skip

    def descend(self, make_loss: Callable[[Members], torch.Tensor], learning_rate: float) -> None:
        """One Adam step of each network down its own entry of the losses [M] that `make_loss` returns."""
        self._traced()
        # A network's weights are in its own summand alone, so the sum's gradient is each one's own.
        self._step(torch.autograd.grad(make_loss(self).sum(), list(self.weights.values())), learning_rate)

    def descend_along(
        self, make: Callable[[Members], tuple[torch.Tensor, torch.Tensor]], learning_rate: float
    ) -> None:
        """One Adam step of each network, from outputs [M, ...] that `make` returns and the loss's gradient at them."""
        self._traced()
        outputs, gradients = make(self)
        self._step(torch.autograd.grad(outputs, list(self.weights.values()), gradients), learning_rate)

    def repeated(self, count: int) -> Members:
        """Returns `count` copies of a single network, Adam's state included."""

        def repeat(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {name: value.detach().repeat(count, *[1] * (value.ndim - 1)) for name, value in values.items()}

        return Members(
            self.network, repeat(self.weights), repeat(self.first), repeat(self.second), self.updates.repeat(count)
        )

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Returns the networks' state dicts, stacked [M, ...], under the names that they have with spectral norm."""
        state = {
            name.removesuffix(".weight") + _RAW if name in self.vectors else name: value.detach()
            for name, value in self.weights.items()
        }
        for name, pair in self.vectors.items():
            layer = name.removesuffix(".weight")
            state |= dict(zip((layer + _U, layer + _V), pair, strict=True))
        return state

    def _traced(self) -> None:
        self.weights = {name: value.detach().requires_grad_() for name, value in self.weights.items()}

    @torch.no_grad()
    def _step(self, gradients: Sequence[torch.Tensor], learning_rate: float) -> None:
        self.updates = self.updates + 1
        step = learning_rate / (1 - BETAS[0] ** self.updates)
        unbias = (1 - BETAS[1] ** self.updates).rsqrt()
        # weight - step * first / (unbias * sqrt(second) + epsilon), in as few passes as may be.
        slopes, offsets = unbias / step, _EPSILON / step
        for (name, weight), gradient in zip(self.weights.items(), gradients, strict=True):
            one_each = (-1,) + (1,) * (gradient.ndim - 1)
            first = self.first[name].lerp_(gradient, 1 - BETAS[0])
            second = self.second[name].mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            divisor = torch.addcmul(offsets.view(one_each), second.sqrt(), slopes.view(one_each))
            self.weights[name] = torch.addcdiv(weight, first, divisor, value=-1)


def _is_vector(name: str) -> bool:
    return name.endswith((_U, _V))


def _power_iteration(matrix: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One iteration as torch's own spectral norm makes it, of matrices [M, out, in]."""
    u = F.normalize(torch.einsum("moi,mi->mo", matrix, v), dim=1, eps=1e-12)
    return u, F.normalize(torch.einsum("moi,mo->mi", matrix, u), dim=1, eps=1e-12)


class Stack:
    """N networks that start alike, each with its own Adam (betas as `optimisers.adam`).

    Args:
        build: makes the network, a critic or classifier; it may not keep buffers, as spectral norm does.
        count: N.
    """

    def __init__(self, build: Callable[[], nn.Module], count: int) -> None:
        self._network = build()
        start = Members.copies(self._network, count)
        self._all = {kind: getattr(start, kind) for kind in ("weights", "first", "second")}
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
