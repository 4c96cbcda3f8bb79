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
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from methods.core.audit import bounds
from methods.core.privacy.grant import Grant
from methods.core.privacy.ledger import Ledger
from methods.core.release import NO_BUDGET, Release
from workflow.common.errors import UserError
from workflow.common.seeds import numpy_stream

if TYPE_CHECKING:
    from methods.core.privacy.dp_sgd import PrivateOptimizer

# A contribution in units of the clip: so large that a missing clip shows, small enough for single precision.
_EXCESS = 1e3
# Nominal seconds of a use on one core: of the grant itself, and per entry of a row and of noise. They only divide a
# budget of work between canaries and uses, in the same way on every machine.
_PER_USE, _PER_DP_SGD_USE, _PER_ENTRY, _PER_NOISE = 1.7e-4, 1.2e-3, 8e-9, 1.5e-8
# The one-run theorem adds a term that grows with canaries * delta.
_MOST_SHARED = 0.08


@dataclasses.dataclass(frozen=True)
class Audit:
    """What an audit found: a lower bound on the epsilon of `releases`, which may have fewer uses than the plan's."""

    releases: tuple[Release, ...]
    canaries: int
    confidence: float
    epsilon_lower: float


class Canaries(ABC):
    """`count` canaries that one use of a release can carry, and what the answer says of each coin.

    `shared`: whether the draws that reach one canary depend on those of another, so that canaries are no independent
    trials. `fewest`: how many coins are worth more than further uses. `seconds`: nominal cost of a use.
    """

    shared, fewest = False, 2000

    def __init__(self, release: Release, count: int, non_finite: bool) -> None:
        self.release, self.count = release, count
        # The True side; where non-finite values are tried, they take its place.
        self.large = math.nan if non_finite else _EXCESS * release.clip
        self.absent = release.adjacency == "add_or_remove"

    @property
    @abstractmethod
    def seconds(self) -> float: ...

    @abstractmethod
    def evidence(self, grant: Grant, coins: torch.Tensor) -> np.ndarray:
        """Answers one use for coins bool [count] and returns log-likelihood ratios float64 [count] in favour of True.

        A non-finite answer, which no release gives, counts as infinite evidence for True.
        """

    def _contributions(self, coins: torch.Tensor) -> torch.Tensor:
        """Returns what each canary asks to contribute [count]; 0 for one that is absent."""
        low = 0.0 if self.absent else -_EXCESS * self.release.clip
        return torch.where(coins, torch.tensor(self.large), torch.tensor(low))

    def _ratio(self, seen: torch.Tensor, high: float, low: float, undrawn: float, scale: float) -> np.ndarray:
        """Returns log p(seen | True) - log p(seen | False) for values that lie at `high` or `low` if drawn."""
        seen, rate = seen.double().numpy(), self.release.rate
        if rate == 1:
            ratio = self._favour(seen, high, low, scale)
        else:
            with np.errstate(invalid="ignore"):
                rest, drawn = math.log1p(-rate), math.log(rate)
                ratio = np.logaddexp(rest, drawn + self._favour(seen, high, undrawn, scale))
                ratio -= np.logaddexp(rest, drawn + self._favour(seen, low, undrawn, scale))
        return np.where(np.isfinite(seen), ratio, np.inf)

    def _favour(self, seen: np.ndarray, place: float, other: float, scale: float) -> np.ndarray:
        """Returns log p(seen | place) - log p(seen | other), in the form that rounding leaves monotone and saturated.

        As a difference of two distances it would carry the last bits of `seen` to where it is constant on paper.
        """
        if self.release.kind == "laplace":
            between = np.clip(seen, min(place, other), max(place, other))
            return np.sign(place - other) * ((between - place) + (between - other)) / scale
        return (place - other) * (2 * seen - place - other) / (2 * scale**2)


class _Sums(Canaries):
    """One row each in a sum over all records (or teachers), or over a Poisson batch of them (or of fixed shards)."""

    @classmethod
    def most(cls, release: Release) -> int:
        return max(1, min(release.rows, int(math.sqrt(_PER_USE / (_PER_ENTRY * release.rate * release.answers)))))

    @property
    def seconds(self) -> float:
        entries = self.count * self.release.answers
        return _PER_USE + entries * (self.count * self.release.rate * _PER_ENTRY + _PER_NOISE)

    def evidence(self, grant: Grant, coins: torch.Tensor) -> np.ndarray:
        release = self.release
        drawn = grant.poisson_batch(self.count) if release.sampling == "poisson" else torch.arange(self.count)
        asked = self._contributions(coins)[drawn]
        present = asked != 0
        rows = torch.zeros(int(present.sum()), release.answers, self.count)
        rows[torch.arange(len(rows)), :, drawn[present]] = asked[present, None]
        total = grant.sum([rows.flatten(1)], width=release.answers * self.count)
        low = 0.0 if self.absent else -release.clip
        return self._ratio(total.view(release.answers, -1), release.clip, low, 0.0, release.scale).sum(0)


