"""One trial on one data set and budget: the graph's own commands, each measured in seconds of a core and cut off."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from methods.core import registry
from workflow.common.contracts import format_epsilon
from workflow.common.durations import describe
from workflow.common.errors import UserError
from workflow.common.files import read_object, write_json
from workflow.common.seeds import derive
from workflow.grid import Config, canonical
from workflow.tune.rows import Row
from workflow.tune.trials import OVER_TIME, REFUSED, SCORED, Cell

ROOT = Path(__file__).resolve().parents[2]
SCORE = "g2r_cnn"
# Before it replaces the shell: a command that has had its seconds of a core is ended by the system, by a signal of its
# own. The system counts by samples, so that the seconds reported at the end are some per cent more or fewer. Beside the
# command a shell waits for the end of its stdin, which is that of the search, and then ends the group, itself included.
_LIMITED = (
    'ulimit -c 0 && ulimit -S -t "$1" || exit 125; shift; exec 3<&0 </dev/null;'
    ' { read -r nothing; kill -s KILL 0; } <&3 >/dev/null 2>&1 & exec 3<&-; exec "$@"'
)
_HAD_ITS_TIME = -signal.SIGXCPU
# What waits takes no seconds of a core, so a hanging command is ended by the clock. Neither of the two is a setting:
# a machine so busy that a command has less than a 24th of a core is not one to measure on, and an hour leaves room for
# libraries that load from a slow disk when a run has next to no time left.
CLOCK_TIMES, CLOCK_LEAST = 24.0, 3600.0
# What is told to end may take so long for its last step: then what hangs is ended too, and who waits is not kept.
GRACE = 60.0
_LOOK = 0.05
_MISUSE = 2
TRAINING = ["methods", "train"]
# The commands that say no to settings which do not go together, or with the machine's memory.
REFUSING = (["methods", "plan"], TRAINING)
# Made once for all trials of a row, and in the preset for several rows: it counts as a row's time, not as a run's.
SHARED, LONGEST = ["methods", "warm-start"], 3600.0
RUNS = "runs"


class Failed(Exception):
    """A command ended in a way that a machine may be to blame for, and that says nothing of settings."""


class Stopped(Exception):
    """The search ends before this command could."""


def clock_seconds(limit: float) -> float:
    """Returns the seconds by the clock that a command may have whose limit is so many seconds of a core."""
    return max(CLOCK_LEAST, CLOCK_TIMES * limit)


@functools.cache
def _lifeline() -> int:
    """Returns a file that ends when this process does, killed or not: nothing else holds the end to write into."""
    return os.pipe()[0]


@dataclass
class Commands:
    """Runs commands, from several threads, until `stop`. What a command has started ends with it, or with this process.

    Attributes:
        running: the processes at work, each the first of a process group.
        hanging: those that were ended by the clock.
    """

    running: set[subprocess.Popen] = field(default_factory=set)
    hanging: set[subprocess.Popen] = field(default_factory=set)
    stopped: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def stop(self) -> None:
        """Ends what runs, after GRACE or a second signal by force, and lets nothing begin."""
        with self._lock:
            self.stopped = True
            for process in self.running:
                # Unlike Popen's own, this reaps nothing: what is in `running` is there, if only as a zombie.
                os.kill(process.pid, signal.SIGTERM)
        until = time.monotonic() + GRACE
        try:
            while self._is_at_work() and time.monotonic() < until:
                time.sleep(_LOOK)
        finally:
            with self._lock:
                for process in self.running:
                    self._end_group(process)

    def _is_at_work(self) -> bool:
        with self._lock:
            return not all(map(_has_ended, self.running))

    def seconds(self, arguments: list[str], log: Path, limit: float) -> tuple[int, float]:
        """Runs `python -m` with arguments; returns its exit code and the seconds of a core that it took.

        Ended by the system after `limit` seconds of a core. Raises Failed for a command that was still there after
        `clock_seconds` of that, and Stopped after `stop`.
        """
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
        command = ["sh", "-c", _LIMITED, "sh", str(max(1, math.ceil(limit))), sys.executable, "-m", *arguments]
        with log.open("ab") as file, self._lock:
            if self.stopped:
                raise Stopped
            process = subprocess.Popen(
                command, stdin=_lifeline(), stdout=file, stderr=file, env=environment, process_group=0
            )  # fmt: skip
            self.running.add(process)
        code, seconds = self._ended(process, clock_seconds(limit))
        if self.stopped:
            raise Stopped
        if process in self.hanging:
            raise Failed(
                f"python -m {arguments[0]} hangs: after {describe(clock_seconds(limit))} by the clock it had taken"
                f" {seconds:.0f} of {limit:.0f} s of a core, and was ended; see {log}"
            )
        return code, seconds

    def _ended(self, process: subprocess.Popen, clock: float) -> tuple[int, float]:
        """Waits for a process, `clock` seconds at most; returns its exit code and the seconds of a core it took."""
        timer = threading.Timer(clock, self._hangs, [process])
        timer.daemon = True
        timer.start()
        # Not reaped yet, so that its number is still that of its group.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        timer.cancel()
        with self._lock:
            self._end_group(process)
            # Before it is reaped: whoever ends what is in `running` must not meet another process of its number.
            self.running.discard(process)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            _reap_orphans(process.pid)
        return process.returncode, usage.ru_utime + usage.ru_stime

    def _hangs(self, process: subprocess.Popen) -> None:
        with self._lock:
            # It may have ended while this waited for the lock.
            if process in self.running and not _has_ended(process):
                self.hanging.add(process)
                self._end_group(process)

    def _end_group(self, process: subprocess.Popen) -> None:
        # macOS refuses the signal to a group of which only the ended first process is left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _reap_orphans(group: int) -> None:
    """Reaps what is left of a group that was killed, where this process is given orphans, as a container's first is.

    There nobody else would, and what waits beside each command would stay in the table of processes until it is full.
    """
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-group, 0)


def _has_ended(process: subprocess.Popen) -> bool:
    """Returns whether a process that is not reaped yet has ended."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


