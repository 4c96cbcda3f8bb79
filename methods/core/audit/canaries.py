"""Canaries of every shape of release: what they contribute to one use, and what its answer says of their coins."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from methods.core.privacy.grant import Grant
from methods.core.privacy.moments import unpacked
from methods.core.release import Release
from workflow.common.errors import UserError

if TYPE_CHECKING:
    from methods.core.privacy.dp_sgd import PrivateOptimizer

# A contribution in units of the clip: so large that a missing clip shows, small enough for single precision.
_EXCESS = 1e3
# Nominal seconds of a use on one core: of the grant itself, and per entry of a row and of noise. They only divide a
# budget of work between canaries and uses, in the same way on every machine.
_PER_USE, _PER_DP_SGD_USE, _PER_ENTRY, _PER_NOISE = 1.7e-4, 1.2e-3, 8e-9, 1.5e-8


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


class _Moments(Canaries):
    """Records with two coordinates of their own, whose rows lie on the diagonal between them.

    On the False side a row lies on the other diagonal, or it has another class: the two worst exchanges that there are,
    which canaries take in turn.
    """

    @classmethod
    def most(cls, release: Release) -> int:
        return max(1, min(release.rows, 32))

    @property
    def seconds(self) -> float:
        return _PER_USE + 4 * self.count**2 * (_PER_NOISE + 2 * self.count * _PER_ENTRY)

    def evidence(self, grant: Grant, coins: torch.Tensor) -> np.ndarray:
        own = torch.arange(self.count)
        turned = (own % 2 == 0) & ~coins
        classes = ((own % 2 == 1) & ~coins).long()
        size = torch.where(coins, torch.tensor(self.large), torch.tensor(_EXCESS))
        rows = torch.zeros(self.count, self.count, 2)
        rows[own, own] = torch.stack([size, torch.where(turned, -size, size)], dim=1)
        present = coins | (not self.absent)
        asked = rows.flatten(1)[present], classes[present]
        seen = unpacked(grant.moments([asked], classes=2, width=2 * self.count))
        # [count, classes, 2, 2]: of each canary, the part of both matrices that it alone can move.
        blocks = seen.view(2, self.count, 2, self.count, 2)[:, own, :, own]
        high = 1.0 if self.absent else math.sqrt(0.5)
        between = (blocks * self._directions(own)).sum((1, 2, 3))
        return self._ratio(between, high, 0.0 if self.absent else -high, 0.0, self.release.scale)

    def _directions(self, own: torch.Tensor) -> torch.Tensor:
        """Returns [count, 2, 2, 2] of norm 1, from where a canary lies on its False side to where on its True side."""
        here, nowhere = torch.full((2, 2), 0.5, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
        if self.absent:
            return torch.stack([here, nowhere]).expand(self.count, -1, -1, -1)
        turned = torch.stack([1 - torch.eye(2, dtype=torch.float64), nowhere])
        moved = torch.stack([here, -here])
        return torch.where((own % 2 == 0)[:, None, None, None], turned, moved) / math.sqrt(2)


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


def shape_of(release: Release) -> type[Canaries]:
    """Returns the canaries that fit a release. Raises UserError where none do."""
    if release.kind == "none":
        raise UserError(f"release {release.name} adds no noise: there is no epsilon to audit")
    if release.draws == "per_row" and release.rate < 1:
        raise UserError(f"release {release.name}: no audit of rows that each have their own draw")
    if release.kind == "laplace" and release.rate < 1:
        raise UserError(f"release {release.name}: no audit of Laplace noise on drawn records")
    if release.bounded == "votes":
        return _Votes
    if release.bounded == "moments":
        return _Moments
    if release.sampling == "one_shard_of_k":
        return _Shards
    if release.bounded == "function":
        return _Functions
    # What adds and removes single records of a Poisson batch here is DP-SGD; its answers pass Opacus' clip.
    dp_sgd = release.sampling == "poisson" and release.adjacency == "add_or_remove" and release.kind == "gaussian"
    return _Gradients if dp_sgd else _Sums
