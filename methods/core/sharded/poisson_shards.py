"""The sound mechanism: shards are drawn each on its own, and the sum of their gradients is clipped and noised once.

A record sits in one shard, so it can move one row alone, and a shard's networks remember its own draws only: the case
that the sound count of a Poisson "sum" covers with hidden state (docs/privacy.md). The drawn shards' networks train in
stacks in which each has its own place, so that nothing of a row follows from which other shards are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from methods.core.privacy.grant import Grant
from methods.core.privacy.private_data import PrivateData
from methods.core.release import Release
from methods.core.rng import named_rng
from methods.core.sharded.interface import RELEASE, Mechanism, Players
from methods.core.sharded.stacks import NetworkBatch, Stack, StackedStore, at_once
from methods.core.speed.transfers import sent
from workflow.common.errors import UserError

# Fakes of each class that a step makes; every critic update of the step picks from them.
FAKES_PER_CLASS = 16
# Fewer expected shards a step leave almost every step without any.
_FEWEST = 0.01


class PoissonShards(Mechanism):
    """Draws each shard with probability m / K; each drawn one trains its networks and adds one row to the sum."""

    @classmethod
    def check(cls, hp: Any) -> None:
        if hp.shards_per_step > hp.num_shards:
            raise UserError(f"shards_per_step must be 0 to num_shards, {hp.num_shards}; got {hp.shards_per_step:g}")
        if hp.shards_per_step < _FEWEST:
            raise UserError(f"shards_per_step must be 0, or at least {_FEWEST:g}; got {hp.shards_per_step:g}")
        if hp.warm_start_steps or hp.spectral_norm:
            raise UserError(
                "shards_per_step trains its critics as a batch, from the first step on: it needs warm_start_steps 0 and"
                f" spectral_norm false, got {hp.warm_start_steps} and {str(hp.spectral_norm).lower()}"
            )

    @classmethod
    def release(cls, hp: Any, noise: float) -> Release:
        """One row for each drawn shard: the gradients of all images of the step.

        It is clipped at the radius that contains each of them clipped alone.
        """
        return Release(
            name=RELEASE, kind="gaussian", clip=hp.clip * math.sqrt(hp.batch_size), noise=noise, bounded="sum",
            rows=hp.num_shards, rate=hp.shards_per_step / hp.num_shards, sampling="poisson", max_uses=hp.steps,
            state="hidden",
        )  # fmt: skip

    def networks(self, build: Callable[[], nn.Module], warm_start: Path | None = None) -> StackedStore:
        return StackedStore(build, self.hp.num_shards, self.hp.critic_learning_rate)

    def new(self, build: Callable[[], nn.Module]) -> NetworkBatch:
        return NetworkBatch.copies(build(), 1, self.hp.critic_learning_rate)

    def answer(
        self, players: Players, t: int, size: int, data: PrivateData, grant: Grant, rng: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        drawn = grant.poisson_batch(self.hp.num_shards)
        labels = players.uniform_labels(size, rng)
        fakes = players.generate(labels, rng)
        pool = players.balanced_fakes(FAKES_PER_CLASS, rng)[0]
        # An rng of its own: the critics' batches do not depend on whether a phase is shared.
        shared = players.public_phase(t, grant.release.name, named_rng(rng.initial_seed(), "shared phase"))

        def rows() -> Iterator[torch.Tensor]:
            for stack in at_once(drawn, self.device):
                rngs = [shard_rng(rng, shard) for shard in stack.numbers.tolist()]
                records, shards = self.shards[stack.numbers], stack.to(self.device)
                step = PoissonStep(shards, records, data, grant, rngs, pool, shared)
                critics = players.train_critics(step)
                gradients = players.shard_gradients(t, critics, fakes.detach(), labels, step)
                yield gradients[shards.places].flatten(1)

        total = grant.sum(rows(), fakes.numel(), self.device)
        # By the expected number: the one that was drawn is a secret.
        return fakes, total.view_as(fakes) / self.hp.shards_per_step


def shard_rng(rng: torch.Generator, shard: int) -> torch.Generator:
    """Returns the generator of all that one shard draws in the step whose generator is `rng`.

    The sound count reveals the rows of all shards but one, so they may not depend on whether that one is drawn, as they
    would if the drawn shards took turns with one generator.
    """
    return named_rng(rng.initial_seed(), "shard", shard)


@dataclass(frozen=True)
class PoissonStep:
    """What one step may do with a stack of the M shards that it drew; see `interface.ShardStep`.

    `shards` are their numbers, on the device, `records` int64 [M, size] their records, on the CPU, `rngs` a generator
    for each of them, of `shard_rng`; `fakes` [classes * FAKES_PER_CLASS, C, H, W] are current fakes whose
    labels are 0 .. classes - 1, again and again.
    """

    shards: Stack
    records: torch.Tensor
    data: PrivateData
    grant: Grant
    rngs: Sequence[torch.Generator]
    fakes: torch.Tensor
    shared: Any = None

    @property
    def release(self) -> str:
        """The name of the release that the step charges."""
        return self.grant.release.name

    def read(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns `size` distinct random records of each shard, or all it has: [M, B, C, H, W] and labels [M, B]."""
        order = self._each(torch.rand, self.records.shape[1]).argsort(dim=1)[:, :size]
        images, labels = self.data.read(self.grant, self.records.gather(1, order).flatten())
        images = sent(images, self.fakes.device).float() / 255
        return images.view(*order.shape, *images.shape[1:]), sent(labels, self.fakes.device).view(order.shape)

    def critic_batches(self, steps: int, size: int) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yields records, fakes of the same labels, labels, and uniform shares [M, B, 1, 1, 1], for each update."""
        for _ in range(steps):
            images, labels = self.read(size)
            fakes = self.fakes_like(labels)
            share = sent(self._each(torch.rand, labels.shape[1], 1, 1, 1), images.device)
            yield images, fakes, labels, share

    def fakes_like(self, labels: torch.Tensor) -> torch.Tensor:
        """Returns random fakes [M, B, C, H, W] of the labels [M, B]."""
        turn = sent(self._each(partial(torch.randint, FAKES_PER_CLASS), labels.shape[1]), labels.device)
        return self.fakes[turn * (len(self.fakes) // FAKES_PER_CLASS) + labels]

    def _each(self, draw: Callable[..., torch.Tensor], *shape: int) -> torch.Tensor:
        """Returns what `draw` draws of a shape for each shard, by its own generator, [M, *shape]."""
        return torch.stack([draw(shape, generator=rng) for rng in self.rngs])

    def copies(self, networks: NetworkBatch) -> NetworkBatch:
        """Returns a copy of the one network for each shard."""
        return networks.repeated(len(self.records))
