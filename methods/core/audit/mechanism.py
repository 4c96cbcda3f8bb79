"""Worst-case canaries sent through the ledger's own grants, and what the noisy answers say about their secret coins.

Each canary is a unit (a record, a shard or a teacher) with a fair coin that decides what it contributes: the two sides
are neighbours as the release's adjacency says. It always contributes far more than the clip allows, in a coordinate of
its own, so that clipping, sampling and noise are all the code's. The observer knows the release and sums, over uses,
the log-likelihood ratio of the two sides: the best test there is if the code does what the release says.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from methods.core.audit import bounds
from methods.core.audit.canaries import Canaries, shape_of
from methods.core.privacy.ledger import Ledger
from methods.core.release import NO_BUDGET, Release
from workflow.common.errors import UserError
from workflow.common.seeds import numpy_stream

# The one-run theorem adds a term that grows with canaries * delta.
_MOST_SHARED = 0.08


@dataclasses.dataclass(frozen=True)
class Audit:
    """What an audit found: a lower bound on the epsilon of `releases`, which may have fewer uses than the plan's."""

    releases: tuple[Release, ...]
    canaries: int
    confidence: float
    epsilon_lower: float


def audit(
    releases: Sequence[Release],
    delta: float,
    *,
    seed: int = 0,
    seconds: float = 10.0,
    uses: int | None = None,
    canaries: int | None = None,
    confidence: float = bounds.CONFIDENCE,
    non_finite: bool = False,
) -> Audit:
    """Returns a lower bound on the epsilon at `delta` of using every release max_uses times, or fewer.

    Canaries whose draws are independent are trials of one pair of neighbours, bounded by
    `bounds.from_independent_trials`; shards that exclude each other are bounded by `from_one_run`, which needs
    no independence. A coin moves the answers of one run alone, so runs of that kind are one run of all their canaries.

    Args:
        seed: of coins, draws and noise.
        seconds: nominal work on one core, from a fixed cost model: the same on every machine. Where it does not pay for
            enough canaries, uses are cut from all releases in proportion; the result names the releases it is about.
        uses: most uses of each release, in place of that cut.
        canaries: how many coins, in place of what `seconds` pays for; rounded up to whole runs.
        non_finite: the True side sends NaN, which a release must count as zero, in place of a large value; the False
            side of an exchange stays large, so that an honest release tells less than by large values.

    Raises UserError for a release without noise, or of a shape that no canary fits.
    """
    releases = tuple(release for release in releases if release.max_uses)
    if not releases:
        raise UserError("nothing to audit: the plan uses no release")
    shapes = [shape_of(release) for release in releases]
    # A value that is not finite may reach every entry of a sum, so that canary is alone.
    count = 1 if non_finite else min(
        shape.most(release) for shape, release in zip(shapes, releases, strict=True)
    )
    group = [shape(release, count, non_finite) for shape, release in zip(shapes, releases, strict=True)]
    shared = count > 1 and any(one.shared for one in group)
    audited = tuple(release.used(min(uses or release.max_uses, release.max_uses)) for release in releases)
    if uses is None and canaries is None:
        audited = _affordable(audited, group, count, seconds)
    per_run = sum(release.max_uses * one.seconds for release, one in zip(audited, group, strict=True))
    wanted = canaries or count * seconds / per_run
    if shared:
        wanted = min(wanted, _MOST_SHARED / delta)
    runs = max(1, math.ceil(wanted / count))
    scores, coins = _run(audited, group, count, runs, seed)
    bound = bounds.from_one_run if shared else bounds.from_independent_trials
    return Audit(audited, runs * count, confidence, bound(scores, coins, delta, confidence))


def _affordable(
    releases: tuple[Release, ...], group: Sequence[Canaries], count: int, seconds: float
) -> tuple[Release, ...]:
    whole = sum(release.max_uses * one.seconds for release, one in zip(releases, group, strict=True))
    share = min(1.0, seconds * count / (whole * max(one.fewest for one in group)))
    return tuple(release.used(max(1, int(share * release.max_uses))) for release in releases)


def _run(
    releases: Sequence[Release], group: Sequence[Canaries], count: int, runs: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores float64 [runs * count] and coins bool [runs * count]."""
    coins = numpy_stream(seed, "audit coins").random((runs, count)) < 0.5
    scores = np.zeros((runs, count))
    lasting = [release.used(release.max_uses * runs) for release in releases]
    # One ledger serves all runs, each with uses, and so with draws and noise, of its own.
    with folder_in_memory() as folder, Ledger.open(
        folder / "ledger.jsonl", lasting, NO_BUDGET, noise_key=f"audit {seed}".encode()
    ) as ledger:
        for run in range(runs):
            sides = torch.from_numpy(coins[run])
            for release, one in zip(releases, group, strict=True):
                for _ in range(release.max_uses):
                    with ledger.charge(release.name) as grant:
                        scores[run] += one.evidence(grant, sides)
    return scores.ravel(), coins.ravel()


@contextlib.contextmanager
def folder_in_memory() -> Iterator[Path]:
    """Yields a temporary folder, in memory where there is such a place: each charge waits for its file system."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)
