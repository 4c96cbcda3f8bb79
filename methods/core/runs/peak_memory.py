"""The memory that a process has needed."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch


def peak_memory_mib(device: torch.device) -> float:
    """Returns the largest memory of this process so far: resident, or allocated on its GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        # Bytes on macOS, KiB elsewhere.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    # Not ru_maxrss, which on Linux a new process inherits from the one that started it.
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
