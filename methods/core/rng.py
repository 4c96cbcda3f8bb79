"""Named random generators: one per consumer and step, so that nothing but names needs saving to resume a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from workflow.common.seeds import derive


def named_rng(seed: int, *names: object) -> torch.Generator:
    """Returns a CPU generator seeded by `derive(seed, *names)`."""
    return torch.Generator().manual_seed(derive(seed, *names))


@contextlib.contextmanager
def seeded(seed: int, *names: object) -> Iterator[None]:
    """Seeds torch's global CPU generator for a block, as module constructors draw from it, and restores it after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, *names))
        yield
