"""`python -m workflow.tune search`: settings drawn at random are tried for every row, for the same time of a core.

Trial 0 of a row has the settings before the search; the others are drawn from the space that the method declares
(`SEARCH`), a function of seed, row and number alone. Each is trained, sampled and scored on held-out images of every
data set and budget of the preset's `tuning`, but where trial 0 was near a guess (`least_score`). A trial that would
take more than is left of the row's time, at what its trials have taken so far, is not begun; one that scores far less
than the best so far is not tried on the rest. Each result stands in trials.csv once it is there: the same command goes
on after a kill, and does a run that was killed anew. Machines share the work by --rows or --cells, and `choose` reads
all their files.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from workflow.common.contracts import format_epsilon
from workflow.common.durations import describe
from workflow.common.errors import UserError
from workflow.common.locks import locked
from workflow.common.options import number, whole
from workflow.common.provenance import provenance
from workflow.common.seeds import MOST_SEED
from workflow.tune import rows, rule, trials
from workflow.tune.one_run import Commands, Failed, Outcome, Place, prepare
from workflow.tune.rows import Row
from workflow.tune.trials import SCORED, Cell, Result

_MOST_MINUTES = 100_000
_LEAST_FACTOR, _MOST_FACTOR = 0.1, 100


def epilog(argv: Sequence[str]) -> str:
    """Returns what `--help` says below the options."""
    return __doc__ or ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    minutes = number("--minutes", 0, _MOST_MINUTES, open_low=True)
    rows.add_preset(parser, "whose rows")
    parser.add_argument("--rows", default="", help="some of them, with a comma between (default all that are tuned)")
    parser.add_argument("--cells", default="", help="some data sets and budgets, such as mnist_val:10,mnist_val:1")
    parser.add_argument("--minutes", type=minutes, help="of a core for each row, on all cells (default the preset's)")
    parser.add_argument(
        "--time-factor", type=number("--time-factor", _LEAST_FACTOR, _MOST_FACTOR), default=1.0,
        help="seconds of this machine that count as one: all limits on time are so many times as long (default 1)",
    )  # fmt: skip
    parser.add_argument("--cores", type=whole("--cores", 1, 1024), default=1, help="rows at once (default 1)")
    parser.add_argument("--seed", type=whole("--seed", 0, MOST_SEED), default=0, help="of draws and runs (default 0)")
    parser.add_argument("--out", type=Path, help="folder to work in (default results/tuning-PRESET)")


class Book:
    """All results of a search on disk, what is left of each row's time, and the line that says so."""

    def __init__(
        self, path: Path, tried: Iterable[Row], cells: Iterable[Cell], budget: float, seed: int,
        time_factor: float = 1.0,
    ) -> None:  # fmt: skip
        self.path, self.seed, self.cores, self.time_factor = path, seed, 1, time_factor
        self.results = trials.read(path) if path.exists() else []
        self.rows = {row.run.name: replace(row, cells=tuple(c for c in row.cells if c in cells)) for row in tried}
        # Of a part of the cells, that part of the time.
        self.budget = {row.run.name: budget * len(self.rows[row.run.name].cells) / len(row.cells) for row in tried}
        self.ended: set[str] = set()
        origin = provenance()
        self._machine = (origin["commit"] or "unknown")[:12] + ("+" if origin["modified"] else ""), origin["processor"]
        self._lock = threading.Lock()

    def of(self, run: str, trial: int | None = None) -> list[Result]:
        """Returns the results of a row, or of one of its trials, that count here."""
        own = self.rows[run].counted(one for one in self.results if one.seed == self.seed)
        return [one for one in own if trial in (None, one.trial)]

    def judged(self, run: str) -> list[Cell]:
        """Returns the cells that a row's trials are tried on here: all until the first trial has ended."""
        return self.rows[run].judged(self.of(run))

    def last(self, run: str) -> int:
        """Returns the number of the last trial of a row that began, -1 where none did."""
        return max((one.trial for one in self.of(run)), default=-1)

    def spent(self, run: str) -> float:
        """Returns the seconds that a row's runs took, as they count; the last may have taken more than was left."""
        return rule.spent(self.of(run))

    def left(self, run: str) -> float:
        """Returns the seconds of a core that a row has left."""
        return 0.0 if run in self.ended else max(0.0, self.budget[run] - self.spent(run))

    def may_begin(self, run: str) -> bool:
        """Returns whether a row's next trial fits into its time, at what its runs have taken."""
        return self.left(run) > 0 and rule.has_time(self.of(run), len(self.judged(run)), self.budget[run])

    def is_behind(self, run: str, trial: int) -> bool:
        """Returns whether what a trial has scored so far leaves no hope for it, beside trials before it."""
        return rule.is_behind(self.of(run), trial, self.judged(run))

    def check(self, row: Row) -> None:
        """Raises UserError where a row's trials would count, but are of other settings or another time factor."""
        if rule.is_of_another_preset(self.of(row.run.name), row.before):
            raise self.other_settings(row.run.name, 0)
        factors = {one.time_factor for one in self.of(row.run.name)}
        if other := factors - {self.time_factor}:
            raise UserError(
                f"{self.path}: trials of {row.run.name} had --time-factor {trials.exact(min(other))}, not"
                f" {trials.exact(self.time_factor)}; give it again, or take the lines of {row.run.name} out"
            )

    def other_settings(self, run: str, trial: int) -> UserError:
        """Returns the error of a trial that cannot go on, or count, as its settings are now others."""
        return UserError(
            f"{self.path}: trial {trial} of {run} began with other settings than it has now; go on at the commit that"
            f" began it, take the lines of {run} out, or give another --out"
        )

    def add(self, row: Row, trial: int, cell: Cell, settings: dict[str, Any], found: Outcome) -> None:
        """Writes a result, and the line of progress."""
        one = Result(
            row.run.name, row.run.method, trial, settings, *cell, self.seed, found.outcome, found.score,
            found.seconds, *self._machine, self.time_factor,
        )  # fmt: skip
        with self._lock:
            self.results.append(one)
            trials.write(self.path, self.results)
            print(self._line(one), file=sys.stderr, flush=True)

    def end(self, run: str) -> None:
        """Notes that a row has had its time."""
        with self._lock:
            self.ended.add(run)

    def _line(self, one: Result) -> str:
        shown = one.outcome if one.score is None else f"{one.score:.3f}"
        # By this machine's clock, as is what is printed of the run.
        left = describe(sum(map(self.left, self.budget)) * self.time_factor / self.cores)
        shares = self.spent(one.run), self.budget[one.run]
        spent, budget = (describe(seconds * self.time_factor) for seconds in shares)
        return (
            f"progress: {one.run} trial {one.trial} on {one.dataset} at epsilon {format_epsilon(one.epsilon)}: {shown}"
            f" in {describe(one.seconds)} of a core; {spent} of {budget}; at most about {left} left"
        )


