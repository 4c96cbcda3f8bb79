"""Several shards answer a step together: each is drawn on its own, trains its networks, and adds one row to a sum.

A record sits in one shard, so it can move one row alone, and a shard's networks remember its own draws only: the case
that the sound count of a Poisson "sum" covers with hidden state. The drawn shards' networks run as one stack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from methods.core.privacy import Grant
from methods.core.private_data import PrivateData
from methods.core.stacks import Members, Stack
from methods.core.wasserstein import critic_loss, image_gradients, score_loss

# Fakes of each class that a step makes; every critic update of the step picks from them.
FAKES_PER_CLASS = 16


@dataclass(frozen=True)
class Visits:
    """What one step may do with some of the shards that it drew: read them under its grant, with its own draws.

    `records` int64 [M, size] are the shards' records; `fakes` [classes * FAKES_PER_CLASS, C, H, W] are current fakes
    whose labels are 0 .. classes - 1, again and again. `shared` is what the step made once for all its shards.
    """

    shards: torch.Tensor
    records: torch.Tensor
    data: PrivateData
    grant: Grant
    stream: torch.Generator
    fakes: torch.Tensor
    num_classes: int
    shared: Any = None

    def read(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns `size` distinct random records of each shard, or all it has: [M, B, C, H, W] and labels [M, B]."""
        order = torch.rand(self.records.shape, generator=self.stream).argsort(dim=1)[:, :size]
        images, labels = self.data.read(self.grant, self.records.gather(1, order).flatten())
        images = images.to(self.fakes.device).float() / 255
        return images.view(*order.shape, *images.shape[1:]), labels.to(self.fakes.device).view(order.shape)

    def fakes_like(self, labels: torch.Tensor) -> torch.Tensor:
        """Returns random fakes [M, B, C, H, W] of the labels [M, B]."""
        turn = torch.randint(FAKES_PER_CLASS, labels.shape, generator=self.stream).to(labels.device)
        return self.fakes[turn * self.num_classes + labels]


class ShardCritics:
    """One critic for each shard, trained whenever its shard is drawn."""

    def __init__(self, hp: Any, build: Callable[[], nn.Module]) -> None:
        self._hp = hp
        self._stack = Stack(build, hp.num_shards)

    def gradients(self, visits: Visits, fakes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Trains the drawn shards' critics and returns each one's gradients [M, B, C, H, W] at fakes [B, C, H, W]."""
        hp = self._hp
        critics = self._stack.take(visits.shards)
        for _ in range(hp.critic_steps):
            real, own = visits.read(hp.critic_batch)
            fake = visits.fakes_like(own)
            share = torch.rand(*own.shape, 1, 1, 1, generator=visits.stream).to(real.device)

            def loss(critic: Members, real=real, fake=fake, own=own, share=share) -> torch.Tensor:
                return critic_loss(critic, real, fake, own, share, hp.gradient_penalty, hp.drift, hp.precision)

            critics.descend(loss, hp.critic_learning_rate)
        self._stack.put(visits.shards, critics)
        return image_gradients(critics, fakes, labels, hp.precision)

    def state(self) -> dict[str, Any]:
        """Returns all critics, for a checkpoint."""
        return self._stack.state()

    def load(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned."""
        self._stack.load(state)


def teach(classifiers: Members, images: torch.Tensor, labels: torch.Tensor, hp: Any) -> None:
    """One update of each auxiliary classifier on its own images [M, B, C, H, W] with labels [M, B]."""
    classifiers.descend(
        lambda scorer: score_loss(scorer, images, labels, hp.gradient_penalty, hp.drift, hp.precision),
        hp.critic_learning_rate,
    )
