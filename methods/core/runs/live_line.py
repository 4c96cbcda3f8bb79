"""What a run that trains says of itself: one line on stderr, and private/progress.json for `python -m methods watch`.

It tells what log.csv tells and what follows from public numbers: steps, time, and the epsilon of the charges so far.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from methods.core.accounting import along
from methods.core.privacy.ledger import Ledger
from methods.core.runs.plan import Plan
from workflow.common import live
from workflow.common.live import Live

LOG_SECONDS = 60.0  # between lines where stderr is no terminal
TOLD_SECONDS = 5.0  # between words to progress.json
COUNT_SECONDS = 10.0  # before the first epsilon
_MARKS = 8  # words to progress.json over which the rate is taken
_COUNT_SHARE = 0.01  # of the time, at most, goes into counting epsilon


class LiveLine:
    """The line of one run, from its first step in this process to its last, or to what ends it before."""

    def __init__(self, plan: Plan, folder: Path, step: int, steps: int) -> None:
        self._plan, self._folder = plan, folder
        self._name = f"{plan.run} {plan.public.dataset}"
        # Training begins with a checkpoint, or goes on from one.
        self._live = Live(step, steps, checkpoint=step)
        begun = time.monotonic()
        self._marks = deque([(begun, step)], maxlen=_MARKS)
        self._logged = self._told = begun
        self._count_at = begun + COUNT_SECONDS
        # It cuts the line to the terminal's width, and redraws it ten times a second at most.
        self._bar = tqdm(
            total=steps, initial=step, bar_format="{desc} {bar}", leave=False, dynamic_ncols=True, disable=None
        )

    def __enter__(self) -> LiveLine:
        live.tell(self._folder, self._live)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._bar.close()
        if error is not None:
            stopped = isinstance(error, SystemExit | KeyboardInterrupt)
            reason = "" if stopped else " ".join(str(error).split()) or type(error).__name__
            state = live.STOPPED if stopped else live.FAILED
            live.tell(self._folder, replace(self._live, state=state, reason=reason))

    def ended(self, step: int, ledger: Ledger, row: Mapping[str, float] | None) -> None:
        """Notes that `step` steps have ended, and what the last of them added to log.csv, if anything."""
        now = time.monotonic()
        values = self._live.values if row is None else {name: row[name] for name in row if name != "step"}
        self._live = replace(self._live, step=step, values=values, rate=self._rate(step, now))
        if now >= self._count_at:
            self._count(ledger, now)
        if now - self._told >= TOLD_SECONDS:
            self._told = now
            self._marks.append((now, step))
            live.tell(self._folder, self._live)
        # A terminal that was closed, or a full disk below a job's log, ends no training: this is a word to a reader.
        with contextlib.suppress(OSError):
            self._say(now)

    def saved(self) -> None:
        """Notes that a checkpoint keeps the steps that have ended; told at once, since a kill may follow."""
        self._live = replace(self._live, checkpoint=self._live.step)
        live.tell(self._folder, self._live)

    def _rate(self, step: int, now: float) -> float:
        then, before = self._marks[0]
        return (step - before) / (now - then) if now > then else 0.0

    def _count(self, ledger: Ledger, now: float) -> None:
        budget = self._plan.budget
        if not self._plan.costs or budget.accounting not in self._plan.costs:
            self._count_at = math.inf
            return
        spent = along.spent(ledger.spent(), budget.delta, budget.accounting)
        spent = min(spent, self._plan.costs[budget.accounting])
        self._live = replace(self._live, epsilon=spent if math.isfinite(spent) else None)
        took = time.monotonic() - now
        self._count_at = now + max(COUNT_SECONDS, took / _COUNT_SHARE)

    def _say(self, now: float) -> None:
        if not self._bar.disable:
            self._bar.set_description_str(self._text(), refresh=False)
            self._bar.update(self._live.step - self._bar.n)
        elif now - self._logged >= LOG_SECONDS:
            self._logged = now
            print(self._text(), file=sys.stderr, flush=True)

    def _text(self) -> str:
        budget = self._plan.budget
        return f"{self._name}: {self._live.line(budget.epsilon, budget.accounting)}"
