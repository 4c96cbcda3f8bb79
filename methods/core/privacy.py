"""The privacy ledger: every private read is charged first, on disk, against a plan checked before training.

A run opens its ledger with the plan of all its releases. Each use appends a line before any data is read, and either
that line or one that reserves the use is on disk by then, so whatever happens the file never shows less than was spent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from methods.core.mechanisms import NoiseSource, clip_rows, count_votes
from methods.core.release import Budget, PublicSpec, Release
from workflow.common.errors import UserError, unknown

__all__ = [
    "Budget", "BudgetExhausted", "Grant", "Ledger", "PublicSpec", "Release", "UnaccountedAccess",
    "calibrate", "check_plan", "epsilon", "fits",
]  # fmt: skip

# Bisection ends within rounding of the budget; this is far below what any table prints.
_SLACK = 1e-9
# How often at most a run's release waits for the disk: a machine that goes down shortens the run by one part of these.
_RESERVATIONS = 200
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def epsilon(releases: Iterable[Release], delta: float, accounting: str) -> float:
    """Returns what `accountants.epsilon` does."""
    # On first use: its libraries take as long to load as torch, and drawing samples does without them.
    from methods.core import accountants

    return accountants.epsilon(releases, delta, accounting)


def calibrate(make_releases: Callable[[float], Sequence[Release]], budget: Budget) -> float:
    """Returns what `accountants.calibrate` does."""
    from methods.core import accountants

    return accountants.calibrate(make_releases, budget)


class BudgetExhausted(Exception):
    """All uses of a release are spent."""


class UnaccountedAccess(Exception):
    """Private data was asked for, or an answer released, without a grant that covers it."""


class Grant:
    """Permission to read private data and to release at most one answer, as one Release describes it.

    Made by the ledger alone. It is `open` from entering `ledger.charge` or `ledger.internal` until the block ends or
    the answer is released. Noise and clip come from the release, never from the caller.
    """

    def __init__(self, release: Release | None, noise: NoiseSource, use: int) -> None:
        self._release = release
        self._noise = noise
        self._use = use
        self._open = True

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
        return torch.from_numpy(np.flatnonzero(self._draws().random(num_records) < release.rate))

    def shard(self) -> int:
        """Returns the shard, 0 .. K - 1, that this use drew of the K = 1 / rate of the release; secret as above.

        Raises UnaccountedAccess unless the grant is open and its release samples by "one_shard_of_k" or "all" (K = 1).
        """
        release = self._sampled("one_shard_of_k", "all")
        return int(self._draws().integers(round(1 / release.rate)))

    def gaussian(self, rows: torch.Tensor) -> torch.Tensor:
        """Returns rows [R, D] of a "function" release, each clipped in L2, plus N(0, release.scale^2) per entry.

        Non-finite rows count as zero; R may be anything from 0 to release.rows. Kind "none" returns rows unchanged.
        Raises UnaccountedAccess if the grant is closed, spent or internal, ValueError for too many rows or a release of
        another kind.
        """
        return self._rows("gaussian", rows)

    def laplace(self, rows: torch.Tensor) -> torch.Tensor:
        """Like `gaussian`, clipped in L1, with Laplace noise of scale release.scale."""
        return self._rows("laplace", rows)

    def gaussian_sum(
        self, chunks: Iterable[torch.Tensor], width: int | None = None, device: torch.device | str | None = None
    ) -> torch.Tensor:
        """Returns the sum [D] of a "sum" release's rows, each clipped in L2, plus N(0, release.scale^2) once.

        With several `answers`, a row is that many blocks of D / answers entries, each clipped on its own.

        `chunks` yields rows [R_i, D], one row per record, and is read lazily, so per-record gradients need not fit in
        memory together. An empty batch still answers with noise: pass one chunk [0, D], or `width` D (and `device`).
        Raises as `gaussian` does.
        """
        return self._sum("gaussian", chunks, width, device)

    def laplace_sum(
        self, chunks: Iterable[torch.Tensor], width: int | None = None, device: torch.device | str | None = None
    ) -> torch.Tensor:
        """Like `gaussian_sum`, clipped in L1, with Laplace noise of scale release.scale."""
        return self._sum("laplace", chunks, width, device)

    def gaussian_votes(self, choices: torch.Tensor, bins: int) -> torch.Tensor:
        """Returns the counts [answers, bins] of a "votes" release, plus N(0, release.scale^2) each; kind "none": exact.

        `choices` int64 [R, answers] holds the bin, 0 .. bins - 1, that each voter names in each ballot. Raises as
        `gaussian` does, and ValueError for a bin or a number of ballots that does not exist.
        """
        release = self._claim("gaussian", "votes")
        _check_rows(release, choices, len(choices))
        if choices.shape[1] != release.answers:
            raise ValueError(f"release {release.name} has {release.answers} ballots, got {choices.shape[1]}")
        if choices.numel() and (int(choices.min()) < 0 or int(choices.max()) >= bins):
            raise ValueError(f"release {release.name}: votes must name a bin 0 .. {bins - 1}")
        counts = count_votes(choices, bins)
        self.close()
        if release.kind == "none":
            return counts
        return counts + self._noise.draw("gaussian", counts, release.scale, release.name, self._use)

    def gaussian_noise(self, like: torch.Tensor) -> torch.Tensor:
        """Returns N(0, release.scale^2) of `like`'s shape: the noise of a "sum" that a library has clipped and summed.

        Answers the release and closes the grant, as `gaussian_sum` does; kind "none" gives zeros.
        """
        release = self._claim("gaussian", "sum")
        self.close()
        if release.kind == "none":
            return torch.zeros_like(like)
        return self._noise.draw("gaussian", like, release.scale, release.name, self._use)

    def _sampled(self, *sampling: str) -> Release:
        if not self._open or self._release is None or self._release.sampling not in sampling:
            raise UnaccountedAccess(f"drawing records needs an open grant of a release with sampling {sampling[0]}")
        return self._release

    def _draws(self) -> np.random.Generator:
        return self._noise.stream(self._release.name, self._use, "records")

    def _claim(self, kind: str, bounded: str) -> Release:
        if not self._open or self._release is None:
            raise UnaccountedAccess("this grant is closed, spent or internal; charge the ledger for each answer")
        if self._release.kind not in (kind, "none") or self._release.bounded != bounded:
            raise ValueError(
                f"release {self._release.name} is {self._release.kind} / {self._release.bounded}, "
                f"not {kind} / {bounded}"
            )
        return self._release

    def _rows(self, kind: str, rows: torch.Tensor) -> torch.Tensor:
        release = self._claim(kind, "function")
        _check_rows(release, rows, len(rows))
        self.close()
        if release.kind == "none":
            return rows.detach()
        clipped = clip_rows(rows, release.clip, kind)
        return clipped + self._noise.draw(kind, clipped, release.scale, release.name, self._use)

    def _sum(
        self, kind: str, chunks: Iterable[torch.Tensor], width: int | None, device: torch.device | str | None
    ) -> torch.Tensor:
        release = self._claim(kind, "sum")
        total = None if width is None else torch.zeros(width, device=device)
        count = 0
        for rows in chunks:
            count += len(rows)
            _check_rows(release, rows, count)
            part = _clipped_blocks(release, rows, kind).sum(0)
            total = part if total is None else total + part
        if total is None:
            raise ValueError(f"release {release.name}: an empty sum needs its width")
        self.close()
        if release.kind == "none":
            return total
        return total + self._noise.draw(kind, total, release.scale, release.name, self._use)


def _clipped_blocks(release: Release, rows: torch.Tensor, kind: str) -> torch.Tensor:
    if release.kind == "none":
        return rows.detach()
    if rows.shape[1] % release.answers:
        raise ValueError(f"release {release.name} answers {release.answers} sums, got rows of {rows.shape[1]} entries")
    blocks = rows.reshape(len(rows) * release.answers, rows.shape[1] // release.answers)
    return clip_rows(blocks, release.clip, kind).view(rows.shape)


def _check_rows(release: Release, rows: torch.Tensor, count: int) -> None:
    if rows.ndim != 2:
        raise ValueError(f"release {release.name} takes rows [R, D], got {list(rows.shape)}")
    if count > release.rows:
        raise ValueError(f"release {release.name} allows {release.rows} rows a use, got {count}")


class Ledger:
    """The charges of one run, kept in a JSON-lines file.

    The first line is the plan and the budget; each further line is one charge, uses reserved ahead, or the first
    internal read for a reason. Lines stay spent whatever happens to the run, and a line cut short by a crash counts as
    one use of every release. A charge that waits for the disk takes milliseconds, so a release of many uses reserves
    half a percent of them at a time and waits once. A killed process loses none of them: what it wrote is the system's.
    If the machine went down, all that was reserved counts as spent. The noise comes from `noise_stream`'s seed and the
    number of the use (see NoiseSource).
    """

    def __init__(self, path: Path, releases: tuple[Release, ...], budget: Budget, noise: NoiseSource) -> None:
        self._path = path
        self._releases = {release.name: release for release in releases}
        self._budget = budget
        self._noise = noise
        self._uses: Counter[str] = Counter()
        self._reserved: Counter[str] = Counter()
        self._internal: Counter[str] = Counter()
        self._end = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab+", buffering=0)
        try:
            # Against a second process; within one, `_append` notices lines it did not write.
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise UserError(f"{path} is in use by another process; wait for it to end") from None

    @classmethod
    def open(
        cls,
        path: str | Path,
        releases: Sequence[Release],
        budget: Budget,
        resume: bool = False,
        noise_stream: torch.Generator | None = None,
    ) -> Ledger:
        """Opens a new ledger, or continues one with `resume`; use it as a context manager or close it.

        Only the initial seed of `noise_stream` is used; without it the noise is seeded by the operating system and the
        run is not reproducible. A real deployment must keep that seed secret.

        Raises UserError, before any data can be read, for a plan that `check_plan` refuses, if a new ledger's file
        already exists (starting over would refund what it spent), or if a resumed file is missing or holds another
        plan.
        """
        releases, path = tuple(releases), Path(path)
        check_plan(releases, budget)
        if resume and not path.exists():
            raise UserError(f"cannot resume: no ledger at {path}; remove the run's folder to start anew")
        if not resume and path.exists() and path.stat().st_size:
            raise UserError(f"{path} exists, and what it spent stays spent; resume the run, or remove its folder")
        seed = secrets.randbits(63) if noise_stream is None else noise_stream.initial_seed()
        ledger = cls(path, releases, budget, NoiseSource(seed))
        try:
            ledger._replay()
        except BaseException:
            ledger.close()
            raise
        return ledger

    @contextlib.contextmanager
    def charge(self, name: str) -> Iterator[Grant]:
        """Spends one use of release `name` and yields its grant; that is on disk before the block runs.

        Nothing refunds it: neither an exception in the block nor leaving without an answer. Raises BudgetExhausted when
        max_uses are spent, UserError for an unknown name.
        """
        if name not in self._releases:
            raise unknown("release", name, self._releases)
        release, use = self._releases[name], self._uses[name] + 1
        if use > release.max_uses:
            raise BudgetExhausted(f"all {release.max_uses} uses of release {name} are spent")
        # Counted before it is written: if writing fails half way, the use is gone here too.
        self._uses[name] = use
        self._append({"charge": name, "use": use}, durable=not self._is_reserved(release, use))
        with self._lend(release, use) as grant:
            yield grant

    @contextlib.contextmanager
    def internal(self, reason: str) -> Iterator[Grant]:
        """Yields a grant that reads but releases nothing, for state that never leaves the run's private folder.

        Free. Logged once per reason and process, with the total when the ledger is closed.
        """
        if not self._internal[reason]:
            self._append({"internal": reason}, durable=False)
        self._internal[reason] += 1
        with self._lend(None, self._internal[reason]) as grant:
            yield grant

    def uses(self, name: str) -> int:
        """Returns how many uses of release `name` are spent, by this process and before it."""
        if name not in self._releases:
            raise unknown("release", name, self._releases)
        return self._uses[name]

    def epsilon(self, accounting: str) -> float:
        """Returns epsilon at the budget's delta of what is spent so far, as "published" or "sound" counts it."""
        spent = tuple(release.used(self._uses[name]) for name, release in self._releases.items())
        return epsilon(spent, self._budget.delta, accounting)

    def close(self) -> None:
        """Writes the counts of internal reads and closes the file; further charges fail."""
        if self._file.closed:
            return
        try:
            if os.fstat(self._file.fileno()).st_size == self._end:
                for reason, count in self._internal.items():
                    self._append({"internal": reason, "count": count}, durable=False)
        finally:
            self._internal.clear()
            self._file.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _lend(self, release: Release | None, use: int) -> Iterator[Grant]:
        grant = Grant(release, self._noise, use)
        try:
            yield grant
        finally:
            grant.close()

    def _is_reserved(self, release: Release, use: int) -> bool:
        """Reserves further uses where that is due and says whether this one is among the reserved."""
        ahead = min(use + release.max_uses // _RESERVATIONS - 1, release.max_uses)
        if use > self._reserved[release.name] and ahead > use and (boot := _boot()):
            self._reserved[release.name] = ahead
            self._append({"reserve": release.name, "use": ahead, "boot": boot}, durable=True)
        return use <= self._reserved[release.name]

    def _append(self, record: dict[str, Any], durable: bool) -> None:
        if os.fstat(self._file.fileno()).st_size != self._end:
            raise UserError(f"{self._path} was changed by another writer; resume the run to count what it spent")
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        written = self._file.write(line)
        if written != len(line):
            raise OSError(f"could not write to {self._path}: disk full?")
        self._end += written
        if durable:
            os.fsync(self._file.fileno())

    def _header(self) -> dict[str, Any]:
        plan = [release.to_dict() for release in self._releases.values()]
        budget = dataclasses.asdict(self._budget)
        if math.isinf(self._budget.epsilon):
            budget["epsilon"] = "inf"
        # Written only where it is true, so that ledgers begun before there was such a field can be continued.
        if not budget["over_budget"]:
            del budget["over_budget"]
        return {"plan": plan, "budget": budget}

    def _replay(self) -> None:
        self._file.seek(0)
        text = self._file.read() or b""
        self._end = len(text)
        lines = text.removesuffix(b"\n").split(b"\n")
        # A header cut short was never followed by a charge: charges wait until it is on disk.
        if len(lines) <= 1 and not text.endswith(b"\n"):
            os.ftruncate(self._file.fileno(), 0)
            self._end = 0
            self._append(self._header(), durable=True)
            return
        if _parse(lines[0]) != json.loads(json.dumps(self._header())):
            raise UserError(f"{self._path} holds another plan or budget; use the settings it was started with")
        for line in lines[1:]:
            self._recount(_parse(line))
        for name, uses in self._reserved.items():
            self._uses[name] = max(self._uses[name], uses)
        self._reserved.clear()
        if not text.endswith(b"\n"):
            self._end += self._file.write(b"\n")
            os.fsync(self._file.fileno())

    def _recount(self, record: Any) -> None:
        if isinstance(record, dict) and "internal" in record:
            return
        if isinstance(record, dict) and record.get("charge") in self._releases:
            # The number too: lines before it may be gone with the machine that wrote them.
            name, use = record["charge"], record.get("use")
            self._uses[name] = max(self._uses[name] + 1, use if isinstance(use, int) else 0)
            return
        if isinstance(record, dict) and record.get("reserve") in self._releases and isinstance(record.get("use"), int):
            # While the system runs on, it holds every line that a process wrote, so the charges themselves tell.
            if record.get("boot") != _boot():
                name = record["reserve"]
                self._reserved[name] = max(self._reserved[name], record["use"])
            return
        # An unreadable line was a charge of some release, so each is charged; a spent one cannot have been meant.
        for name, release in self._releases.items():
            self._uses[name] = min(self._uses[name] + 1, max(release.max_uses, self._uses[name]))


def _boot() -> str | None:
    """Returns what names this run of the operating system, None where it does not say."""
    try:
        return _BOOT.read_text(encoding="ascii").strip() or None
    except OSError:
        return None


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def fits(releases: Sequence[Release], budget: Budget) -> bool:
    """Returns whether a plan costs no more than a finite budget by the budget's accounting."""
    return epsilon(releases, budget.delta, budget.accounting) <= budget.epsilon * (1 + _SLACK)


def check_plan(releases: Sequence[Release], budget: Budget) -> None:
    """Raises UserError for a plan that may not be run under a budget.

    It is refused if it costs more than the budget by its accounting (unless the budget is marked over_budget), if it
    has an un-noised release under a finite budget, or if names repeat.
    """
    names = [release.name for release in releases]
    if len(set(names)) != len(names):
        raise UserError(f"a plan needs distinct release names, got {', '.join(names)}")
    if budget.accounting == "none":
        return
    bare = [release.name for release in releases if release.kind == "none"]
    if bare:
        raise UserError(f"release {bare[0]} adds no noise, which needs epsilon inf and accounting none")
    if not budget.over_budget and not fits(releases, budget):
        cost = epsilon(releases, budget.delta, budget.accounting)
        raise UserError(
            f"the plan costs epsilon {cost:.4f} by {budget.accounting} accounting, over the budget of "
            f"{budget.epsilon:g} at delta {budget.delta:g}; use fewer uses or rows, a lower rate, or more noise, or say"
            " over_budget: true in the run's configuration (--over-budget) to train it all the same"
        )
