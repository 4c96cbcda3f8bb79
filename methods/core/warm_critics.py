"""Critics trained beforehand, each on its own shard against its own throw-away generator, many at a time.

Both papers do this off-line. A stack's size and the number of threads change nothing but speed: random draws belong to
blocks of shards.
"""

from __future__ import annotations

import threading
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
from methods.core.workers import GoOn, for_each

_Files = list[tuple[Path, range]]
# Files of 8 shards whose critics train as one stack: a processor gains nothing from more, a GPU has room.
_TOGETHER = {"cpu": 1, "cuda": 16}
# The ledger, and the stream that new networks draw from, are the whole process's.
_in_turn = threading.Lock()


class _Block:
    """Shards of one file: their records, read once, and their own random draws."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, draws: torch.Generator) -> None:
        """Images uint8 [n, size, C, H, W] and labels int64 [n, size]."""
        self._images, self._labels, self._draws = images, labels, draws

    def batches(self, count: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns `count` times `size` distinct random records of each shard, or all it has, and their labels.

        Images [n, count, B, C, H, W] in [0, 1] and int64 [n, count, B].
        """
        shards, records = self._labels.shape
        order = torch.rand(shards, count, records, generator=self._draws).argsort(dim=2)[..., :size]
        order = order.to(self._labels.device).flatten(1)
        which = torch.arange(shards, device=order.device)[:, None], order
        images, labels = (part[which].unflatten(1, (count, -1)) for part in (self._images, self._labels))
        return images.float() / 255, labels

    def latents(self, size: int) -> torch.Tensor:
        """Returns latents [n, size, 10]."""
        return draw_latents(len(self._labels) * size, self._draws).view(len(self._labels), size, -1)

    def shares(self, count: int, size: int) -> torch.Tensor:
        """Returns uniform numbers [n, count, size, 1, 1, 1]."""
        return torch.rand(len(self._labels), count, size, 1, 1, 1, generator=self._draws)

    def labels(self, size: int, classes: int) -> torch.Tensor:
        """Returns uniform labels [n, size]."""
        return torch.randint(classes, (len(self._labels), size), generator=self._draws)


def make(hp: Any, context: Context, data: PrivateData, ledger: Ledger, out: Path) -> None:
    """Writes every shard's critic into files under `out`; those that are there already are kept."""
    shards = assign(context.public.num_train, hp.num_shards, context.seed)
    with tqdm(total=hp.num_shards, desc="warm start", unit="critic", disable=None) as progress:
        missing = []
        for path, members in chunks(out, hp.num_shards):
            progress.update(len(members) if path.exists() else 0)
            missing += [] if path.exists() else [(path, members)]

        def finish(files: _Files, go_on: GoOn) -> None:
            blocks = [members for _, members in files]
            stacked = train(hp, context, shards, blocks, data, ledger, go_on)
            for (path, members), state in zip(files, _split(stacked, blocks), strict=True):
                write_chunk(path, state)
                progress.update(len(members))

        for_each(finish, _together(missing, context.device), context.device)


def train(
    hp: Any,
    context: Context,
    shards: torch.Tensor,
    blocks: list[range],
    data: PrivateData,
    ledger: Ledger,
    go_on: GoOn = lambda: None,
) -> dict[str, torch.Tensor]:
    """Returns the state dicts, stacked, of the critics of all shards in `blocks`, trained as one stack.

    `shards` int64 [K, size] are the records of every shard; `go_on` is called before each step and may raise.
    """
    each = [_block(context, shards, block, data, ledger) for block in blocks]
    numbers = [shard for block in blocks for shard in block]
    with _in_turn:
        critics, generators = _start(hp, context, numbers)
    for _ in range(hp.warm_start_steps):
        go_on()
        _train_critics(hp, critics, generators, each)
        _train_generators(hp, critics, generators, each, context.public.num_classes)
    return critics.state_dict()


def _start(hp: Any, context: Context, numbers: list[int]) -> tuple[Members, Members]:
    """Returns a critic and a generator for each shard of `numbers`: critics start alike, generators do not."""
    critics = Members.of([build_critic(hp, context)] * len(numbers), build_critic(hp, context, plain=True))
    names = (hp.warm_start_width, "warm start generator")
    each = [build_generator(hp, context, *names, shard) for shard in numbers]
    return critics, Members.of(each, build_generator(hp, context, *names, plain=True))


def _block(context: Context, shards: torch.Tensor, block: range, data: PrivateData, ledger: Ledger) -> _Block:
    records = shards[list(block)]
    with _in_turn, ledger.internal("critic warm start") as grant:
        images, labels = (part.to(context.device) for part in data.read(grant, records.flatten()))
    draws = stream(context.seed, "warm start", block.start)
    return _Block(images.unflatten(0, records.shape), labels.view(records.shape), draws)


def _train_critics(hp: Any, critics: Members, generators: Members, blocks: list[_Block]) -> None:
    steps, device = hp.critic_steps, critics.updates.device
    drawn = [block.batches(steps, hp.critic_batch) for block in blocks]
    images, labels = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    size = labels.shape[2]
    latents = torch.cat([block.latents(steps * size) for block in blocks]).to(device)
    shares = torch.cat([block.shares(steps, size) for block in blocks]).to(device)
    # The generators do not move in between, so one pass makes the fakes of all updates.
    with torch.no_grad(), mixed_precision(device, hp.precision):
        fakes = generators.generate(latents, labels.flatten(1)).float().unflatten(1, (steps, size))
    for step in range(steps):
        inputs = [part[:, step] for part in (images, fakes, labels, shares)]

        def loss(critic: Members, inputs=inputs) -> torch.Tensor:
            return critic_loss(critic, *inputs, hp.gradient_penalty, hp.drift, hp.precision)

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


def _together(files: _Files, device: torch.device) -> list[_Files]:
    size = _TOGETHER[device.type]
    return [files[start : start + size] for start in range(0, len(files), size)]


def _split(stacked: dict[str, torch.Tensor], blocks: list[range]) -> list[dict[str, torch.Tensor]]:
    counts = [len(block) for block in blocks]
    parts = {name: value.split(counts) for name, value in stacked.items()}
    return [{name: part[place] for name, part in parts.items()} for place in range(len(blocks))]