@dataclass(frozen=True)
class Place:
    """Where a search works, on which protocol, and for how many seconds of a core at most on one run and its training.

    A warm start is no part of these: it is there before all runs that begin with it, and may take LONGEST times the
    machine's `time_factor`.
    """

    out: Path
    config: Config
    limit: float
    seed: int
    train_limit: float = math.inf
    time_factor: float = 1.0

    def data(self, dataset: str) -> Path:
        """Returns the folder of a prepared data set."""
        return self.out / "data" / dataset

    def run(self, row: Row, trial: int, cell: Cell, settings: Mapping[str, Any], commands: Commands) -> Outcome:
        """Trains, samples and scores; what it made is removed again, but warm starts, which a row's trials share.

        Raises Failed for a command that hangs or ended for another reason than time or settings, for the first trial
        if it takes too much time, and Stopped.
        """
        name = f"{row.run.name}-trial{trial}-{cell[0]}-eps{format_epsilon(cell[1])}"
        log = self.out / "logs" / f"{name}.log"
        for parent in (log.parent, self.out / RUNS):
            parent.mkdir(exist_ok=True)
        log.unlink(missing_ok=True)
        # Another folder each time: a command of a search that was killed may still write into its own.
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.out / RUNS))
        # A run that ended without a result may have made its warm start: this one has the use of that, and pays.
        taken = shared = self._owed(row)
        for arguments in self._commands(row, cell, settings, folder):
            limit = self._limit(arguments, taken - shared)
            code, seconds = commands.seconds(arguments, log, limit)
            taken += seconds
            if arguments[:2] == SHARED:
                shared += seconds
                write_json(self._debt(row), {"seconds": shared})
            if code == 0 and seconds <= limit:
                continue
            # The first trial's settings are the preset's: over time or refused, they tell of the machine or the data.
            if code == _HAD_ITS_TIME or seconds > limit:
                if not trial:
                    words = " ".join(itertools.takewhile(lambda word: not word.startswith("-"), arguments))
                    raise Failed(
                        f"{name}: with the settings before the search, python -m {words} takes more than the"
                        f" {limit:.0f} s of a core that it may have, and other trials have nothing to be compared with;"
                        " search this row where nothing else runs, or with a larger --time-factor if the machine is"
                        " slower than the one of the preset's seconds"
                    )
                return self._ended(row, folder, OVER_TIME, taken)
            if trial and code == _MISUSE and arguments[:2] in REFUSING:
                return self._ended(row, folder, REFUSED, taken)
            raise Failed(f"{name}: python -m {arguments[0]} ended with code {code}; see {log}")
        score = read_object(folder / "utility.json", "utility.json").get(SCORE)
        return self._ended(row, folder, SCORED, taken, score)

    def _limit(self, arguments: list[str], taken: float) -> float:
        """Returns the seconds of a core that a command of a run may have, after others that took so many."""
        if arguments[:2] == SHARED:
            return LONGEST * self.time_factor
        left = self.limit - taken
        return min(left, self.train_limit) if arguments[:2] == TRAINING else left

    def _debt(self, row: Row) -> Path:
        """Returns the file of the seconds that a row's warm starts took and that no result counts yet."""
        return self.out / "critics" / f"{row.run.name}-owed.json"

    def _owed(self, row: Row) -> float:
        debt = self._debt(row)
        return float(read_object(debt).get("seconds", 0.0)) if debt.exists() else 0.0

    def _ended(self, row: Row, folder: Path, outcome: str, seconds: float, score: float | None = None) -> Outcome:
        shutil.rmtree(folder)
        self._debt(row).unlink(missing_ok=True)
        return Outcome(outcome, seconds, score)

    def _commands(self, row: Row, cell: Cell, settings: Mapping[str, Any], folder: Path) -> Iterator[list[str]]:
        """Yields the commands in turn: those of the graph's rules, but for what the score does not need."""
        (dataset, epsilon), run, config = cell, row.run, self.config
        data, seed, threads = self.data(dataset), str(self.seed), ["--threads", "1"]
        train, card, protocol = str(data / "train.npz"), str(data / "card.json"), config.protocol_of(dataset)
        plan, samples = str(folder / "plan.json"), str(folder / "samples.npz")
        yield [
            "methods", "plan", "--method", run.method, "--run", run.name, "--hyper", canonical(settings),
            "--card", card, "--epsilon", format_epsilon(epsilon), "--delta", str(config.delta),
            "--accounting", run.accounting, "--seed", seed, "--out", plan,
        ]  # fmt: skip
        start = registry.load(run.method).warm_start(registry.hyper(run.method, settings))
        critics = []
        if start is not None:
            # Of the row alone: each pays for its own, once.
            made = self.out / "critics" / f"{run.name}-{dataset}-{derive(self.seed, canonical(start)):x}"
            critics = ["--warm-start", str(made)]
            yield [
                "methods", "warm-start", "--method", run.method, "--settings", canonical(start), "--card", card,
                "--data", train, "--seed", seed, *threads, "--out", str(made),
            ]  # fmt: skip
        yield ["methods", "train", "--plan", plan, "--data", train, *critics, *threads, "--out", str(folder)]
        number = str(protocol["num_samples"])
        yield ["methods", "sample", "--run", str(folder), "--num", number, *threads, "--out", samples]
        yield [
            "evaluation.utility", "--samples", samples, "--test", str(data / "test.npz"), "--protocol",
            json.dumps(protocol), "--directions", "g2r", "--seed", seed, *threads,
            "--out", str(folder / "utility.json"),
        ]  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """How a trial on one data set and budget ended, after how many seconds of a core, with which score if any."""

    outcome: str
    seconds: float
    score: float | None = None


def prepare(place: Place, commands: Commands) -> None:
    """Removes what a killed search left, and makes the data sets that are not there yet.

    Raises UserError where one cannot be made.
    """
    shutil.rmtree(place.out / RUNS, ignore_errors=True)
    for dataset in place.config.tuning["datasets"]:
        if (place.data(dataset) / "card.json").exists():
            continue
        log = place.out / "logs" / f"data-{dataset}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            code, _ = commands.seconds(["workflow.datasets", dataset, "--out", str(place.data(dataset))], log, 3600)
        except Failed as error:
            raise UserError(f"data set {dataset} could not be made: {error}") from None
        if code:
            raise UserError(f"data set {dataset} could not be made; see {log}")
