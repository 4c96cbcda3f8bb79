"""The privacy ledger: every private read is charged first, on disk, against a plan checked before training.

A run opens its ledger with the plan of all its releases. Each use appends a line before any data is read, and either
that line or one that reserves the use is on disk by then, so whatever happens the file never shows less than was spent.
A ledger that was cut, edited, exchanged or restored is refused: see `ledger_lines`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
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
from methods.core.privacy import ledger_lines
from methods.core.privacy.answers import Answers, unsaved
from methods.core.privacy.grant import Grant
from methods.core.privacy.ledger_lines import Position
from methods.core.privacy.noise import NoiseSource
from methods.core.release import Budget, Release
from workflow.common.errors import UserError, unknown
from workflow.common.files import cannot_write, sync_folder
from workflow.common.locks import not_locked

# How often at most a run's release waits for the disk: a machine that goes down shortens the run by one part of these.
_RESERVATIONS = 200
KEY_BYTES = 32
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class BudgetExhausted(Exception):
    """All uses of a release are spent."""


class Ledger:
    """The charges of one run, kept in a JSON-lines file.

    The first line is the plan and the budget; each further line is one charge, uses reserved ahead, that the answer of
    a use is kept, or the first internal read for a reason. Lines stay spent whatever happens to the run, and a line cut
    short by a crash counts as one use of every release. A charge that waits for the disk takes milliseconds, so a
    release of many uses reserves half a percent of them at a time and waits once. A killed process loses none of them:
    what it wrote is the system's. If the machine went down, all that was reserved counts as spent. The noise comes from
    `noise_key` and the number of the use (see NoiseSource).
    """

    def __init__(
        self,
        path: Path,
        releases: tuple[Release, ...],
        budget: Budget,
        noise: NoiseSource,
        run: str | None = None,
        answers: Answers | None = None,
    ) -> None:
        self._path = path
        self._releases = {release.name: release for release in releases}
        self._budget = budget
        self._noise = noise
        self._run = run
        self._answers = answers
        self._uses: Counter[str] = Counter()
        self._granted: Counter[str] = Counter()
        self._reserved: Counter[str] = Counter()
        self._internal: Counter[str] = Counter()
        self._chain = ledger_lines.Chain()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab+", buffering=0)
        except OSError as error:
            raise cannot_write(path, error) from None
        try:
            # Against a second process; within one, `_append` notices lines it did not write.
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise not_locked(error, path, path) from None

    @classmethod
    def open(
        cls,
        path: str | Path,
        releases: Sequence[Release],
        budget: Budget,
        resume: bool = False,
        noise_key: bytes | None = None,
        *,
        run: str | None = None,
        since: Position | None = None,
        answers: Answers | None = None,
    ) -> Ledger:
        """Opens a new ledger, or continues one with `resume`; use it as a context manager or close it.

        Noise and secret draws of records follow from `noise_key`, so it must stay secret and serve one plan and one set
        of records alone. Without it the operating system gives one, and the run can be neither resumed nor repeated.

        Args:
            run: names the run in the first line.
            since: where the ledger stood when the state was stored from which the run continues.
            answers: where the answers of releases of few uses are kept: without it, a use charged is never granted
                again; with it, one that was charged after `since` is, and gives the answer that is kept, or its first.

        Raises UserError, before any data can be read or anything is written, for a plan that `check_plan` refuses, if a
        new ledger's file already exists (starting over would refund what it spent), or if a resumed file is missing,
        holds another plan or run, was changed in the middle, or shows less than `since`.
        """
        releases, path = tuple(releases), Path(path)
        check_plan(releases, budget)
        if resume and not path.exists():
            raise UserError(f"cannot resume: no ledger at {path}; remove the run's folder to start again")
        if not resume and path.exists() and path.stat().st_size:
            raise UserError(f"{path} exists, and what it spent stays spent; resume the run, or remove its folder")
        key = secrets.token_bytes(KEY_BYTES) if noise_key is None else noise_key
        ledger = cls(path, releases, budget, NoiseSource(key), run, answers)
        try:
            ledger._replay(since)
        except OSError as error:
            ledger.close()
            raise cannot_write(path, error) from None
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
        release, use = self._releases[name], self._next(name)
        if use > release.max_uses:
            raise BudgetExhausted(f"all {release.max_uses} uses of release {name} are spent")
        self._granted[name] = use
        charged = use <= self._uses[name]
        if not charged:
            # Counted before it is written: if writing fails half way, the use is gone here too.
            self._uses[name] = use
            self._append({"charge": name, "use": use}, durable=not self._is_reserved(release, use))
        try:
            with self._lend(release, use, charged) as grant:
                yield grant
        finally:
            self._pass_over(name)

    @contextlib.contextmanager
    def internal(self, reason: str) -> Iterator[Grant]:
        """Yields a grant that reads but releases nothing, for state that never leaves the run's private folder.

        Free. Logged once per reason and process, with the total when the ledger is closed. The ledger is released, so
        `reason` and how often there is one must follow from public values: it names no record, draw or score.
        """
        if not self._internal[reason]:
            self._append({"internal": reason}, durable=False)
        self._internal[reason] += 1
        with self._lend(None, self._internal[reason]) as grant:
            yield grant

    def uses(self, name: str) -> int:
        """Returns the number of the last use of release `name` that the run has come to; 0 before the first.

        All of them are spent. Where a kept answer is given again, more may be spent than the run has come to.
        """
        if name not in self._releases:
            raise unknown("release", name, self._releases)
        return self._granted[name]

    def position(self) -> Position:
        """Returns how far the ledger has come, once all of that is on disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise cannot_write(self._path, error) from None
        return Position(self._chain.size, self._chain.digest, {name: self._granted[name] for name in self._releases})

    def epsilon(self, accounting: str) -> float:
        """Returns epsilon at the budget's delta of what is spent so far, as "published" or "sound" counts it."""
        return epsilon(self.spent(), self._budget.delta, accounting)

    def spent(self) -> tuple[Release, ...]:
        """Returns the releases with what is spent of each so far in the place of the uses it may have."""
        return tuple(release.used(self._uses[name]) for name, release in self._releases.items())

    def close(self) -> None:
        """Writes the counts of internal reads and closes the file; further charges fail."""
        if self._file.closed:
            return
        try:
            # For information alone, so a full disk does not matter here.
            with contextlib.suppress(UserError, OSError):
                if os.fstat(self._file.fileno()).st_size == self._chain.size:
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

    def _next(self, name: str) -> int:
        """Returns the number of the use that the next grant of a release is for."""
        use = self._granted[name] + 1
        while use <= self._uses[name] and not self._answers.may_grant_again(self._releases[name], use):
            use += 1
        return use

    def _pass_over(self, name: str) -> None:
        """Counts the next uses as come to where they were lost, so that nobody waits for them."""
        self._granted[name] = self._next(name) - 1

    @contextlib.contextmanager
    def _lend(self, release: Release | None, use: int, charged: bool = False) -> Iterator[Grant]:
        keep = None
        if release is not None and self._answers is not None and not unsaved(release):
            # Another answer of the same use would be a second one, so a machine that goes down must not forget this.
            note = functools.partial(self._append, durable=not self._answers.repeatable)
            keep = self._answers.keep(release, use, note, charged)
        grant = Grant(release, self._noise, use, keep)
        try:
            yield grant
        finally:
            grant.close()

    def _is_reserved(self, release: Release, use: int) -> bool:
        """Reserves further uses where that is due and says whether this one is among the reserved."""
        ahead = min(use + release.max_uses // _RESERVATIONS - 1, release.max_uses)
        if use > self._reserved[release.name] and ahead > use and (boot := _boot()):
            self._append({"reserve": release.name, "use": ahead, "boot": boot}, durable=True)
            self._reserved[release.name] = ahead
        return use <= self._reserved[release.name]

    def _append(self, record: dict[str, Any], durable: bool) -> None:
        if os.fstat(self._file.fileno()).st_size != self._chain.size:
            raise UserError(f"{self._path} was changed by another writer; resume the run to count what it spent")
        line = self._chain.line(record)
        try:
            self._write(line)
            if durable:
                os.fsync(self._file.fileno())
        except OSError as error:
            # Nothing was granted for this line, so a retry need not pay for it.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fileno(), self._chain.size)
            raise cannot_write(self._path, error) from None
        self._chain.add(line)

    def _write(self, line: bytes) -> None:
        # A write that is cut short says why with the next one.
        while line:
            line = line[self._file.write(line) :]

    def _header(self) -> dict[str, Any]:
        plan = [release.to_dict() for release in self._releases.values()]
        budget = dataclasses.asdict(self._budget)
        if math.isinf(self._budget.epsilon):
            budget["epsilon"] = "inf"
        # Written only where it is true, so that ledgers begun before there was such a field can be continued.
        if not budget["over_budget"]:
            del budget["over_budget"]
        return {"plan": plan, "budget": budget} | ({"run": self._run} if self._run else {})

    def _replay(self, since: Position | None) -> None:
        self._file.seek(0)
        text = self._file.read() or b""
        # A header cut short was never followed by a charge: charges wait until it is on disk.
        if since is None and b"\n" not in text:
            os.ftruncate(self._file.fileno(), 0)
            self._append(self._header(), durable=True)
            sync_folder(self._path.parent)
            return
        header, *records = ledger_lines.checked(self._path, text, since, self._releases)
        if header != json.loads(json.dumps(self._header())):
            raise UserError(f"{self._path} holds another plan or budget; use the settings it was started with")
        self._uses = ledger_lines.uses(self._releases, records, _boot()) | Counter(since.uses if since else {})
        self._granted = Counter(self._uses)
        if since is not None and self._answers is not None:
            self._answers.check_charged(self._releases.values(), self._uses)
            self._answers.recall(records)
            # Those of many uses are never granted again: what became of their answers is not kept.
            for name in [name for name, release in self._releases.items() if not unsaved(release)]:
                self._granted[name] = since.uses[name]
                self._pass_over(name)
        self._chain.add(text)
        if not text.endswith(b"\n"):
            self._write(b"\n")
            self._chain.add(b"\n")
            os.fsync(self._file.fileno())


def _boot() -> str | None:
    """Returns what names this run of the operating system, None where it does not say."""
    try:
        return _BOOT.read_text(encoding="ascii").strip() or None
    except OSError:
        return None
