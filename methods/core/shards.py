"""Fixed disjoint shards of the records, and a network with its own optimiser for each shard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from methods.core.optimisers import adam
from workflow.common.files import atomic
from workflow.common.seeds import numpy_stream

# A killed warm start loses at most this many critics' work for each thread; few, so that threads end together.
_CHUNK = 8


def assign(num_records: int, num_shards: int, seed: int) -> torch.Tensor:
    """Returns record indices int64 [num_shards, num_records // num_shards]; each record is in at most one shard.

    The assignment depends on public values only: the count and the seed.
    """
    size = num_records // num_shards
    order = numpy_stream(seed, "shards").permutation(num_records)
    return torch.from_numpy(order[: size * num_shards].reshape(num_shards, size))


def chunks(folder: Path, num_shards: int) -> Iterator[tuple[Path, range]]:
    """Yields the files that hold warm-started networks and the shards in each."""
    for start in range(0, num_shards, _CHUNK):
        name = f"critics-{start:05d}-{start + _CHUNK - 1:05d}.safetensors"
        yield folder / name, range(start, min(start + _CHUNK, num_shards))


def write_chunk(path: Path, stacked: dict[str, torch.Tensor]) -> None:
    """Writes the state dicts of consecutive shards, stacked, as one file; atomically."""
    with atomic(path) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in stacked.items()}, temporary)


class ShardNetworks:
    """One network and Adam state per shard, held as plain tensors; only shards ever used take memory.

    All share one module: `lend` fills it with a shard's state, `keep` takes the state back. A shard starts from the
    warm-start file if there is one, else from the module's initial weights, which are the same for all shards.
    """

    def __init__(self, build: Callable[[], nn.Module], learning_rate: float, warm_start: Path | None = None) -> None:
        self._module = build()
        self._learning_rate = learning_rate
        self._initial = _clone(self._module.state_dict())
        self._warm_start = warm_start
        self._states: dict[int, dict[str, Any]] = {}

    def lend(self, shard: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Returns the shared module and an optimiser, both in the state of `shard`, in training mode."""
        state = self._states.get(shard)
        self._module.load_state_dict(state["network"] if state else self._start(shard))
        optimizer = adam(self._module.parameters(), self._learning_rate)
        if state:
            optimizer.load_state_dict(state["optimizer"])
        return self._module.train(), optimizer

    def keep(self, shard: int, optimizer: torch.optim.Optimizer) -> None:
        """Stores the shared module's state as that of `shard`."""
        self._states[shard] = {"network": _clone(self._module.state_dict()), "optimizer": optimizer.state_dict()}

    def state(self) -> dict[str, Any]:
        """Returns the states of all shards used so far, for a checkpoint."""
        return {str(shard): state for shard, state in self._states.items()}

    def load(self, states: dict[str, Any]) -> None:
        """Restores what `state` returned."""
        self._states = {int(shard): state for shard, state in states.items()}

    def _start(self, shard: int) -> dict[str, torch.Tensor]:
        if self._warm_start is None:
            return self._initial
        path, members = next(pair for pair in chunks(self._warm_start, shard + 1) if shard in pair[1])
        with safe_open(path, "pt") as stored:
            return {name: stored.get_slice(name)[members.index(shard)] for name in self._initial}


def _clone(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
