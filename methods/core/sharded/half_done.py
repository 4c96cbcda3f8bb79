"""A warm start's critics that are half trained: what goes on from there.

The end of a slot costs nothing, as they are kept then, and a kill a minute.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from methods.core.sharded.stacks import NetworkBatch
from workflow.common.files import atomic

SECONDS = 60.0
# What a batch of networks is made of, besides its architecture and its rate.
_KEPT = ("weights", "first", "second", "updates", "vectors")


class HalfDone:
    """The state of one stack's training, kept in a file beside the finished ones; as private as they are.

    Args:
        path: the file; None keeps nothing.
        batches, rngs: what training changes. They are put back in place by `restore`.
        source: names the records and settings that they are trained from; a file of others is none that fits.
    """

    def __init__(
        self,
        path: Path | None,
        batches: Sequence[NetworkBatch],
        rngs: Sequence[torch.Generator],
        source: str = "",
    ) -> None:
        self._path, self._batches, self._rngs, self._source = path, batches, rngs, source
        self._kept = time.monotonic()

    def restore(self, device: torch.device) -> int:
        """Puts back what was kept and returns after how many steps that was; 0 where there is nothing that fits."""
        if self._path is None or not self._path.exists():
            return 0
        try:
            stored = torch.load(self._path, map_location=device, weights_only=True)
            shapes = [[_shapes(batch) for batch in batches] for batches in (stored["batches"], self._state())]
            fits = shapes[0] == shapes[1] and len(stored["rngs"]) == len(self._rngs)
            fits = fits and stored["source"] == self._source
        except Exception:
            # Whatever is wrong with it, it is only time that is lost.
            fits = False
        if not fits:
            return 0
        for batch, kept in zip(self._batches, stored["batches"], strict=True):
            vars(batch).update(kept)
        for rng, state in zip(self._rngs, stored["rngs"], strict=True):
            rng.set_state(state.cpu())
        return stored["step"]

    def ended(self, step: int) -> None:
        """Notes that so many steps have ended, and keeps their state if the last one kept is old."""
        if time.monotonic() - self._kept >= SECONDS:
            self.keep(step)

    def keep(self, step: int) -> None:
        """Keeps the state after so many steps; it must not change meanwhile."""
        if self._path is None:
            return
        content = {"source": self._source, "step": step, "batches": self._state()}
        content["rngs"] = [rng.get_state() for rng in self._rngs]
        with atomic(self._path, mode=0o600) as temporary:
            torch.save(content, temporary)
        self._kept = time.monotonic()

    def _state(self) -> list[dict[str, Any]]:
        return [{name: _detached(getattr(batch, name)) for name in _KEPT} for batch in self._batches]


def _detached(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach()
    return {name: tuple(map(_detached, part)) if isinstance(part, tuple) else part.detach()
            for name, part in value.items()}  # fmt: skip


def _shapes(batch: dict[str, Any]) -> list[Any]:
    return [sorted((name, tuple(value.shape)) for name, value in batch["weights"].items()), sorted(batch["vectors"])]
