"""`python -m tests.faults.kills`: ends or disturbs tiny runs at every file operation, runs them again, and judges.

Each case is a process of its own. It is killed before one operation (also with all that was not yet on disk lost, as in
a power cut), or gets an error of the disk there; then the same commands run to their end. Printed are fault points, the
kills at random times, and what went wrong: refunds, repeated answers, wrong results, tracebacks, charges lost.
"""

from __future__ import annotations

import os

# Before numpy and torch: a process with threads of its own cannot fork safely.
os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import concurrent.futures
import contextlib
import errno
import importlib
import pkgutil
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

import methods.commands
from methods.__main__ import main as methods_main
from methods.core.privacy import ledger
from methods.core.runs import train
from tests.faults.operations import Operations, die, failing
from tests.faults.scenarios import SCENARIOS, Scenario, fresh, is_done, judge, prepare, write_down_answers

MOST_LOST = 0.05
OTHERS = ("power cut", "ENOSPC", "EIO", "EROFS from there on")
_ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EROFS from there on": errno.EROFS}
_STUCK = 120
# What a child tells its parent through; a process that outlives the child must not hold them.
_PIPES: list[int] = []


def play(scenario: Scenario, work: Path) -> int:
    """Runs the commands in this process, until one does not end well; returns its exit code."""
    for command in scenario.commands:
        code = methods_main([argument.replace("{work}", str(work)) for argument in command])
        if code:
            return code
    return 0


def child(work: Path, action: Callable[[], int]) -> tuple[int, str]:
    """Runs `action` in a forked process; returns its exit code, or minus the signal that ended it, and its stderr.

    Its answers are added to `work`/trace. Both come through pipes, which no limit on files concerns.
    """
    (told, telling), (answers, answering) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(told)
        os.close(answers)
        write_down_answers(answering)
        _become(telling, answering)
        os._exit(_exit_code(action))
    os.close(telling)
    os.close(answering)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        text, lines = pool.map(_all_of, (told, answers))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with (work / "trace").open("ab") as trace:
        trace.write(lines)
    return code, text.decode(errors="replace")


def _all_of(pipe: int) -> bytes:
    with open(pipe, "rb") as stream:
        return stream.read()


def _become(telling: int, answering: int) -> None:
    os.dup2(telling, 1)
    os.dup2(telling, 2)
    os.close(telling)
    _PIPES[:] = 1, 2, answering
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    signal.alarm(_STUCK)


def _exit_code(action: Callable[[], int]) -> int:
    try:
        code = action()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def prepared(scenario: Scenario, folder: Path) -> tuple[Path, Path]:
    """Returns a folder ready for the scenario, and one where it has run straight through, in this very process.

    In this process, so that its children find the accountants' answers in memory.
    """
    origin, straight = folder / "origin", folder / "straight"
    prepare(origin)
    fresh(straight, origin)
    with open(os.devnull, "w") as silent, contextlib.redirect_stderr(silent), contextlib.redirect_stdout(silent):
        assert play(scenario, straight) == 0
    return origin, straight


def count(scenario: Scenario, work: Path, origin: Path) -> list[str]:
    """Returns the kinds of all file operations of an undisturbed run, in order."""
    fresh(work, origin)
    seen = work.parent / "operations"

    def action() -> int:
        operations = Operations(work)
        operations.install()
        code = play(scenario, work)
        operations.stop()
        seen.write_text("\n".join(operations.kinds))
        return code

    code, text = child(work, action)
    assert code == 0, text
    return seen.read_text().splitlines()


def disturbed(scenario: Scenario, work: Path, origin: Path, kind: str, point: int) -> tuple[int, str]:
    """Runs the scenario with one fault before its operation `point`; returns the exit code and stderr."""
    fresh(work, origin)

    def action() -> int:
        if kind in _ERRORS:
            at = failing(_ERRORS[kind])
        elif kind == "power cut":
            at = lambda _: _power_cut(operations)  # noqa: E731
        else:
            at = die
        operations = Operations(work, point, at, lasting="from there on" in kind)
        operations.install()
        return play(scenario, work)

    return child(work, action)


