"""Generators that torch compiles, and replays as one CUDA graph: off by default, since nobody has measured them here.

What compiled code computes differs in its last bits, so a run's bytes are those of its choice.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Sequence

import torch
from torch import nn

from methods.core.speed.choices import CHOICES
from workflow.common.errors import UserError, unknown

_STATES = {"on": True, "off": False}


def compiled(network: nn.Module) -> nn.Module:
    """Returns the network itself, whose passes are compiled when they first run, if CHOICES says so.

    With `cuda_graphs` its output is overwritten by its next pass: the caller copies it before.
    """
    if CHOICES.compiled or CHOICES.cuda_graphs:
        network.compile(mode="reduce-overhead" if CHOICES.cuda_graphs else None, dynamic=False)
    return network


def choose(texts: Sequence[str], device: torch.device) -> None:
    """Turns choices on or off for this process, as NAME=on or NAME=off says.

    Raises UserError, and changes nothing, for another form or name, or for one that this machine cannot do.
    """
    chosen = dict(_read(text) for text in texts)
    if chosen.get("cuda_graphs") and device.type != "cuda":
        raise UserError(f"speed choice cuda_graphs needs a CUDA device, got {device}; leave it off")
    if (chosen.get("compiled") or chosen.get("cuda_graphs")) and (wanting := _missing(device)):
        raise UserError(f"speed choice compiled needs {wanting}, which is not here; install it, or leave compiled off")
    vars(CHOICES).update(chosen)


def _read(text: str) -> tuple[str, bool]:
    name, _, state = text.partition("=")
    if name not in vars(CHOICES):
        raise unknown("speed choice", name, vars(CHOICES))
    if state not in _STATES:
        raise UserError(f"--speed takes NAME=on or NAME=off, got {text!r}")
    return name, _STATES[state]


def _missing(device: torch.device) -> str | None:
    """Returns what torch compiles with on the device, if it is not there."""
    if device.type == "cuda":
        return None if importlib.util.find_spec("triton") else "Triton"
    if not shutil.which(os.environ.get("CXX", "g++")):
        return "a C++ compiler (g++, or what CXX names)"
    # torch gives the compiler its own folder unquoted.
    return "a torch whose folder has no space in its path" if " " in torch.__file__ else None
