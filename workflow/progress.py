"""How far a run of the benchmark is and about how long is left, printed to stderr next to Snakemake's own messages."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from workflow.common.durations import describe
from workflow.common.errors import UserError
from workflow.common.files import write_json
from workflow.common.readers.csv_text import read_cells
from workflow.common.readers.fields import fields, is_number
from workflow.common.readers.json_text import read_json
from workflow.common.readers.numbers import parse_number
from workflow.common.run_states import CALL, GRAPH
from workflow.schedule import Schedule, Task

FALLBACK_SECONDS = 5.0  # a rule without measured or configured cost, such as a table
EVERY_SECONDS = 60.0
# Of a call's time, what looking ahead may take: it takes longer the more jobs there are, and each job that ends asks.
LOOKING_SHARE = 0.02
MOST_NAMES = 8  # of running jobs in a line: a cluster runs hundreds
RUN_RULES = ("train", "external")  # whose first output lies in a run folder of its own


def measured_seconds(path: str | Path | None) -> float | None:
    """Returns the wall seconds of a Snakemake benchmark file, or None where there is no whole one."""
    try:
        (_, heads), (_, cells), *_ = read_cells(path or "", delimiter="\t")
        return parse_number(dict(zip(heads, cells, strict=True))["s"])
    except (UserError, ValueError, KeyError):
        return None


def line(schedule: Schedule, elapsed: float, now: float, left_seconds: float | None = None) -> str:
    """Returns the progress line; `left_seconds` are those left, if they are known already, or inf: nobody knows."""
    seconds = schedule.seconds_left(now) if left_seconds is None else left_seconds
    left = f", about {describe(seconds)} left" if math.isfinite(seconds) else ""
    shown = schedule.running[:MOST_NAMES]
    more = f" and {len(schedule.running) - len(shown)} more" if len(schedule.running) > len(shown) else ""
    running = f"; running {', '.join(shown)}{more}" if shown else ""
    steps = f"{schedule.done}/{len(schedule.tasks)} steps" + (f", {schedule.failed} failed" if schedule.failed else "")
    return f"progress: {steps}, {describe(elapsed)} elapsed{left}{running}"


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
        cost: rule -> expected seconds of one job; for `train`, run or method -> seconds. They count until jobs of that
            rule have ended on this machine, in this call or an earlier one.
        kind_of: wildcards -> the name by which a training's cost is listed.
        root: results/<preset>.
        times: rule and wildcards -> how many times the cost of its rule a job takes.
    """

    def __init__(
        self, cost: Mapping[str, Any], kind_of: Callable[[Any], str] | None = None, root: str | None = None,
        times: Callable[[str, Any], int] = lambda rule, wildcards: 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.cost, self.kind_of, self.root, self.times = cost, kind_of, root, times
        self.schedule = Schedule({}, 1)
        self.runs: list[str] = []
        self.call: dict[str, Any] = {}
        self.begun = 0.0
        # What was last seen ahead: when, the seconds left then, and when to look again.
        self.looked, self.left, self.due = 0.0, 0.0, 0.0
        self.over = threading.Event()

    def task(self, job: Any, needs: Iterable[int] = ()) -> Task:
        """Returns a Snakemake job as a task."""
        rule, (kind, cost) = job.rule.name, self._priced(job.rule.name, job.wildcards)
        return Task(
            cost, frozenset(needs), job_name(rule, job.wildcards_dict), rule, kind, int(job.threads),
            float(job.priority), _took(job), Path(job.output[0]).parent if rule == "train" else None,
        )  # fmt: skip

    def seconds(self, rule: str, wildcards: Any) -> float | None:
        """Returns the seconds that the preset expects of a job on one core, None where it says none of such jobs."""
        return self._priced(rule, wildcards)[1] if self.cost.get(rule) is not None else None

    def _priced(self, rule: str, wildcards: Any) -> tuple[str, float]:
        """Returns a job's kind and the seconds that the preset expects of it."""
        kind, cost = "", self.cost.get(rule, FALLBACK_SECONDS)
        if rule == "train" and self.kind_of:
            kind = self.kind_of(wildcards)
        if isinstance(cost, Mapping):
            cost = cost.get(kind, max(cost.values(), default=FALLBACK_SECONDS))
        return kind, float(cost) * self.times(rule, wildcards)

    def start(self, workflow: Any) -> None:
        """Reads the jobs to run from the workflow's graph and begins to report; for Snakemake's `onstart`.

        Under `--quiet rules` Snakemake's own messages about jobs give way to the progress line.
        """
        dag = workflow.dag
        # On a cluster each job has a machine, or a part of one, to itself.
        self.schedule = self._planned(dag, workflow.cores if workflow.local_exec else workflow.nodes)
        self.runs = sorted(str(Path(job.output[0]).parent) for job in dag.jobs if job.rule.name in RUN_RULES)
        self.begun = time.monotonic()
        every = sum(job.rule.name != "all" for job in dag.jobs)
        # By the clock, which its steps read too. Of a call that goes on where another was, they are fewer than all.
        begins = {"begun": time.time(), "steps": len(self.schedule.tasks), "all_steps": every}
        self.call = {"name": os.environ.get(CALL, ""), **begins}
        logger = logging.getLogger("snakemake.logging")
        if "RULES" in {part.name for part in workflow.output_settings.quiet or ()}:
            for handler in logger.handlers:
                handler.addFilter(Brief())
        logger.addHandler(self)
        threading.Thread(target=self._tick, daemon=True).start()
        self.report()

    def _planned(self, dag: Any, slots: int | None) -> Schedule:
        """Returns the jobs to run, before any has begun, and what is known of how long they take."""
        # A dry run has ended when it asks, and its jobs count as finished.
        wanted = {dag.jobid(job): job for job in dag.needrun_jobs(exclude_finished=False) if job.rule.name != "all"}
        tasks = {
            key: self.task(job, (dag.jobid(need) for need in dag.dependencies[job])) for key, job in wanted.items()
        }
        schedule = Schedule(tasks, max(int(slots or 1), 1))
        for job in dag.jobs:
            if (took := _took(job)) is not None:
                schedule.costs.learn(job.rule.name, *self._priced(job.rule.name, job.wildcards), took)
        return schedule

    def expected(self, workflow: Any) -> str:
        """Returns the line that says, at the end of a dry run, how long the call would take.

        Nothing where there is nothing to do, under `--quiet all`, or where nobody knows: a preset for a GPU says
        nothing of its trainings.
        """
        if "ALL" in {part.name for part in workflow.output_settings.quiet or ()}:
            return ""
        # A dry run takes `--jobs` neither for cores, as a call without `--cores` does, nor as a cluster's: that one is
        # meant is left in this setting alone.
        on_cluster = bool(workflow.nodes) and workflow.execution_settings.use_threads
        by_jobs = on_cluster or (workflow.nodes and workflow.cores == 1)
        schedule = self._planned(workflow.dag, workflow.nodes if by_jobs else workflow.cores)
        tasks = schedule.tasks.values()
        if not tasks or ("train" not in self.cost and any(task.rule == "train" for task in tasks)):
            return ""
        # Of jobs without limit, as many as there are.
        slots = min(schedule.slots, len(tasks)) if by_jobs else schedule.slots
        where = f"with {slots} at once" if on_cluster else f"on {slots} core{'s' * (slots > 1)}"
        took = describe(schedule.seconds_left(time.monotonic()))
        return f"expected: {len(tasks)} step{'s' * (len(tasks) > 1)}, about {took} {where}"

    def stop(self) -> None:
        """Ends the reports; for `onsuccess` and `onerror`."""
        self.over.set()
        logging.getLogger("snakemake.logging").removeHandler(self)
        self._tell("ended: " + line(self.schedule, time.monotonic() - self.begun, time.monotonic()))

    def kept(self) -> str:
        """Returns what Ctrl-C leaves, for its one line; nothing where no job has begun."""
        if not self.schedule.tasks:
            return ""
        steps = f"{self.schedule.done} of {len(self.schedule.tasks)} steps are finished and kept in {self.root}"
        trains = any(name.startswith("train ") for name in self.schedule.running)
        return f"{steps}{', a training that ran as far as it came' if trains else ''}; the same command continues"

    def results(self, workflow: Any) -> str:
        """Returns the line that says where the results of a call are that has made all it was asked for."""
        if any(job.rule.name == "report" for job in workflow.dag.jobs):
            return (
                f"results: open {self.root}/report.html; tables are in {self.root}/tables/, figures in"
                f" {self.root}/figures/, all numbers in {self.root}/scores.csv"
            )
        named = workflow.dag.targetfiles or [path for job in workflow.dag.targetjobs for path in job.output]
        files = sorted({str(path) for path in named})
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        return f"results: {', '.join(files[:3])}{more}"

    def _tick(self) -> None:
        while not self.over.wait(EVERY_SECONDS):
            self.report()

    def report(self) -> None:
        """Prints the progress line, and tells it whoever watches where it has looked ahead anew."""
        now = time.monotonic()
        looks = now >= self.due or self.schedule.done == len(self.schedule.tasks)
        if looks:
            self.looked, self.left = now, self.schedule.seconds_left(now)
        text = line(self.schedule, now - self.begun, now, max(0.0, self.left - (now - self.looked)))
        print(text, file=sys.stderr, flush=True)
        if looks:
            self._tell(text)
            ended = time.monotonic()
            self.due = ended + (ended - now) / LOOKING_SHARE

    def _tell(self, text: str) -> None:
        if self.root:
            told = {"runs": self.runs, "line": text, "updated": time.time(), "call": self.call}
            # For whoever watches; a disk that refuses is told by the jobs.
            with contextlib.suppress(UserError, OSError):
                write_json(Path(self.root, GRAPH), told)

    def emit(self, record: logging.LogRecord) -> None:
        """Marks jobs as started or ended."""
        event, now = str(getattr(record, "event", "") or ""), time.monotonic()
        tasks = self.schedule.tasks
        if event == "job_started":
            for key in tasks.keys() & set(record.jobs):
                self.schedule.start(key, now)
        elif event == "group_info":
            for key in sorted(tasks.keys() & {job.jobid for job in record.jobs}):
                self.schedule.start(key, now)
        elif event == "job_error" and record.jobid in tasks:
            self.schedule.fail(record.jobid, now)
        elif event == "group_error":
            # All steps of one submission: which of them failed is in its log.
            for key in tasks.keys() & {one["jobid"] for one in record.job_error_info}:
                self.schedule.fail(key, now)
        elif event == "job_finished" and record.job_id in tasks:
            folder = tasks[record.job_id].folder
            self.schedule.end(record.job_id, now, _trained(folder) if folder else 0.0)
            self.report()


def _took(job: Any) -> float | None:
    """Returns the seconds of a job in an earlier call; of a training, those before it was resumed as well."""
    seconds = measured_seconds(job.benchmark)
    if seconds is None or job.rule.name != "train":
        return seconds
    return max(seconds, _trained(Path(job.output[0]).parent))


def _trained(folder: Path) -> float:
    """Returns the seconds that a finished training took in all calls, 0 where none is told."""
    with contextlib.suppress(UserError, ValueError):
        return float(fields(read_json(folder / "run.json"), {"train_seconds": is_number})["train_seconds"])
    return 0.0
