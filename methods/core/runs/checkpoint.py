"""Checkpoints of a run in progress, and the released generator: what is private stays under `private/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from methods.core.method import Method
from workflow.common.errors import UserError
from workflow.common.files import atomic
from workflow.common.readers.guard import reading

GENERATOR = "generator.safetensors"


def checkpoint_path(folder: Path) -> Path:
    """Returns where a run keeps its checkpoint."""
    return folder / "private" / "checkpoint.pt"


def save(
    folder: Path, method: Method, step: int, seconds: float, log: list[dict[str, float]], hyper: dict[str, Any]
) -> None:
    """Stores both states after `step` steps; log, seconds spent so far and hyper-parameters travel with them."""
    content = {
        "step": step,
        "seconds": seconds,
        "log": log,
        "hyper": hyper,
        "public": method.public_state(),
        "private": method.private_state(),
    }
    with atomic(checkpoint_path(folder)) as temporary:
        torch.save(content, temporary)


def load(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """Returns what `save` stored, or None. Raises UserError for a file that is not a checkpoint."""
    path = checkpoint_path(folder)
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        message = f"{path} is not a readable checkpoint ({error}); remove the run's folder to start again"
        raise UserError(message) from None


def save_generator(folder: Path, method: Method) -> None:
    """Writes generator.safetensors, the only trained tensors a run releases."""
    state = {name: value.detach().cpu().contiguous() for name, value in method.public_state().items()}
    with atomic(folder / GENERATOR) as temporary:
        save_file(state, temporary)


def load_generator(folder: Path) -> dict[str, torch.Tensor]:
    """Reads generator.safetensors. Raises UserError if the run has none yet, or a damaged one."""
    path = folder / GENERATOR
    if not path.exists():
        raise UserError(f"no {path}: train the run first")
    with reading(path, "is no generator", "train the run again"):
        return load_file(path)