def _power_cut(operations: Operations) -> None:
    """Loses what no fsync has put on disk of the files that are appended to, and dies."""
    for path in Path(operations._folder).rglob("*.jsonl"):
        size = operations.synced.get(str(path))
        if size is not None and size < path.stat().st_size:
            # A sector that the disk had not finished.
            os.truncate(path, size + 1)
    die("")


def ended(scenario: Scenario, work: Path, other_boot: bool) -> tuple[int, str]:
    """Runs the commands again, undisturbed."""

    def action() -> int:
        if other_boot:
            ledger._boot = lambda: "another start of the machine"
        return play(scenario, work)

    return child(work, action)


class Tally:
    """Counts cases and what went wrong in them; the worst loss."""

    def __init__(self) -> None:
        self.cases, self.wrong, self.lost, self.points = Counter(), [], 0.0, Counter()

    def add(self, scenario: Scenario, work: Path, straight: Path, what: str, ends: Sequence[tuple[int, str]]) -> None:
        """Judges one case: `ends` are the exit codes and texts of its processes, the last of which was undisturbed."""
        self.cases[what.split(" at ")[0]] += 1
        wrong = [f"traceback: {text[-600:]}" for code, text in ends if "Traceback" in text or code == 1]
        wrong += [f"hung for {_STUCK} s" for code, _ in ends if code == -signal.SIGALRM]
        wrong += [f"{len(_errors(text))} error lines: {text[-300:]}" for code, text in ends
                  if code == 2 and len(_errors(text)) != 1]  # fmt: skip
        wrong += [f"exit code {code}: {text[-300:]}" for code, text in ends
                  if code not in (0, 1, 2, -signal.SIGKILL, -signal.SIGALRM)]  # fmt: skip
        lost = 0.0
        if ends[-1][0] != 0 and not is_done(scenario, work):
            wrong.append(f"the same commands did not end it: exit {ends[-1][0]}: {ends[-1][1][-600:]}")
        else:
            outcome = judge(scenario, work, straight)
            wrong, lost = wrong + outcome.wrong, outcome.lost
        # A run may be disturbed several times, each of which may cost its part.
        allowed = MOST_LOST * max(1, len(ends) - 1)
        if lost > allowed + 1e-9:
            wrong.append(f"{lost:.1%} of the charges were lost")
        self.lost = max(self.lost, lost / max(1, len(ends) - 1))
        for text in wrong:
            self.wrong.append(f"{scenario.name}, {what}: {text}")
            print(self.wrong[-1], flush=True)


def every_point(scenario: Scenario, folder: Path, tally: Tally, most: int | None, seed: int) -> None:
    """Tries a kill before each operation, and another kind of fault in turn, or `most` of these cases at random."""
    origin, straight = prepared(scenario, folder)
    work = folder / "work"
    operations = count(scenario, work, origin)
    tally.points.update(operations)
    cases = [(point, kind) for point in range(len(operations)) for kind in ("kill", OTHERS[point % len(OTHERS)])]
    if most is not None and most < len(cases):
        cases = sorted(random.Random(f"{scenario.name} {seed}").sample(cases, most))
    for point, kind in cases:
        ends = [disturbed(scenario, work, origin, kind, point)]
        if ends[0][0] and not is_done(scenario, work):
            ends.append(ended(scenario, work, kind == "power cut"))
        tally.add(scenario, work, straight, f"{kind} at {point} ({operations[point]})", ends)


