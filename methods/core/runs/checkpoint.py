"""Checkpoints of a run in progress, which stay under `private/`."""

from __future__ import annotations

import errno
import math
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch

from methods.core.method import Method
from workflow.common.files import atomic, cannot_write
from workflow.common.readers.fields import fields, is_number, is_object, is_whole
from workflow.common.readers.guard import reading

AGAIN = "restore it, or remove the run's folder to start again, which spends the budget on these records a second time"


def checkpoint_path(folder: Path) -> Path:
    """Returns where a run keeps its checkpoint."""
    return folder / "private" / "checkpoint.pt"


def save(
    folder: Path, method: Method, step: int, seconds: float, log: list[dict[str, float]], about: dict[str, Any]
) -> None:
    """Stores both states after `step` steps; log, seconds spent so far and what `about` says of the run go with them.

    Raises UserError for a disk that does not take it; the checkpoint before stays.
    """
    content = {
        "step": step,
        "seconds": seconds,
        "log": log,
        "about": about,
        "public": method.public_state(),
        "private": method.private_state(),
    }
    with atomic(checkpoint_path(folder)) as temporary:
        _store(content, temporary)


def check_room(folder: Path, growth: float) -> None:
    """Raises UserError unless the disk can take the largest checkpoint of a run, `growth` times what is there."""
    path = checkpoint_path(folder)
    try:
        # Without a name, so that nothing is left of it.
        with tempfile.TemporaryFile(dir=path.parent) as file:
            os.posix_fallocate(file.fileno(), 0, math.ceil(growth * path.stat().st_size))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise cannot_write(path, error) from None


def load(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """Returns what `save` stored, or None. Raises UserError for a file that is not a checkpoint."""
    path = checkpoint_path(folder)
    if not path.exists():
        return None
    with reading(path, "is not a readable checkpoint", AGAIN):
        return fields(_loaded(path, device), _FIELDS)


def _loaded(path: Path, device: torch.device) -> Any:
    if not zipfile.is_zipfile(path):
        raise ValueError("it was cut or written over")
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception:
        # The library's words are a paragraph, which advises to load what may run code.
        raise ValueError("it is damaged, or holds something else than tensors, texts and numbers") from None


def _is_log(value: Any) -> bool:
    numbers = (int, float)
    return isinstance(value, list) and all(
        isinstance(row, dict) and all(isinstance(name, str) and isinstance(row[name], numbers) for name in row)
        for row in value
    )


def _is_state(value: Any) -> bool:
    return is_object(value) and all(isinstance(part, torch.Tensor) for part in value.values())


_FIELDS = {
    "step": is_whole(), "seconds": is_number, "log": _is_log, "about": is_object, "public": _is_state,
    "private": lambda value: True,
}  # fmt: skip


def _store(content: dict[str, Any], path: Path) -> None:
    """Writes with torch, whose writer hides why a disk refused."""
    with path.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            reason = error
            while reason is not None and not isinstance(reason, OSError):
                reason = reason.__context__
            raise reason or OSError(errno.EIO, str(error).splitlines()[0]) from None
