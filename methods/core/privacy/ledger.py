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
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from methods.core.accounting.calibration import check_plan, epsilon
from methods.core.privacy.grant import Grant
from methods.core.privacy.noise import NoiseSource
from methods.core.release import Budget, Release
from workflow.common.errors import UserError, unknown

# How often at most a run's release waits for the disk: a machine that goes down shortens the run by one part of these.
_RESERVATIONS = 200
KEY_BYTES = 32
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class BudgetExhausted(Exception):
    """All uses of a release are spent."""


class Ledger:
    """The charges of one run, kept in a JSON-lines file.

    The first line is the plan and the budget; each further line is one charge, uses reserved ahead, or the first
    internal read for a reason. Lines stay spent whatever happens to the run, and a line cut short by a crash counts as
    one use of every release. A charge that waits for the disk takes milliseconds, so a release of many uses reserves
    half a percent of them at a time and waits once. A killed process loses none of them: what it wrote is the system's.
    If the machine went down, all that was reserved counts as spent. The noise comes from `noise_key` and the number
    of the use (see NoiseSource).
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
        noise_key: bytes | None = None,
    ) -> Ledger:
        """Opens a new ledger, or continues one with `resume`; use it as a context manager or close it.

        Noise and secret draws of records follow from `noise_key`, so it must stay secret and serve one plan and one set
        of records alone. Without it the operating system gives one, and the run can be neither resumed nor repeated.

        Raises UserError, before any data can be read, for a plan that `check_plan` refuses, if a new ledger's file
        already exists (starting over would refund what it spent), or if a resumed file is missing or holds another
        plan.
        """
        releases, path = tuple(releases), Path(path)
        check_plan(releases, budget)
        if resume and not path.exists():
            raise UserError(f"cannot resume: no ledger at {path}; remove the run's folder to start again")
        if not resume and path.exists() and path.stat().st_size:
            raise UserError(f"{path} exists, and what it spent stays spent; resume the run, or remove its folder")
        key = secrets.token_bytes(KEY_BYTES) if noise_key is None else noise_key
        ledger = cls(path, releases, budget, NoiseSource(key))
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
    except (ValueError, RecursionError):
        return None