def small_files(scenario: Scenario, folder: Path, tally: Tally, sizes: Sequence[int]) -> None:
    """Lets the system refuse to write beyond a size in any file, which reaches writes of libraries in C++ as well."""
    origin, straight = prepared(scenario, folder)
    work = folder / "work"
    for size in sizes:
        fresh(work, origin)

        def action(size: int = size) -> int:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            return play(scenario, work)

        ends = [child(work, action)]
        if ends[0][0]:
            ends.append(ended(scenario, work, False))
        tally.add(scenario, work, straight, f"no file beyond a size at {size}", ends)


def random_kills(scenario: Scenario, folder: Path, tally: Tally, number: int, seed: int) -> None:
    """Kills runs at random times, up to three times each, until `number` kills have hit."""
    origin, straight = prepared(scenario, folder)
    work, draws, hits = folder / "work", random.Random(seed), 0
    started = time.monotonic()
    fresh(work, origin)
    ended(scenario, work, False)
    usual = time.monotonic() - started
    while hits < number:
        fresh(work, origin)
        ends = []
        for _ in range(draws.randint(1, 3)):
            ends.append(_killed_after(scenario, work, draws.uniform(0, usual)))
            if ends[-1][0] == 0:
                break
        hits += sum(code == -signal.SIGKILL for code, _ in ends)
        if ends[-1][0] and not is_done(scenario, work):
            ends.append(ended(scenario, work, False))
        tally.add(scenario, work, straight, f"random kill at {hits}", ends)


def _killed_after(scenario: Scenario, work: Path, seconds: float) -> tuple[int, str]:
    def action() -> int:
        if os.fork() == 0:
            for pipe in _PIPES:
                os.close(pipe)
            time.sleep(seconds)
            with contextlib.suppress(ProcessLookupError):
                os.kill(os.getppid(), signal.SIGKILL)
            os._exit(0)
        return play(scenario, work)

    return child(work, action)


def _errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error:")]


def warm_up() -> None:
    """Imports what the commands import, so that no child has to."""
    torch.set_num_threads(1)
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    for module in pkgutil.iter_modules(methods.commands.__path__):
        importlib.import_module(f"methods.commands.{module.name}")
    train.provenance = dict


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    # A disk in memory where there is one: a run of a second waits for hundreds of fsyncs.
    memory = Path("/dev/shm")
    where = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="faults-", dir=where) as folder:
        yield Path(folder)


def main(argv: list[str] | None = None) -> int:
    """Prints what was tried and what went wrong; returns 1 if anything did."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kills", description=__doc__)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="default: all")
    parser.add_argument("--points", type=int, help="faults at file operations to try a scenario; default: two at each")
    parser.add_argument("--sizes", type=int, default=16, help="limits on the size of files to try a scenario")
    parser.add_argument("--random", type=int, default=120, help="kills at random times, all scenarios together")
    parser.add_argument("--seed", type=int, default=0, help="of what is random")
    arguments = parser.parse_args(argv)
    chosen = [SCENARIOS[name] for name in arguments.scenario or SCENARIOS]
    warm_up()
    tally = Tally()
    for scenario in chosen:
        started, before = time.monotonic(), sum(tally.cases.values())
        with _scratch() as folder:
            every_point(scenario, folder, tally, arguments.points, arguments.seed)
        with _scratch() as folder:
            small_files(scenario, folder, tally, np.geomspace(16, 2**19, arguments.sizes).astype(int).tolist())
        with _scratch() as folder:
            random_kills(scenario, folder, tally, -(-arguments.random // len(chosen)), arguments.seed)
        cases = sum(tally.cases.values()) - before
        print(f"{scenario.name}: {cases} cases in {time.monotonic() - started:.0f} s", flush=True)
    print("operations of the undisturbed runs: " + ", ".join(f"{kind} {n}" for kind, n in tally.points.items()))
    print("cases: " + ", ".join(f"{kind} {n}" for kind, n in tally.cases.items()))
    cases = sum(tally.cases.values())
    print(f"{cases} cases, {len(tally.wrong)} faults found, at most {tally.lost:.1%} of charges lost by one fault")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
