"""How a process keeps its memory."""

from __future__ import annotations

import contextlib
import ctypes

# Parameters of the C library's mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def keep_freed() -> None:
    """Lets the C library keep freed memory for the next tensor; elsewhere than with glibc, does nothing.

    A map that the system hands out again can cost more than its computation: each of its pages is cleared first. That
    took 2 to 20 % of a training step.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        # The largest threshold that it takes.
        library.mallopt(_MMAP_THRESHOLD, 2**25)
        library.mallopt(_TRIM_THRESHOLD, 2**30)
