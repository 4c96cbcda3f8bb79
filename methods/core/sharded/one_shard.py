"""The papers' mechanism: one drawn shard answers each step, one noisy gradient for each generated image.

Source: GS-WGAN source/main.py, rewritten. Its critics remember which shard was drawn, so the sound count reveals every
draw (docs/privacy.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from methods.core.optimisers import adam
from methods.core.privacy.grant import Grant
from methods.core.privacy.private_data import PrivateData
from methods.core.release import Release
from methods.core.sharded.interface import RELEASE, Mechanism, Players
from methods.core.sharded.pretraining import pretrained
from methods.core.speed.choices import CHOICES
from methods.core.speed.transfers import sent


class OneShard(Mechanism):
    """Draws one shard of K, trains its networks, and noises the gradient of every image apart."""

    @classmethod
    def check(cls, hp: Any) -> None:
        """Every setting will do."""

    @classmethod
    def release(cls, hp: Any, noise: float) -> Release:
        """One row for each image; the rows of a step share its draw."""
        return Release(
            name=RELEASE, kind="gaussian", clip=hp.clip, noise=noise, bounded="function", rows=hp.batch_size,
            rate=1 / hp.num_shards, sampling="one_shard_of_k", max_uses=hp.steps, draws="per_step", state="hidden",
        )  # fmt: skip

    def networks(self, build: Callable[[], nn.Module], warm_start: Path | None = None) -> ShardNetworks:
        return ShardNetworks(build, self.hp.critic_learning_rate, warm_start)

    def new(self, build: Callable[[], nn.Module]) -> Network:
        module = build()
        return Network(module, adam(module.parameters(), self.hp.critic_learning_rate))

    def answer(
        self, players: Players, t: int, size: int, data: PrivateData, grant: Grant, rng: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        step = OneShardStep(grant.shard(), self.shards, data, grant, rng, self.device, players)
        critic = players.train_critics(step)
        labels = players.uniform_labels(size, rng)
        fakes = players.generate(labels, rng)
        step.shared = players.public_phase(t, step.release, rng)
        gradients = players.shard_gradients(t, critic, fakes, labels, step)
        return fakes, grant.rows(gradients.flatten(1)).view(-1, *fakes.shape).sum(0)


@dataclass
class OneShardStep:
    """What one step may do with the shard that it drew; see `interface.ShardStep`."""

    shards: int
    records: torch.Tensor
    data: PrivateData
    grant: Grant
    rng: torch.Generator
    device: torch.device
    players: Players
    shared: Any = None

    @property
    def release(self) -> str:
        """The name of the release that the step charges."""
        return self.grant.release.name

    def read(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns `size` distinct random records of the shard, or all it has: [B, C, H, W] in [0, 1], labels [B]."""
        records = self.records[self.shards]
        images, labels = self.data.read(self.grant, records[torch.randperm(len(records), generator=self.rng)[:size]])
        return sent(images, self.device).float() / 255, sent(labels, self.device)

    def critic_batches(self, steps: int, size: int) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yields records, fakes of the same labels, labels, and uniform shares [B, 1, 1, 1], for each critic update."""
        batches = [self.read(size) for _ in range(steps)]
        for (images, labels), fakes in zip(batches, self._fakes([labels for _, labels in batches]), strict=True):
            share = sent(torch.rand(len(images), 1, 1, 1, generator=self.rng), images.device)
            yield images, fakes, labels, share

    def _fakes(self, labels: list[torch.Tensor]) -> list[torch.Tensor]:
        if not CHOICES.fakes_at_once:
            # The generator's spectral norms iterate once, however many passes there are.
            with parametrize.cached():
                return [self.players.fakes_for(part, self.rng) for part in labels]
        # The generator does not move in between, so one pass makes the fakes of all updates.
        return self.players.fakes_for(torch.cat(labels), self.rng).split([len(part) for part in labels])

    def copies(self, networks: Network) -> Network:
        """Returns the network itself: no other shard needs it."""
        return networks


@dataclass
class Network:
    """One network with its optimiser; see `interface.Networks`."""

    scorer: nn.Module
    optimizer: torch.optim.Optimizer

    def descend(self, make_loss: Callable[[nn.Module], torch.Tensor]) -> None:
        """One optimiser step down the loss."""
        loss = make_loss(self.scorer)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Returns the values as they are."""
        return values


class ShardNetworks:
    """One network and Adam state per shard, held as plain tensors; only shards ever used take memory.

    All share one module: `take` fills it with a shard's state, `put` takes the state back. A shard starts from the
    warm-start file if there is one, else from the module's initial weights, which are the same for all shards.
    """

    def __init__(self, build: Callable[[], nn.Module], learning_rate: float, warm_start: Path | None = None) -> None:
        self._module = build()
        self._learning_rate = learning_rate
        self._initial = _clone(self._module.state_dict())
        self._warm_start = warm_start
        self._states: dict[int, dict[str, Any]] = {}

    def take(self, shard: int) -> Network:
        """Returns the shared module and an optimiser, both in the state of `shard`, in training mode."""
        state = self._states.get(shard)
        self._module.load_state_dict(state["network"] if state else self._start(shard))
        optimizer = adam(self._module.parameters(), self._learning_rate)
        if state:
            optimizer.load_state_dict(state["optimizer"])
        return Network(self._module.train(), optimizer)

    def put(self, shard: int, network: Network) -> None:
        """Stores the shared module's state as that of `shard`."""
        self._states[shard] = {
            "network": _clone(self._module.state_dict()),
            "optimizer": network.optimizer.state_dict(),
        }

    def state(self) -> dict[str, Any]:
        """Returns the states of all shards used so far, for a checkpoint."""
        return {str(shard): state for shard, state in self._states.items()}

    def load(self, states: dict[str, Any]) -> None:
        """Restores what `state` returned."""
        self._states = {int(shard): state for shard, state in states.items()}

    def _start(self, shard: int) -> dict[str, torch.Tensor]:
        if self._warm_start is None:
            return self._initial
        device = next(self._module.parameters()).device
        return {name: sent(value, device) for name, value in pretrained(self._warm_start, shard).items()}


def _clone(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
