"""Many networks of one architecture, stacked as tensors, so that several train together in a few large operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, vmap

from methods.core.optimisers import BETAS
from methods.core.speed.choices import CHOICES
from methods.core.speed.transfers import sent
from methods.core.speed.written_gradients import Parts

_EPSILON = 1e-8
# How torch's parametrisation names what it keeps of a layer.
_RAW, _U, _V = (f".parametrizations.weight.{name}" for name in ("original", "0._u", "0._v"))
# Networks of a stack: more do not run faster on a processor, and leave more places empty.
_AT_ONCE = {"cpu": 4, "cuda": 16}
# Generators of a stack by convolutions in groups, or one by one, which a processor does faster.
_GROUPED = {"cpu": False, "cuda": True}


@dataclass
class NetworkBatch:
    """M networks of one architecture: weights and Adam's state, [M, ...] each, and spectral norm's vectors.

    It is what `sharded.interface.Networks` asks for.

    Attributes:
        network: the architecture without spectral norm; its own weights are not used.
        weights: as the optimiser sees them, before spectral norm.
        first, second, updates: Adam's moments and each network's number of updates [M].
        learning_rate: Adam's step size.
        vectors: u [M, out] and v [M, in] of each weight that is divided by its largest singular value.
    """

    network: nn.Module
    weights: dict[str, torch.Tensor]
    first: dict[str, torch.Tensor]
    second: dict[str, torch.Tensor]
    updates: torch.Tensor
    learning_rate: float
    vectors: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, networks: Sequence[nn.Module], plain: nn.Module, learning_rate: float) -> NetworkBatch:
        """Returns the networks as a stack with a fresh Adam; `plain` is one of them built without spectral norm."""
        states = [network.state_dict() for network in networks]
        stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}
        weights = {name.replace(_RAW, ".weight"): value for name, value in stacked.items() if not _is_vector(name)}
        vectors = {
            name.removesuffix(_U) + ".weight": (value, stacked[name.removesuffix(_U) + _V])
            for name, value in stacked.items()
            if name.endswith(_U)
        }
        return cls._fresh(plain, weights, learning_rate, vectors)

    @classmethod
    def copies(cls, network: nn.Module, count: int, learning_rate: float) -> NetworkBatch:
        """Returns `count` networks with the weights of `network`, which has no spectral norm, and a fresh Adam."""
        weights = {name: value.detach().repeat(count, *[1] * value.ndim) for name, value in network.named_parameters()}
        return cls._fresh(network, weights, learning_rate, {})

    @classmethod
    def _fresh(
        cls, network: nn.Module, weights: dict[str, torch.Tensor], learning_rate: float, vectors: dict[str, Any]
    ) -> NetworkBatch:
        first, second = ({name: torch.zeros_like(value) for name, value in weights.items()} for _ in range(2))
        weight = next(iter(weights.values()))
        updates = torch.zeros(len(weight), device=weight.device)
        return cls(network, weights, first, second, updates, learning_rate, vectors)

    @property
    def scorer(self) -> NetworkBatch:
        """What the losses take."""
        return self

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Returns values [...], the same for all networks, as [M, ...]."""
        return values.expand(len(self.updates), *values.shape)

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
        if CHOICES.stacks and _GROUPED[latents.device.type]:
            return vmap(self._call)(self.effective(iterate=True), latents, labels)
        networks = self.apart(iterate=True)
        return torch.stack([network(*inputs) for network, *inputs in zip(networks, latents, labels, strict=True)])

    def apart(self, iterate: bool = False) -> list[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]:
        """Returns each network as a function of its two inputs; `iterate` as `effective`'s."""
        # Not by index, whose backward pass would fill a whole stack for each network.
        parts = {name: value.unbind() for name, value in self.effective(iterate).items()}
        of_networks = [{name: values[place] for name, values in parts.items()} for place in range(len(self.updates))]
        return [partial(self._call, weights) for weights in of_networks]

    def _call(self, weights: dict[str, torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
        return functional_call(self.network, weights, inputs)

    def descend(self, make_loss: Callable[[NetworkBatch], torch.Tensor]) -> None:
        """One Adam step of each network down its own entry of the losses [M] that `make_loss` returns."""
        self._traced()
        # A network's weights are in its own summand alone, so the sum's gradient holds each network's.
        self._step(torch.autograd.grad(make_loss(self).sum(), list(self.weights.values())))

    def descend_along(self, make: Callable[[NetworkBatch], tuple[torch.Tensor, torch.Tensor]]) -> None:
        """One Adam step of each network, from outputs [M, ...] that `make` returns and the loss's gradient at them."""
        self._traced()
        outputs, gradients = make(self)
        self._step(torch.autograd.grad(outputs, list(self.weights.values()), gradients))

    def repeated(self, count: int) -> NetworkBatch:
        """Returns `count` copies of a single network, Adam's state included."""

        def repeat(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {name: value.detach().repeat(count, *[1] * (value.ndim - 1)) for name, value in values.items()}

        return NetworkBatch(
            self.network, repeat(self.weights), repeat(self.first), repeat(self.second), self.updates.repeat(count),
            self.learning_rate,
        )  # fmt: skip

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
    def _step(self, gradients: Sequence[torch.Tensor]) -> None:
        self.updates = self.updates + 1
        step = self.learning_rate / (1 - BETAS[0] ** self.updates)
        unbias = (1 - BETAS[1] ** self.updates).rsqrt()
        # weight - step * first / (unbias * sqrt(second) + epsilon), in as few passes as may be.
        slopes, offsets = unbias / step, _EPSILON / step
        for (name, weight), gradient in zip(self.weights.items(), gradients, strict=True):
            per_network = (-1,) + (1,) * (gradient.ndim - 1)
            first = self.first[name].lerp_(gradient, 1 - BETAS[0])
            second = self.second[name].mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            divisor = torch.addcmul(offsets.view(per_network), second.sqrt(), slopes.view(per_network))
            self.weights[name] = torch.addcdiv(weight, first, divisor, value=-1)


def _is_vector(name: str) -> bool:
    return name.endswith((_U, _V))


def _power_iteration(matrix: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One iteration as torch's own spectral norm makes it, of matrices [M, out, in]."""
    u = F.normalize(torch.einsum("moi,mi->mo", matrix, v), dim=1, eps=1e-12)
    return u, F.normalize(torch.einsum("moi,mo->mi", matrix, u), dim=1, eps=1e-12)


class NetworkStore:
    """N networks that start alike, each with its own Adam (betas as `optimisers.adam`).

    Args:
        build: makes the network, a critic or classifier; it may not keep buffers, as spectral norm does.
        count: N.
        learning_rate: Adam's step size.
    """

    def __init__(self, build: Callable[[], nn.Module], count: int, learning_rate: float) -> None:
        self._network, self._learning_rate = build(), learning_rate
        start = NetworkBatch.copies(self._network, count, learning_rate)
        self._all = {kind: getattr(start, kind) for kind in ("weights", "first", "second")}
        self._updates = start.updates

    def take(self, which: torch.Tensor) -> NetworkBatch:
        """Returns copies of the networks `which` int64 [M]."""
        parts = ({name: value[which] for name, value in values.items()} for values in self._all.values())
        return NetworkBatch(self._network, *parts, self._updates[which], self._learning_rate)

    def put(self, which: torch.Tensor, networks: NetworkBatch, places: torch.Tensor | None = None) -> None:
        """Stores `networks` as the networks `which` int64 [M]; `places` int64 [M]: of more of them, those there."""
        chosen = slice(None) if places is None else places
        for kind, values in self._all.items():
            for name, value in values.items():
                value[which] = getattr(networks, kind)[name].detach()[chosen]
        self._updates[which] = networks.updates[chosen]

    def state(self) -> dict[str, Any]:
        """Returns all weights and Adam states, for a checkpoint."""
        return {**self._all, "updates": self._updates}

    def load(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned."""
        self._all = {kind: dict(state[kind]) for kind in self._all}
        self._updates = state["updates"]


class Stack(NamedTuple):
    """Which of N networks work together.

    Attributes:
        numbers: int64 [S], the network at each place.
        places: int64 [n], n from 1 to S: those of distinct networks. At the others one of these works as well, to fill
            the stack up, and what becomes of it is let go.
    """

    numbers: torch.Tensor
    places: torch.Tensor

    def to(self, device: torch.device) -> Stack:
        """Returns the same on a device."""
        return Stack(*(sent(part, device) for part in self))


class StackedStore:
    """N networks as a NetworkStore's, which takes the same arguments; taken by the stacks of `at_once`."""

    def __init__(self, build: Callable[[], nn.Module], count: int, learning_rate: float) -> None:
        self._networks = NetworkStore(build, count, learning_rate)

    def take(self, stack: Stack) -> NetworkBatch:
        """Returns copies of the stack's networks, one for each place."""
        return self._networks.take(stack.numbers)

    def put(self, stack: Stack, networks: NetworkBatch) -> None:
        """Stores the networks at the stack's places that count."""
        self._networks.put(stack.numbers[stack.places], networks, stack.places)

    def state(self) -> dict[str, Any]:
        """Returns all weights and Adam states, for a checkpoint."""
        return self._networks.state()

    def load(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned."""
        self._networks.load(state)


def at_once(which: torch.Tensor, device: torch.device) -> Iterator[Stack]:
    """Yields the networks `which` int64 [M], distinct, in stacks that suit the device; none where there are none.

    All stacks have one size S, and network i stands at place i mod S: the last bits of what a network computes follow
    from size and place, and learning makes much of last bits. So they do not follow from which others are there.
    """
    size = _AT_ONCE[device.type]
    waiting = [which[which % size == place].tolist() for place in range(size)]
    while any(waiting):
        places = [place for place in range(size) if waiting[place]]
        taken = torch.tensor([waiting[place].pop(0) for place in places])
        numbers = taken[:1].repeat(size)
        numbers[places] = taken
        yield Stack(numbers, torch.tensor(places))
