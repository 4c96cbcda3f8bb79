"""Critics trained beforehand, each on its own shard against its own throw-away generator, many at a time.

Both papers do this off-line. A stack's size and the number of threads change nothing but speed: random draws belong to
blocks of shards.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from tqdm import tqdm

from methods.core.method import WARM_START_SOURCE, Context
from methods.core.partition import partition
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.rng import named_rng
from methods.core.sharded.half_done import HalfDone
from methods.core.sharded.losses import critic_loss, image_gradients
from methods.core.sharded.nets import build_critic, build_generator, draw_latents
from methods.core.sharded.stacks import NetworkBatch
from methods.core.speed.precision import mixed_precision
from methods.core.speed.threads import GoOn, for_each
from methods.core.speed.transfers import sent
from workflow.common import process
from workflow.common.files import atomic, sha256
from workflow.common.readers.guard import reading

_Files = list[tuple[Path, range]]
# Files of 8 shards whose critics train as one stack: a processor gains nothing from more. A GPU has room for many, but
# at the paper's width 8 critics are by their FLOPs a tenth of a second a step.
_TOGETHER = {"cpu": 1, "cuda": 1}
# The ledger, and the stream that new networks draw from, are the whole process's.
_in_turn = threading.Lock()
# Few, so that threads end together.
_FILE = 8


class _Block:
    """Shards of one file: their records, read once, and their own random draws."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, rng: torch.Generator) -> None:
        """Images uint8 [n, size, C, H, W] and labels int64 [n, size]."""
        self._images, self._labels, self.rng = images, labels, rng

    def batches(self, count: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns `count` times `size` distinct random records of each shard, or all it has, and their labels.

        Images [n, count, B, C, H, W] in [0, 1] and int64 [n, count, B].
        """
        shards, records = self._labels.shape
        order = torch.rand(shards, count, records, generator=self.rng).argsort(dim=2)[..., :size]
        order = sent(order, self._labels.device).flatten(1)
        which = torch.arange(shards, device=order.device)[:, None], order
        images, labels = (part[which].unflatten(1, (count, -1)) for part in (self._images, self._labels))
        return images.float() / 255, labels

    def latents(self, size: int) -> torch.Tensor:
        """Returns latents [n, size, 10]."""
        return draw_latents(len(self._labels) * size, self.rng).view(len(self._labels), size, -1)

    def shares(self, count: int, size: int) -> torch.Tensor:
        """Returns uniform numbers [n, count, size, 1, 1, 1]."""
        return torch.rand(len(self._labels), count, size, 1, 1, 1, generator=self.rng)

    def labels(self, size: int, classes: int) -> torch.Tensor:
        """Returns uniform labels [n, size]."""
        return torch.randint(classes, (len(self._labels), size), generator=self.rng)


def files(folder: Path, num_shards: int) -> Iterator[tuple[Path, range]]:
    """Yields the files that hold warm-started critics and the shards in each."""
    for start in range(0, num_shards, _FILE):
        name = f"critics-{start:05d}-{start + _FILE - 1:05d}.safetensors"
        yield folder / name, range(start, min(start + _FILE, num_shards))


def pretrained(folder: Path, shard: int) -> dict[str, torch.Tensor]:
    """Returns the state dict of a shard's warm-started critic. Raises UserError for a file that holds none."""
    path, shards = list(files(folder, shard + 1))[-1]
    mend = f"remove {folder} and make it again by python -m methods warm-start, or by the same run"
    with reading(path, f"holds no critic of shard {shard}", maker=mend), safe_open(path, "pt") as stored:
        return {name: stored.get_slice(name)[shards.index(shard)] for name in stored.keys()}  # noqa: SIM118


def pretrain(hp: Any, context: Context, data: PrivateData, ledger: Ledger, out: Path) -> None:
    """Writes every shard's critic into files under `out`; those that are there already are kept.

    Raises process.Stopped at the end of a step after SIGTERM or SIGINT, when what is half done is kept; a signal that
    came before the first step waits for its end.
    """
    shards = partition(context.public.num_train, hp.num_shards, context.seed)
    source = _source(out)
    bar = tqdm(total=hp.num_shards, desc="warm start", unit="critic", disable=None)
    with bar as progress, process.Signals() as signals:
        missing = []
        for path, block in files(out, hp.num_shards):
            progress.update(len(block) if path.exists() else 0)
            missing += [] if path.exists() else [(path, block)]

        def finish(group: _Files, go_on: GoOn) -> None:
            def go_on_or_stop() -> None:
                go_on()
                done = f"{progress.n} of {hp.num_shards} critics of the warm start, and steps of more"
                signals.stop(f"{out} keeps {done}; the same command continues from there")

            blocks = [block for _, block in group]
            half = out / f"half-{blocks[0].start:05d}-{blocks[-1].stop - 1:05d}.pt"
            stacked = train(hp, context, shards, blocks, data, ledger, go_on_or_stop, half, source)
            for (path, block), state in zip(group, _split(stacked, blocks), strict=True):
                _write(path, state)
                progress.update(len(block))
            half.unlink(missing_ok=True)

        for_each(finish, _together(missing, context.device), context.device)
    # A kill may have come between a file and the removal of what it was made from.
    for half in out.glob("half-*.pt"):
        half.unlink(missing_ok=True)


def _source(out: Path) -> str:
    """Returns the SHA-256 of what a folder notes of the records and settings of its critics; "" where it has none."""
    note = out / WARM_START_SOURCE
    return sha256(note) if note.exists() else ""


def train(
    hp: Any,
    context: Context,
    shards: torch.Tensor,
    blocks: list[range],
    data: PrivateData,
    ledger: Ledger,
    go_on: GoOn = lambda: None,
    half: Path | None = None,
    source: str = "",
) -> dict[str, torch.Tensor]:
    """Returns the state dicts, stacked, of the critics of all shards in `blocks`, trained as one stack.

    `shards` int64 [K, size] are the records of every shard; `go_on` is called after each step and may raise; `half` is
    the file that keeps what is half done, also when `go_on` raises, and from which a call of the same `source` goes on.
    """
    each = [_block(context, shards, block, data, ledger) for block in blocks]
    numbers = [shard for block in blocks for shard in block]
    with _in_turn:
        critics, generators = _start(hp, context, numbers)
    kept = HalfDone(half, (critics, generators), [block.rng for block in each], source)
    for step in range(kept.restore(context.device), hp.warm_start_steps):
        _train_critics(hp, critics, generators, each)
        _train_generators(hp, critics, generators, each, context.public.num_classes)
        try:
            go_on()
        except BaseException:
            kept.keep(step + 1)
            raise
        kept.ended(step + 1)
    return critics.state_dict()


def _start(hp: Any, context: Context, numbers: list[int]) -> tuple[NetworkBatch, NetworkBatch]:
    """Returns a critic and a generator for each shard of `numbers`: critics start alike, generators do not."""
    rate, critic = hp.critic_learning_rate, build_critic(hp, context)
    critics = NetworkBatch.of([critic] * len(numbers), build_critic(hp, context, plain=True), rate)
    names = (hp.warm_start_width, "warm start generator")
    generators = [build_generator(hp, context, *names, shard) for shard in numbers]
    return critics, NetworkBatch.of(generators, build_generator(hp, context, *names, plain=True), rate)


def _block(context: Context, shards: torch.Tensor, block: range, data: PrivateData, ledger: Ledger) -> _Block:
    records = shards[list(block)]
    with _in_turn, ledger.internal("critic warm start") as grant:
        images, labels = (part.to(context.device) for part in data.read(grant, records.flatten()))
    rng = named_rng(context.seed, "warm start", block.start)
    return _Block(images.unflatten(0, records.shape), labels.view(records.shape), rng)


def _train_critics(hp: Any, critics: NetworkBatch, generators: NetworkBatch, blocks: list[_Block]) -> None:
    steps, device = hp.critic_steps, critics.updates.device
    drawn = [block.batches(steps, hp.critic_batch) for block in blocks]
    images, labels = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    size = labels.shape[2]
    latents = sent(torch.cat([block.latents(steps * size) for block in blocks]), device)
    shares = sent(torch.cat([block.shares(steps, size) for block in blocks]), device)
    # The generators do not move in between, so one pass makes the fakes of all updates.
    with torch.no_grad(), mixed_precision(device, hp.precision):
        fakes = generators.generate(latents, labels.flatten(1)).float().unflatten(1, (steps, size))
    for step in range(steps):
        inputs = [part[:, step] for part in (images, fakes, labels, shares)]

        def loss(critic: NetworkBatch, inputs=inputs) -> torch.Tensor:
            return critic_loss(critic, *inputs, hp.gradient_penalty, hp.drift, hp.precision)

        critics.descend(loss)


def _train_generators(
    hp: Any, critics: NetworkBatch, generators: NetworkBatch, blocks: list[_Block], classes: int
) -> None:
    device, size = critics.updates.device, hp.critic_batch
    labels = sent(torch.cat([block.labels(size, classes) for block in blocks]), device)
    latents = sent(torch.cat([block.latents(size) for block in blocks]), device)

    def fakes_and_gradients(generator: NetworkBatch) -> tuple[torch.Tensor, torch.Tensor]:
        with mixed_precision(device, hp.precision):
            fakes = generator.generate(latents, labels).float()
        return fakes, image_gradients(critics, fakes.detach(), labels, hp.precision) / size

    generators.descend_along(fakes_and_gradients)


def _together(files: _Files, device: torch.device) -> list[_Files]:
    size = _TOGETHER[device.type]
    return [files[start : start + size] for start in range(0, len(files), size)]


def _split(stacked: dict[str, torch.Tensor], blocks: list[range]) -> list[dict[str, torch.Tensor]]:
    counts = [len(block) for block in blocks]
    parts = {name: value.split(counts) for name, value in stacked.items()}
    return [{name: part[place] for name, part in parts.items()} for place in range(len(blocks))]


def _write(path: Path, stacked: dict[str, torch.Tensor]) -> None:
    """Writes the state dicts of consecutive shards, stacked, as one file; atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(save({name: value.detach().cpu().contiguous() for name, value in stacked.items()}))
