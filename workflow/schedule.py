"""How long the jobs of a graph still take: learnt from those that have ended here, then played through to the end."""

from __future__ import annotations

import heapq
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from workflow.common.live import hear

# Ten expected seconds at the preset's pace weigh as much as ten measured ones: the first short jobs say little.
_TRUST = 10.0


@dataclass
class Task:
    """A job.

    Attributes:
        seconds: what the preset expects, of one job on one core.
        needs: the ids of the jobs it waits for.
        name: for people.
        rule, kind: whose jobs take alike; a training's kind is its run or method.
        threads, priority: as Snakemake has them.
        measured: seconds that this same job took in an earlier call, if it did.
        folder: of a training, where it says how far it is.
        started, ended: as `time.monotonic`; `failed` where it ended so and will not be tried again.
    """

    seconds: float
    needs: frozenset[int] = frozenset()
    name: str = ""
    rule: str = ""
    kind: str = ""
    threads: int = 1
    priority: float = 0
    measured: float | None = None
    folder: Path | None = None
    started: float | None = None
    ended: float | None = None
    failed: bool = False


@dataclass
class Costs:
    """What jobs took on this machine, and what is expected of others from that.

    A job is expected to take what jobs of its rule and kind took on average. Where none has ended yet, the preset's
    seconds count, as much longer or shorter as the rule's other jobs took, or all jobs if none of the rule has ended.
    """

    # Rule and kind -> how many jobs have ended, the seconds expected of them together, and those they took.
    found: dict[tuple[str, str], tuple[int, float, float]] = field(default_factory=dict)

    def learn(self, rule: str, kind: str, seconds: float, took: float) -> None:
        """Notes that a job, of which the preset expects `seconds`, took so many."""
        count, expected, before = self.found.get((rule, kind), (0, 0.0, 0.0))
        self.found[rule, kind] = (count + 1, expected + seconds, before + took)

    def expected(self, task: Task) -> float:
        """Returns the seconds of a whole job."""
        if task.measured is not None:
            return task.measured
        if alike := self.found.get((task.rule, task.kind)):
            return alike[2] / alike[0]
        of_rule = [totals for (rule, _), totals in self.found.items() if rule == task.rule]
        return task.seconds * _pace(of_rule or list(self.found.values()))


def _pace(totals: Iterable[tuple[int, float, float]]) -> float:
    _, expected, took = (sum(column) for column in zip(*totals, strict=True)) if totals else (0, 0.0, 0.0)
    return (took + _TRUST) / (expected + _TRUST)


@dataclass
class Schedule:
    """The jobs of a call by id, on `slots` cores, or on as many machines as a cluster gives."""

    tasks: dict[int, Task]
    slots: int
    costs: Costs = field(default_factory=Costs)

    @property
    def done(self) -> int:
        """Jobs that have ended well."""
        return sum(task.ended is not None and not task.failed for task in self.tasks.values())

    @property
    def failed(self) -> int:
        """Jobs that have failed for good, so far."""
        return sum(task.failed for task in self.tasks.values())

    @property
    def running(self) -> list[str]:
        """Names of the jobs that have started and not ended."""
        return [task.name for task in self.tasks.values() if task.started is not None and task.ended is None]

    def start(self, key: int, now: float) -> None:
        """Notes that a job begins, perhaps once more."""
        task = self.tasks[key]
        task.started, task.ended, task.failed = now, None, False

    def end(self, key: int, now: float, least: float = 0.0) -> None:
        """Notes that a job has ended well, and learns from it; `least` seconds, if it began in an earlier call."""
        task = self.tasks[key]
        task.ended, task.failed = now, False
        if task.started is not None:
            self.costs.learn(task.rule, task.kind, task.seconds, max(now - task.started, least))

    def fail(self, key: int, now: float) -> None:
        """Notes that a job has failed; if it is tried again, it starts again."""
        self.tasks[key].ended, self.tasks[key].failed = now, True

    def seconds_left(self, now: float) -> float:
        """Returns the seconds until the last job ends, as the machine takes them: no job is split between cores.

        Jobs that wait for a failed one will not run.
        """
        left = {key: self._left(task, now) for key, task in self.tasks.items() if task.ended is None}
        waits = {key: self._waits(key) for key in left}
        lost = self._lost(waits)
        running, ready, free, clock = [], [], self.slots, 0.0
        for key in left:
            if self.tasks[key].started is not None:
                heapq.heappush(running, (left[key], key))
                free -= self._width(key)
            elif key not in lost and not waits[key]:
                heapq.heappush(ready, self._place(key, left))
        heirs = defaultdict(list)
        for key in left:
            for need in waits[key]:
                heirs[need].append(key)
        while running or ready:
            free = self._begin(ready, running, free, clock, left)
            clock, ended = heapq.heappop(running)
            free += self._width(ended)
            for key in heirs[ended]:
                waits[key].discard(ended)
                if not waits[key] and key not in lost:
                    heapq.heappush(ready, self._place(key, left))
        return clock

    def _begin(self, ready: list, running: list, free: int, clock: float, left: dict[int, float]) -> int:
        """Begins what finds room, the most important first, and returns how many slots are free then."""
        later = []
        while ready:
            place = heapq.heappop(ready)
            key = place[-1]
            if self._width(key) <= free or not running:
                heapq.heappush(running, (clock + left[key], key))
                free -= self._width(key)
            else:
                later.append(place)
            if free <= 0:
                break
        for place in later:
            heapq.heappush(ready, place)
        return free

    def _place(self, key: int, left: dict[int, float]) -> tuple[float, float, int]:
        return -self.tasks[key].priority, -left[key], key

    def _width(self, key: int) -> int:
        return min(self.tasks[key].threads, self.slots)

    def _waits(self, key: int) -> set[int]:
        """Returns which jobs a job still waits for; a failed one it would wait for without end."""
        needs = (need for need in self.tasks[key].needs if need in self.tasks)
        return {need for need in needs if self.tasks[need].ended is None or self.tasks[need].failed}

    def _lost(self, waits: dict[int, set[int]]) -> set[int]:
        """Returns the jobs that wait for a failed one, through others or not."""
        lost: set[int] = {key for key, task in self.tasks.items() if task.failed}
        while more := {key for key, needs in waits.items() if key not in lost and needs & lost}:
            lost |= more
        return lost

    def _left(self, task: Task, now: float) -> float:
        live = hear(task.folder) if task.folder else None
        if task.started is not None and live and live.is_alive(time.time()) and live.seconds_left is not None:
            return live.seconds_left
        expected = self.costs.expected(task)
        if task.started is None:
            # A checkpoint of an earlier call has done a part of it.
            return expected * (1 - live.step / live.steps) if live and live.steps else expected
        took = now - task.started
        # A job beyond its expected time has shown that this was too short: it may need a tenth more of what it took.
        return max(expected - took, 0.1 * max(expected, took))
