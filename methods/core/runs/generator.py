"""The released generator of a run, and whether it is the one that the run trained."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch

from methods.core.method import Method
from methods.core.runs.folder import GENERATOR, RECORD, end
from workflow.common.errors import UserError
from workflow.common.files import atomic, read_object, sha256
from workflow.common.readers.guard import reading

# In run.json; those of earlier versions have no such key.
DIGEST = "generator_sha256"


def save(folder: Path, method: Method) -> str:
    """Writes generator.safetensors, the only trained tensors a run releases, and returns its SHA-256."""
    state = {name: value.detach().cpu().contiguous() for name, value in method.public_state().items()}
    with atomic(folder / GENERATOR) as temporary:
        temporary.write_bytes(safetensors.torch.save(state))
    return sha256(folder / GENERATOR)


def load(folder: Path) -> dict[str, torch.Tensor]:
    """Reads generator.safetensors.

    Raises UserError if the run has none yet, a damaged one, or another than its run.json says.
    """
    path = folder / GENERATOR
    if not path.exists():
        raise UserError(f"no {path}: train the run first")
    with reading(path, "is no generator", "train the run again"):
        state = safetensors.torch.load_file(path)
    if not is_own(folder):
        raise UserError(
            f"{path} is not the generator that this run trained: its SHA-256 is not the {DIGEST} of {RECORD} beside it;"
            f" remove it, and train, run and sample put back the one in {end(folder)}; if none is kept, restore it"
        )
    return state


def recorded(folder: Path) -> str | None:
    """Returns the SHA-256 of the generator that the run.json in a folder tells of, None if it tells of none."""
    path = folder / RECORD
    return read_object(path, RECORD).get(DIGEST) if path.is_file() else None


def is_own(folder: Path) -> bool:
    """Returns whether a folder's generator is the one that the run.json beside it tells of, if it tells of one."""
    told = recorded(folder)
    return told is None or told == sha256(folder / GENERATOR)
