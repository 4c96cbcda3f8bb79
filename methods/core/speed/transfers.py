"""Values that go to a GPU while it works, so that the host need not wait until it is done."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from methods.core.speed.choices import CHOICES


def sent(values: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Returns values [...] on `device`; the given tensor itself where nothing crosses.

    A plain copy to a GPU waits for all that the GPU still has to do. One from memory that cannot be paged out is queued
    behind it; torch keeps that memory until the copy is made, whatever becomes of the given tensor.
    """
    crosses = values.device.type == "cpu" and torch.device(device).type == "cuda"
    if not (crosses and CHOICES.pinned_copies):
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def moved(network: nn.Module, device: torch.device | str) -> nn.Module:
    """Returns the network itself with its parameters and buffers on `device`, `sent` there."""
    return network._apply(partial(sent, device=device))
