"""How far a run of the benchmark is and about how long is left, printed to stderr next to Snakemake's own messages."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workflow.common.errors import UserError
from workflow.common.readers.csv_text import read_cells
from workflow.common.readers.numbers import parse_number

FALLBACK_SECONDS = 5.0  # a rule without measured or configured cost, such as a table
EVERY_SECONDS = 60.0


def measured_seconds(path: str | Path | None) -> float | None:
    """Returns the wall seconds of a Snakemake benchmark file, or None where there is no whole one."""
    try:
        (_, heads), (_, cells), *_ = read_cells(path or "", delimiter="\t")
        return parse_number(dict(zip(heads, cells, strict=True))["s"])
    except (UserError, ValueError, KeyError):
        return None


@dataclass
class Task:
    """A job: its expected seconds, the ids of the jobs it waits for, its name, and when it started and ended."""

    seconds: float
    needs: frozenset[int] = frozenset()
    name: str = ""
    started: float | None = None
    ended: float | None = None


@dataclass
class Schedule:
    """The jobs of a run by id, and what is left of them on `cores` slots."""

    tasks: dict[int, Task]
    slots: int
    pace: float = field(default=1.0, init=False)

    @property
    def done(self) -> int:
        """Jobs that have ended."""
        return sum(task.ended is not None for task in self.tasks.values())

    @property
    def running(self) -> list[str]:
        """Names of the jobs that have started and not ended."""
        return [task.name for task in self.tasks.values() if task.started is not None and task.ended is None]

    def _rescale(self) -> None:
        """Learns how this machine compares with the expectations from the jobs that have ended."""
        ended = [task for task in self.tasks.values() if task.ended is not None and task.started is not None]
        expected = sum(task.seconds for task in ended)
        # Ten expected seconds at the present pace weigh as much as ten measured ones: the first short jobs say little.
        self.pace = (sum(task.ended - task.started for task in ended) + 10.0) / (expected + 10.0)

    def _left(self, task: Task, now: float) -> float:
        if task.ended is not None:
            return 0.0
        expected = task.seconds * self.pace
        # A job beyond its expected time is taken to need a tenth of it more.
        return expected if task.started is None else max(expected - (now - task.started), 0.1 * expected)

    def seconds_left(self, now: float) -> float:
        """Returns the larger of the work left per slot and the longest chain of jobs left, in seconds."""
        self._rescale()
        chain: dict[int, float] = {}

        def length(key: int) -> float:
            if key not in chain:
                task = self.tasks[key]
                before = max((length(need) for need in task.needs if need in self.tasks), default=0.0)
                chain[key] = before + self._left(task, now)
            return chain[key]

        work = sum(self._left(task, now) for task in self.tasks.values()) / self.slots
        return max(work, max(map(length, self.tasks), default=0.0))


def describe(seconds: float) -> str:
    """Returns a duration for people: "40 s", "12 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def line(schedule: Schedule, elapsed: float, now: float) -> str:
    """Returns the progress line."""
    left = describe(schedule.seconds_left(now))
    running = f"; running {', '.join(schedule.running)}" if schedule.running else ""
    steps = f"{schedule.done}/{len(schedule.tasks)} steps"
    return f"progress: {steps}, {describe(elapsed)} elapsed, about {left} left{running}"


def job_name(rule: str, wildcards: Mapping[str, str]) -> str:
    """Returns a job's name for people: its rule and what distinguishes it."""
    parts = {"epsilon": "eps{}", "seed": "seed{}"}
    return " ".join([rule, *(parts.get(key, "{}").format(value) for key, value in wildcards.items())])


class Brief(logging.Filter):
    """Leaves out Snakemake's messages that the progress line makes superfluous."""

    def filter(self, record: logging.LogRecord) -> bool:
        superfluous = str(getattr(record, "event", "") or "") in ("job_started", "job_finished", "progress")
        return not superfluous and record.getMessage() != "Select jobs to execute..."


class Progress(logging.Handler):
    """Watches Snakemake's log events; prints a line after each job and once a minute in between.

    Args:
        cost: rule -> expected seconds of one job; for `train`, method -> seconds. A job's own benchmark file from an
            earlier call comes first.
    """

    def __init__(self, cost: Mapping[str, Any], method_of: Callable[[Any], str] | None = None) -> None:
        super().__init__()
        self.cost = cost
        self.method_of = method_of
        self.schedule = Schedule({}, 1)
        self.begun = 0.0
        self.over = threading.Event()

    def expected(self, job: Any) -> float:
        """Returns the expected seconds of a Snakemake job."""
        known = measured_seconds(job.benchmark)
        if known is not None:
            return known
        cost = self.cost.get(job.rule.name, FALLBACK_SECONDS)
        if isinstance(cost, Mapping):
            name = self.method_of(job.wildcards) if self.method_of else ""
            cost = cost.get(name, max(cost.values(), default=FALLBACK_SECONDS))
        return float(cost)

    def start(self, workflow: Any) -> None:
        """Reads the jobs to run from the workflow's graph and begins to report; for Snakemake's `onstart`.

        Under `--quiet rules` Snakemake's own messages about jobs give way to the progress line.
        """
        dag = workflow.dag
        tasks = {
            dag.jobid(job): Task(
                self.expected(job),
                frozenset(dag.jobid(need) for need in dag.dependencies[job]),
                job_name(job.rule.name, job.wildcards_dict),
            )
            for job in dag.needrun_jobs()
            if job.rule.name != "all"
        }
        self.schedule = Schedule(tasks, max(int(workflow.cores or 1), 1))
        self.begun = time.monotonic()
        logger = logging.getLogger("snakemake.logging")
        if "RULES" in {part.name for part in workflow.output_settings.quiet or ()}:
            for handler in logger.handlers:
                handler.addFilter(Brief())
        logger.addHandler(self)
        threading.Thread(target=self._tick, daemon=True).start()
        self.report()

    def stop(self) -> None:
        """Ends the reports; for `onsuccess` and `onerror`."""
        self.over.set()
        logging.getLogger("snakemake.logging").removeHandler(self)

    def _tick(self) -> None:
        while not self.over.wait(EVERY_SECONDS):
            self.report()

    def report(self) -> None:
        """Prints the progress line."""
        now = time.monotonic()
        print(line(self.schedule, now - self.begun, now), file=sys.stderr, flush=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Marks jobs as started or ended."""
        event, now = str(getattr(record, "event", "") or ""), time.monotonic()
        if event == "job_started":
            for key in record.jobs:
                if key in self.schedule.tasks:
                    self.schedule.tasks[key].started = now
        elif event == "job_finished" and record.job_id in self.schedule.tasks:
            self.schedule.tasks[record.job_id].ended = now
            self.report()
