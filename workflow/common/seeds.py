"""Named random streams: each consumer derives its own seed from names, so adding one moves no other's numbers."""

from __future__ import annotations

import hashlib

import numpy as np

MOST_SEED = 2**63 - 1  # of a root seed, which is at least 0: what torch takes, and a signed 64-bit number holds


def derive(seed: int, *names: object) -> int:
    """Returns a 63-bit seed from a root seed and a path of names.

    Example: `derive(0, "mnist", "dpac", "generator")`.
    """
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_stream(seed: int, *names: object) -> np.random.Generator:
    """Returns a NumPy generator seeded by `derive`."""
    return np.random.default_rng(derive(seed, *names))
