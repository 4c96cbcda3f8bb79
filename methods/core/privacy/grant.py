"""The permission that a charge buys: to read private data, and to release one clipped and noised answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

from methods.core.privacy.moments import packed, second_moments
from methods.core.privacy.noise import NoiseSource, clip_rows, count_votes, on_grid
from methods.core.release import Release
from methods.core.speed.transfers import sent

# Takes an answer's shape and what makes it; returns it, or the one that this use was given before.
Keep = Callable[[Sequence[int], Callable[[], torch.Tensor]], torch.Tensor]


class UnaccountedAccess(Exception):
    """Private data was asked for, or an answer released, without a grant that covers it."""


class Grant:
    """Permission to read private data and to release at most one answer, as one Release describes it.

    Made by the ledger alone, and for random records by a rehearsal. It is `open` from entering `ledger.charge` or
    `ledger.internal` until the block ends or the answer is released. Noise and clip come from the release, never from
    the caller. With `keep`, the answer passes through it before the caller sees it.
    """

    def __init__(self, release: Release | None, noise: NoiseSource, use: int, keep: Keep | None = None) -> None:
        self._release = release
        self._noise = noise
        self._use = use
        self._keep = keep
        self._open = True
        self._answered = False

    @property
    def release(self) -> Release | None:
        """What this grant may release; None for internal reads, which release nothing."""
        return self._release

    @property
    def open(self) -> bool:
        """Whether private data may still be read."""
        return self._open

    def close(self) -> None:
        """Ends the permission; the ledger calls it when its block ends."""
        self._open = False

    def poisson_batch(self, num_records: int) -> torch.Tensor:
        """Returns the record indices int64 [B] of this use's Poisson batch, drawn at the release's rate; B may be 0.

        The draw is secret: it comes from the seed of the noise. Raises UnaccountedAccess unless the grant is open and
        its release samples by "poisson".
        """
        release = self._sampled("poisson")
        return torch.from_numpy(np.flatnonzero(self._record_rng().random(num_records) < release.rate))

    def shard(self) -> int:
        """Returns the shard, 0 .. K - 1, that this use drew of the K = 1 / rate of the release; secret as above.

        Raises UnaccountedAccess unless the grant is open and its release samples by "one_shard_of_k" or "all" (K = 1).
        """
        release = self._sampled("one_shard_of_k", "all")
        return int(self._record_rng().integers(round(1 / release.rate)))

    def rows(self, rows: torch.Tensor) -> torch.Tensor:
        """Returns rows [R, D] of a "function" release, each clipped and with noise of scale release.scale per entry.

        Every answer of a grant is a multiple of release.grid.

        Kind gaussian clips in L2 and adds N(0, scale^2), kind laplace clips in L1 and adds Laplace noise, kind none
        returns the rows unchanged. Non-finite rows count as zero; R may be anything from 0 to release.rows. Raises
        UnaccountedAccess if the grant is closed, spent or internal, ValueError for too many rows or a release that is
        bounded otherwise.
        """
        release = self._claim("function")
        _check_rows(release, rows, len(rows))
        self.close()
        return self._noisy(rows.detach() if release.kind == "none" else clip_rows(rows, release.clip, release.kind))

    def sum(
        self, chunks: Iterable[torch.Tensor], width: int | None = None, device: torch.device | str | None = None
    ) -> torch.Tensor:
        """Returns the sum [D] of a "sum" release's rows, each clipped as `rows` clips, with noise added once.

        With several `answers`, a row is that many blocks of D / answers entries, each clipped on its own.

        `chunks` yields rows [R_i, D], one row per record, and is read lazily, so per-record gradients need not fit in
        memory together. An empty batch still answers with noise: pass one chunk [0, D], or `width` D (and `device`).
        Raises as `rows` does.
        """
        release = self._claim("sum")
        total = None if width is None else torch.zeros(width, dtype=torch.float64, device=device)
        count, precision = 0, torch.float32
        for rows in chunks:
            count += len(rows)
            _check_rows(release, rows, count)
            clipped = _clipped_blocks(release, rows)
            precision = clipped.dtype
            # Rounding grows with the rows, and there may be millions where all records are summed: in 32 bits one
            # record then moves the sum by more than the sensitivity.
            part = clipped.sum(0, dtype=torch.float64)
            total = part if total is None else total + part
        if total is None:
            raise ValueError(f"release {release.name}: an empty sum needs its width")
        self.close()
        return self._noisy(total).to(precision)

    def votes(self, choices: torch.Tensor, bins: int) -> torch.Tensor:
        """Returns the counts [answers, bins] of a "votes" release, plus N(0, release.scale^2) each; kind "none": exact.

        `choices` int64 [R, answers] holds the bin, 0 .. bins - 1, that each voter names in each ballot. Raises as
        `rows` does, and ValueError for a bin or a number of ballots that does not exist.
        """
        release = self._claim("votes")
        _check_rows(release, choices, len(choices))
        if choices.shape[1] != release.answers:
            raise ValueError(f"release {release.name} has {release.answers} ballots, got {choices.shape[1]}")
        if bool(((choices < 0) | (choices >= bins)).any()):
            raise ValueError(f"release {release.name}: votes must name a bin 0 .. {bins - 1}")
        counts = count_votes(choices, bins)
        self.close()
        return self._noisy(counts)

    def moments(self, chunks: Iterable[tuple[torch.Tensor, torch.Tensor]], classes: int, width: int) -> torch.Tensor:
        """Returns float64 [classes, D (D + 1) / 2], D = `width`: each class's sum of u u^T of a "moments" release.

        u is a row cut to norm 1, whatever came in, as `rows` cuts it; kind none sums the rows as they are. Matrices are
        packed by `privacy.moments.packed`, and each entry gets N(0, release.scale^2); `unpacked` undoes the packing.

        `chunks` yields rows [R_i, D], one a record, with their classes int64 [R_i], and is read lazily as by `sum`.
        None of them, or a class without rows, answers with noise alone. Raises as `rows` does, and ValueError for rows
        of another width, or a class outside 0 .. classes - 1.
        """
        release = self._claim("moments")
        total, count = torch.zeros(classes, width, width, dtype=torch.float64), 0
        for rows, labels in chunks:
            count += len(rows)
            _check_rows(release, rows, count)
            _check_classes(release, rows, labels, classes, width)
            part = rows.detach() if release.kind == "none" else clip_rows(rows, release.clip, release.kind)
            total = total.to(rows.device) + second_moments(part, labels, classes)
        self.close()
        return self._noisy(packed(total))

    def noise(self, total: torch.Tensor) -> torch.Tensor:
        """Returns a "sum" [...] that a library has clipped in L2 and summed, plus N(0, release.scale^2) per entry.

        Answers the release and closes the grant, as `sum` does. Raises ValueError for Laplace noise, which no library's
        L2 clip goes with.
        """
        release = self._claim("sum")
        if release.kind == "laplace":
            raise ValueError(f"release {release.name} adds laplace noise; sum its rows by the grant")
        self.close()
        return self._noisy(total)

    def _noisy(self, answer: torch.Tensor) -> torch.Tensor:
        """Returns the answer plus noise, added in float64 and rounded to the release's grid, in its own precision."""
        if self._keep is None:
            return self._with_noise(answer)
        return self._keep(answer.shape, lambda: self._with_noise(answer)).to(answer)

    def _with_noise(self, answer: torch.Tensor) -> torch.Tensor:
        release = self._release
        if not release.scale:
            return answer
        noise = self._noise.draw(release.kind, tuple(answer.shape), release.scale, release.name, self._use)
        return on_grid(answer.double() + sent(noise, answer.device), release.grid).to(answer.dtype)

    def _sampled(self, *sampling: str) -> Release:
        if not self._open or self._release is None or self._release.sampling not in sampling:
            raise UnaccountedAccess(f"drawing records needs an open grant of a release with sampling {sampling[0]}")
        return self._release

    def _record_rng(self) -> np.random.Generator:
        return self._noise.rng(self._release.name, self._use, "records")

    def _claim(self, bounded: str) -> Release:
        # Claimed before rows are read lazily, while reading is still allowed: the noise of a use serves one answer.
        if not self._open or self._answered or self._release is None:
            raise UnaccountedAccess("this grant is closed, spent or internal; charge the ledger for each answer")
        if self._release.bounded != bounded:
            raise ValueError(f"release {self._release.name} is a {self._release.bounded}, not a {bounded}")
        self._answered = True
        return self._release