class _Gradients(Canaries):
    """Per-example gradients of a linear layer in a Poisson batch, clipped and summed by the optimiser of DP-SGD."""

    _made: tuple[nn.Linear, PrivateOptimizer] | None = None

    def _optimizer_of(self, release: Release) -> tuple[nn.Linear, PrivateOptimizer]:
        if self._made is None:
            from methods.core.privacy.dp_sgd import PrivateOptimizer

            # Beside inputs this large the gradient of the layer's bias is next to nothing.
            layer = nn.Linear(self.count, 1)
            plain = torch.optim.SGD(layer.parameters(), lr=1.0)
            self._made = layer, PrivateOptimizer(layer, plain, release, expected_batch=1)
        return self._made

    @classmethod
    def most(cls, release: Release) -> int:
        return max(1, min(release.rows, int(math.sqrt(_PER_DP_SGD_USE / (_PER_ENTRY * release.rate)))))

    @property
    def seconds(self) -> float:
        return _PER_DP_SGD_USE + self.count * (self.count * self.release.rate * _PER_ENTRY + _PER_NOISE)

    def evidence(self, grant: Grant, coins: torch.Tensor) -> np.ndarray:
        drawn = grant.poisson_batch(self.count)
        asked = self._contributions(coins)[drawn]
        present = asked != 0
        batch = torch.zeros(int(present.sum()), self.count)
        batch[torch.arange(len(batch)), drawn[present]] = asked[present]
        layer, optimizer = self._optimizer_of(grant.release)
        with torch.no_grad():
            layer.weight.zero_()
        optimizer.step(grant, lambda network, rows: network(rows)[:, 0], batch)
        moved = -layer.weight.detach()[0]
        return self._ratio(moved, self.release.clip, 0.0, 0.0, self.release.scale)


class _Votes(Canaries):
    """Voters with two bins of their own, who vote for one or the other in every ballot."""

    @classmethod
    def most(cls, release: Release) -> int:
        return max(1, min(release.rows, int(_PER_USE / (_PER_NOISE * release.answers)), 1000))

    @property
    def seconds(self) -> float:
        return _PER_USE + 4 * self.count * self.release.answers * _PER_NOISE

    def evidence(self, grant: Grant, coins: torch.Tensor) -> np.ndarray:
        choices = 2 * torch.arange(self.count) + coins
        counts = grant.votes(choices[:, None].expand(-1, self.release.answers), bins=2 * self.count)
        pairs = counts.view(self.release.answers, self.count, 2)
        scale = math.sqrt(2) * self.release.scale
        return self._ratio(pairs[..., 1] - pairs[..., 0], 1.0, -1.0, 0.0, scale).sum(0)


class _Shards(Canaries):
    """One shard each of the K that draws exclude one another; a drawn shard answers in its own coordinate."""

    shared, fewest = True, 6000

    @classmethod
    def most(cls, release: Release) -> int:
        return round(1 / release.rate)

    @property
    def seconds(self) -> float:
        rows = self.release.rows if self.release.bounded == "function" else 1
        return _PER_USE + rows * self.count * (_PER_ENTRY + _PER_NOISE)

    def evidence(self, grant: Grant, coins: torch.Tensor) -> np.ndarray:
        release, drawn = self.release, grant.shard()
        rows = release.rows if release.bounded == "function" else 1
        asked = torch.zeros(rows, self.count)
        if drawn < self.count:
            asked[:, drawn] = self._contributions(coins)[drawn]
        seen = grant.sum([asked])[None] if release.bounded == "sum" else grant.rows(asked)
        low = 0.0 if self.absent else -release.clip
        return _rows_together(self, seen, release.clip, low, 0.0)


class _Functions(Canaries):
    """One canary alone: every row points one way with it and the other way without it.

    A function of the whole batch spends its clip on all its entries together, so canaries cannot have their own.
    """

    fewest = 400

    @classmethod
    def most(cls, release: Release) -> int:
        return 1

    @property
    def seconds(self) -> float:
        return _PER_USE + self.release.rows * (_PER_ENTRY + _PER_NOISE)

    def evidence(self, grant: Grant, coins: torch.Tensor) -> np.ndarray:
        release = self.release
        drawn = len(grant.poisson_batch(1)) if release.sampling == "poisson" else 1
        asked = self.large if drawn and bool(coins) else -_EXCESS * release.clip
        seen = grant.rows(torch.full((release.rows, 1), asked))
        return _rows_together(self, seen, release.clip, -release.clip, -release.clip)


def _rows_together(canaries: Canaries, seen: torch.Tensor, high: float, low: float, undrawn: float) -> np.ndarray:
    """Returns the evidence [count] of noisy rows [R, count] that share one draw and say the same."""
    if canaries.release.kind == "laplace" and canaries.release.rate == 1:
        return canaries._ratio(seen, high, low, undrawn, canaries.release.scale).sum(0)
    root = math.sqrt(len(seen))
    return canaries._ratio(seen.sum(0) / root, root * high, root * low, root * undrawn, canaries.release.scale)


def _shape(release: Release) -> type[Canaries]:
    if release.kind == "none":
        raise UserError(f"release {release.name} adds no noise: there is no epsilon to audit")
    if release.draws == "per_row" and release.rate < 1:
        raise UserError(f"release {release.name}: no audit of rows that each have their own draw")
    if release.kind == "laplace" and release.rate < 1:
        raise UserError(f"release {release.name}: no audit of Laplace noise on drawn records")
    if release.bounded == "votes":
        return _Votes
    if release.sampling == "one_shard_of_k":
        return _Shards
    if release.bounded == "function":
        return _Functions
    # What adds and removes single records of a Poisson batch here is DP-SGD; its answers pass Opacus' clip.
    dp_sgd = release.sampling == "poisson" and release.adjacency == "add_or_remove" and release.kind == "gaussian"
    return _Gradients if dp_sgd else _Sums


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
    shapes = [_shape(release) for release in releases]
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