def search(row: Row, place: Place, book: Book, commands: Commands) -> None:
    """Tries settings of a row until its time is up.

    Raises Failed for a command that broke, or a first trial without a score somewhere, and Stopped.
    """
    run = row.run.name
    for trial in itertools.count():
        done = book.of(run, trial)
        if not trial and (ended := [one.outcome for one in done if one.outcome != SCORED]):
            # Of a search by an earlier version, or a file put together by hand.
            raise Failed(
                f"trial 0, the settings before the search, is {ended[0]} in {book.path}, and other trials have nothing"
                " to be compared with; take its lines out there, and search where nothing else runs, or with a larger"
                " --time-factor if the machine is slower than the one of the preset's seconds"
            )
        waiting = [cell for cell in book.judged(run) if cell not in {one.cell for one in done}]
        if not waiting or any(one.outcome != SCORED for one in done) or book.is_behind(run, trial):
            continue
        if not done:
            fits = book.may_begin(run)
            if trial > book.last(run) and (not fits or row.is_exhausted(trial, book.seed)):
                book.end(run)
                return
            # What began after one that was passed over is still to be ended.
            if not fits or row.is_repeated(trial, book.seed):
                continue
        settings = row.settings(trial, book.seed)
        if any(one.settings != settings for one in done):
            raise book.other_settings(run, trial)
        for cell in waiting:
            found = place.run(row, trial, cell, settings, commands)
            book.add(row, trial, cell, settings, found)
            if found.outcome != SCORED or book.is_behind(run, trial):
                break


def run(arguments: argparse.Namespace) -> int:
    """Runs the search; returns 1 if a row was given up because a command broke.

    Raises UserError for a name that does not exist, or a folder that another search works in.
    """
    config = rows.load(arguments.preset)
    tried = rows.rows(config, filter(None, arguments.rows.split(",")))
    for name in [] if arguments.rows else rows.without_search(config):
        print(f"notice: row {name} is not tuned: its method has no SEARCH", file=sys.stderr)
    cells = {cell for row in tried for cell in row.cells}
    cells = rows.read_cells(arguments.cells, config) if arguments.cells else cells
    tried = [row for row in tried if cells & set(row.cells)]
    if not tried:
        raise UserError(f"no row of {arguments.rows or arguments.preset} is tried on {arguments.cells}")
    budget = 60 * (arguments.minutes or config.tuning["core_minutes"])
    out = arguments.out or Path("results", f"tuning-{arguments.preset}")
    factor = arguments.time_factor
    longest, training = 60 * config.tuning["run_minutes"] * factor, config.tuning["train_seconds"] * factor
    place = Place(out, config, longest, arguments.seed, training, factor)
    with locked(out):
        book = Book(out / "trials.csv", tried, cells, budget, arguments.seed, factor)
        book.cores = arguments.cores
        for row in tried:
            book.check(row)
        broken = _at_once(tried, place, book, arguments.cores)
    for name, reason in broken.items():
        print(f"row {name} is not finished: {reason}; the same command tries again", file=sys.stderr)
    print(f"{book.path}: {len(book.results)} results")
    return 1 if broken else 0


def _at_once(tried: list[Row], place: Place, book: Book, cores: int) -> dict[str, str]:
    """Searches several rows at once; returns why each of those ended that did not have their time."""
    commands = Commands()

    def end(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    # The commands are in groups of their own: what a terminal sends, as when it closes, reaches this process alone.
    ending = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    heard = [number for number in ending if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in heard}
    try:
        prepare(place, commands)
        with ThreadPoolExecutor(cores) as pool:
            try:
                working = {row.run.name: pool.submit(search, row, place, book, commands) for row in tried}
                errors = {name: one.exception() for name, one in working.items()}
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            finally:
                commands.stop()
    finally:
        # Of what prepares, too.
        commands.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
    for error in errors.values():
        if error is not None and not isinstance(error, Failed):
            raise error
    return {name: str(error) for name, error in errors.items() if error is not None}