def _clipped_blocks(release: Release, rows: torch.Tensor) -> torch.Tensor:
    if release.kind == "none":
        return rows.detach()
    if rows.shape[1] % release.answers:
        raise ValueError(f"release {release.name} answers {release.answers} sums, got rows of {rows.shape[1]} entries")
    blocks = rows.reshape(len(rows) * release.answers, rows.shape[1] // release.answers)
    return clip_rows(blocks, release.clip, release.kind).view(rows.shape)


def _check_rows(release: Release, rows: torch.Tensor, count: int) -> None:
    if rows.ndim != 2:
        raise ValueError(f"release {release.name} takes rows [R, D], got {list(rows.shape)}")
    if count > release.rows:
        raise ValueError(f"release {release.name} allows {release.rows} rows a use, got {count}")


def _check_classes(release: Release, rows: torch.Tensor, labels: torch.Tensor, classes: int, width: int) -> None:
    if rows.shape[1] != width or labels.shape != rows.shape[:1]:
        raise ValueError(
            f"release {release.name} takes rows [R, {width}] with a class each, got {list(rows.shape)} and"
            f" {list(labels.shape)}"
        )
    if labels.numel() and (int(labels.min()) < 0 or int(labels.max()) >= classes):
        raise ValueError(f"release {release.name}: classes are 0 .. {classes - 1}")
