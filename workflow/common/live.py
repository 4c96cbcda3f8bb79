"""private/progress.json of a run that trains: how far it is, for whoever watches. It is the run's own and no result."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from workflow.common.contracts import format_epsilon
from workflow.common.durations import describe
from workflow.common.errors import UserError
from workflow.common.files import write_json
from workflow.common.readers.fields import fields, is_number, is_object, is_one_of, is_text, is_whole
from workflow.common.readers.json_text import read_json
from workflow.common.rounding import up

TRAINING, STOPPED, FAILED = "training", "stopped", "failed"
STALE_SECONDS = 90.0  # since the last word of a run; or ten steps, where one takes longer than nine seconds


@dataclass(frozen=True)
class Live:
    """How far a run is.

    Attributes:
        step, steps: ended and planned ones.
        values: what the last line of log.csv says, without its step.
        rate: steps a second, 0 where none has ended yet.
        epsilon: spent so far, by the count that calibrated the run; None where that is not known (yet).
        state: TRAINING, STOPPED at a checkpoint, or FAILED; `reason` is the error's line.
        updated: seconds since 1970.
        checkpoint: ended steps that the last checkpoint keeps, from which a stopped run continues; None without one.
    """

    step: int
    steps: int
    values: Mapping[str, float] = field(default_factory=dict)
    rate: float = 0.0
    epsilon: float | None = None
    state: str = TRAINING
    reason: str = ""
    updated: float = 0.0
    host: str = ""
    pid: int = 0
    checkpoint: int | None = None

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the last step at this rate; None where no rate is known, or one so low that they are endless."""
        left = (self.steps - self.step) / self.rate if self.rate > 0 else math.inf
        return left if math.isfinite(left) else None

    def line(self, budget: float, accounting: str) -> str:
        """Returns in words how far the run is; `budget` is its epsilon, `accounting` the count that calibrated it."""
        parts = [f"step {self.step} of {self.steps}", *(f"{name} {value:.4g}" for name, value in self.values.items())]
        if self.seconds_left is not None:
            pace = f"{self.rate:.3g} steps/s" if self.rate >= 1 else f"{1 / self.rate:.3g} s/step"
            parts += [pace, f"about {describe(self.seconds_left)} left"]
        if self.epsilon is not None:
            parts.append(f"epsilon {up(self.epsilon, '.3g')} of {format_epsilon(budget)} spent ({accounting} count)")
        return ", ".join(parts)

    def is_alive(self, now: float) -> bool:
        """Returns whether the run still trains, as far as can be told from here at `now`, in seconds since 1970."""
        if self.state != TRAINING:
            return False
        if self.host == socket.gethostname() and not _exists(self.pid):
            return False
        return now - self.updated < max(STALE_SECONDS, 10 / self.rate if self.rate > 0 else 0.0)


def live_path(folder: Path) -> Path:
    """Returns where a run in progress says how far it is."""
    return folder / "private" / "progress.json"


def tell(folder: Path, live: Live) -> None:
    """Writes how far this process's run is. A disk that refuses is passed over: it is a word to a reader, no more."""
    told = {name: value for name, value in live.values.items() if math.isfinite(value)}
    now = replace(live, values=told, updated=time.time(), host=socket.gethostname(), pid=os.getpid())
    with contextlib.suppress(UserError, OSError):
        write_json(live_path(folder), asdict(now))


def hear(folder: Path) -> Live | None:
    """Returns what `tell` wrote last, None where nothing is told or it cannot be read."""
    path = live_path(folder)
    if not os.path.isfile(path):
        return None
    try:
        # What a run told before this field was there has none.
        content = fields({"checkpoint": None, **fields(read_json(path), {})}, _FIELDS)
        possible = (content["checkpoint"] or 0) <= content["step"] <= content["steps"]
        return Live(**{name: content[name] for name in _FIELDS}) if possible else None
    except (UserError, ValueError):
        return None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # Another user's.
        return True
    return True


def _is_values(value: Any) -> bool:
    return is_object(value) and all(
        is_text(name) and isinstance(one, int | float) and math.isfinite(one) for name, one in value.items()
    )


_FIELDS = {
    "step": is_whole(), "steps": is_whole(), "values": _is_values, "rate": is_number,
    "state": is_one_of(TRAINING, STOPPED, FAILED),
    "epsilon": lambda value: value is None or is_number(value), "reason": is_text, "updated": is_number,
    "host": is_text, "pid": is_whole(1, 2**31 - 1),
    "checkpoint": lambda value: value is None or is_whole()(value),
}  # fmt: skip
