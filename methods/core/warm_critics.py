"""Critics trained beforehand, each on its own shard against its own throw-away generator, many at a time.

Both papers do this off-line. A stack's size changes nothing but speed: random draws belong to blocks of shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from methods.core.method import Context
from methods.core.nets import draw_latents
from methods.core.privacy import Ledger
from methods.core.private_data import PrivateData
from methods.core.shard_networks import build_critic, build_generator
from methods.core.shards import assign, chunks, write_chunk
from methods.core.stacks import Members
from methods.core.streams import stream
from methods.core.wasserstein import critic_loss, image_gradients, mixed_precision

# Files of 20 shards whose critics train as one stack: a processor gains nothing from more, a GPU has room.
_TOGETHER = {"cpu": 1, "cuda": 6}


@dataclass(frozen=True)
class _Block:
    """Shards [n, size] of one file with their own random draws."""

    records: torch.Tensor
    draws: torch.Generator

    def batch(self, size: int) -> torch.Tensor:
        """Returns `size` distinct random records of each shard, or all it has: [n, B]."""
        order = torch.rand(self.records.shape, generator=self.draws).argsort(dim=1)[:, :size]
        return self.records.gather(1, order)

    def latents(self, size: int) -> torch.Tensor:
        """Returns latents [n, size, 10]."""
        return draw_latents(len(self.records) * size, self.draws).view(len(self.records), size, -1)

    def shares(self, size: int) -> torch.Tensor:
        """Returns uniform numbers [n, size, 1, 1, 1]."""
        return torch.rand(len(self.records), size, 1, 1, 1, generator=self.draws)

    def labels(self, size: int, classes: int) -> torch.Tensor:
        """Returns uniform labels [n, size]."""
        return torch.randint(classes, (len(self.records), size), generator=self.draws)


def make(hp: Any, context: Context, data: PrivateData, ledger: Ledger, out: Path) -> None:
    """Writes every shard's critic into files under `out`; those that are there already are kept."""
    shards = assign(context.public.num_train, hp.num_shards, context.seed)
    with tqdm(total=hp.num_shards, desc="warm start", unit="critic", disable=None) as progress:
        missing = []
        for path, members in chunks(out, hp.num_shards):
            progress.update(len(members) if path.exists() else 0)
            missing += [] if path.exists() else [(path, members)]
        for files in _together(missing, context.device):
            shards_of = [members for _, members in files]
            stacked = train(hp, context, shards, shards_of, data, ledger)
            for (path, members), state in zip(files, _split(stacked, shards_of), strict=True):
                write_chunk(path, state)
                progress.update(len(members))


def train(
    hp: Any, context: Context, shards: torch.Tensor, blocks: list[range], data: PrivateData, ledger: Ledger
) -> dict[str, torch.Tensor]:
    """Returns the state dicts, stacked, of the critics of all shards in `blocks`, trained as one stack.

    `shards` int64 [K, size] are the records of every shard.
    """
    each = [_Block(shards[list(block)], stream(context.seed, "warm start", block.start)) for block in blocks]
    numbers = [shard for block in blocks for shard in block]
    critics = Members.of([build_critic(hp, context)] * len(numbers), build_critic(hp, context, plain=True))
    names = (hp.warm_start_width, "warm start generator")
    generators = Members.of(
        [build_generator(hp, context, *names, shard) for shard in numbers],
        build_generator(hp, context, *names, plain=True),
    )
    for _ in range(hp.warm_start_steps):
        _train_critics(hp, critics, generators, each, data, ledger)
        _train_generators(hp, critics, generators, each, context.public.num_classes)
    return critics.state_dict()


def _train_critics(
    hp: Any, critics: Members, generators: Members, blocks: list[_Block], data: PrivateData, ledger: Ledger
) -> None:
    device = critics.updates.device
    updates = range(hp.critic_steps)
    records = torch.stack([torch.cat([block.batch(hp.critic_batch) for block in blocks]) for _ in updates])
    with ledger.internal("critic warm start") as grant:
        images, labels = data.read(grant, records.flatten())
    images = (images.to(device).float() / 255).view(*records.shape, *images.shape[1:])
    labels, size = labels.to(device).view(records.shape), records.shape[2]
    latents = torch.cat([block.latents(hp.critic_steps * size) for block in blocks]).to(device)
    # The generators do not move in between, so one pass makes the fakes of all updates.
    with torch.no_grad(), mixed_precision(device, hp.precision):
        fakes = generators.generate(latents, labels.transpose(0, 1).flatten(1)).float()
    fakes = fakes.unflatten(1, (hp.critic_steps, size)).transpose(0, 1)
    for real, fake, own in zip(images, fakes, labels, strict=True):
        share = torch.cat([block.shares(size) for block in blocks]).to(device)

        def loss(critic: Members, real=real, fake=fake, own=own, share=share) -> torch.Tensor:
            return critic_loss(critic, real, fake, own, share, hp.gradient_penalty, hp.drift, hp.precision)

        critics.descend(loss, hp.critic_learning_rate)


def _train_generators(hp: Any, critics: Members, generators: Members, blocks: list[_Block], classes: int) -> None:
    device, size = critics.updates.device, hp.critic_batch
    labels = torch.cat([block.labels(size, classes) for block in blocks]).to(device)
    latents = torch.cat([block.latents(size) for block in blocks]).to(device)

    def fakes_and_gradients(generator: Members) -> tuple[torch.Tensor, torch.Tensor]:
        with mixed_precision(device, hp.precision):
            fakes = generator.generate(latents, labels).float()
        return fakes, image_gradients(critics, fakes.detach(), labels, hp.precision) / size

    generators.descend_along(fakes_and_gradients, hp.critic_learning_rate)


def _together(files: list[tuple[Path, range]], device: torch.device) -> Iterator[list[tuple[Path, range]]]:
    size = _TOGETHER[device.type]
    for start in range(0, len(files), size):
        yield files[start : start + size]


def _split(stacked: dict[str, torch.Tensor], blocks: list[range]) -> list[dict[str, torch.Tensor]]:
    counts = [len(block) for block in blocks]
    parts = {name: value.split(counts) for name, value in stacked.items()}
    return [{name: part[place] for name, part in parts.items()} for place in range(len(blocks))]
