"""`python -m tests.faults.mutate`: puts small faults into the privacy core and the methods, and runs the tests on each.

A mutant is caught when a test fails. It meets the tests that mutants.yaml names for its file first, and the whole
default suite if those pass. Each worker has a copy of the tracked files, so the checkout itself is never changed.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("mutants.yaml")
# A mutant may make a loop endless. The slowest file of tests takes a fraction of this.
_LIMIT = 1800


@dataclass(frozen=True)
class Mutant:
    """One fault: in `file`, `old`, which stands there once, becomes `new`; `tests` are those that should notice.

    `survives` says why no test can or need catch it; empty for all others.
    """

    file: str
    old: str
    new: str
    breaks: str
    tests: tuple[str, ...]
    survives: str = ""

    def text(self, root: Path) -> str:
        """Returns the file's text with the fault. Raises ValueError if `old` does not stand there exactly once."""
        whole = (root / self.file).read_text(encoding="utf-8")
        if whole.count(self.old) != 1:
            raise ValueError(f"{self.file} holds {whole.count(self.old)} times: {self.old}")
        return whole.replace(self.old, self.new)


def mutants(path: Path = LIST) -> list[Mutant]:
    """Returns all mutants of a list such as mutants.yaml."""
    files = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [
        Mutant(file, tests=tuple(entry["tests"]), **fields)
        for file, entry in files.items()
        for fields in entry["mutants"]
    ]


def tree(root: Path, copy: Path) -> Path:
    """Copies the tracked and new files of a checkout, without what git ignores, and returns the copy."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root, check=True, capture_output=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, names):
        if (root / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name)
    return copy


def caught_by(mutant: Mutant, copy: Path, whole_suite: bool = True) -> str | None:
    """Returns the first test that fails in `copy` with the fault in it, None where all pass; the copy is restored."""
    path = copy / mutant.file
    before, text = path.read_text(encoding="utf-8"), mutant.text(copy)
    path.write_text(text, encoding="utf-8")
    try:
        return _first_failure(copy, mutant.tests) or (_first_failure(copy, ()) if whole_suite else None)
    finally:
        path.write_text(before, encoding="utf-8")


def _first_failure(copy: Path, tests: Sequence[str]) -> str | None:
    # Python may trust an old cache where two texts of a size were written within a second.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *tests]
    try:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=_LIMIT)
    except subprocess.TimeoutExpired:
        return "no end within half an hour"
    if done.returncode == 0:
        return None
    told = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode not in (1, 2) or not told:
        raise RuntimeError(f"pytest could not run: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return told[0].split(" ", 1)[1].split(" - ")[0]


def tried(chosen: Sequence[Mutant], jobs: int, whole_suite: bool) -> Iterator[tuple[Mutant, str | None]]:
    """Yields each mutant and what caught it, as they end; `jobs` run at a time, each in a copy of its own."""
    with tempfile.TemporaryDirectory() as folder:
        copies: queue.Queue[Path] = queue.Queue()
        for number in range(jobs):
            copies.put(tree(ROOT, Path(folder) / str(number)))

        def one(mutant: Mutant) -> tuple[Mutant, str | None]:
            copy = copies.get()
            try:
                return mutant, caught_by(mutant, copy, whole_suite)
            finally:
                copies.put(copy)

        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for done in concurrent.futures.as_completed([pool.submit(one, mutant) for mutant in chosen]):
                yield done.result()


def main(argv: list[str] | None = None) -> int:
    """Prints a line for each mutant and a summary; returns 1 if one survives unexplained, or does not as explained."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.mutate", description=__doc__)
    parser.add_argument("--only", default="", help="mutants of files whose path holds this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants at a time; default: all cores")
    parser.add_argument("--named-tests", action="store_true", help="without the whole suite for those that pass them")
    arguments = parser.parse_args(argv)
    chosen = [mutant for mutant in mutants() if arguments.only in mutant.file]
    started, caught, wrong = time.monotonic(), 0, 0
    for number, (mutant, test) in enumerate(tried(chosen, arguments.jobs, not arguments.named_tests), start=1):
        caught += test is not None
        wrong += (test is None) != bool(mutant.survives)
        told = f"caught by {test}" if test else f"SURVIVED{mutant.survives and ', as explained: ' + mutant.survives}"
        print(f"{number}/{len(chosen)} {mutant.file}: {mutant.breaks}: {told}", flush=True)
    share = caught / max(1, len(chosen))
    minutes = (time.monotonic() - started) / 60
    print(f"{caught} of {len(chosen)} mutants caught ({share:.1%}), {wrong} not as expected, {minutes:.0f} min")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
