"""`python -m methods watch [FOLDER]`: how far all runs of a graph are, again and again on a terminal, else once."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from workflow.common import run_states
from workflow.common.errors import UserError, printable
from workflow.common.options import number
from workflow.common.run_states import RunState

# What moves, or needs somebody, stands first: a terminal may be too low for all.
_ORDER = (
    run_states.TRAINING, run_states.FAILED, run_states.STOPPED, run_states.TRAINED, run_states.SAMPLED,
    run_states.PLANNED, run_states.WAITING, run_states.SCORED,
)  # fmt: skip
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_END = "Ctrl-C ends the watching and no run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("results"), metavar="FOLDER",
        help="results/ (the default), results/<preset>, the folder of one run, or one that holds such folders",
    )  # fmt: skip
    parser.add_argument("--once", action="store_true", help="print once and end, as where stdout is no terminal")
    every = number("--every", 0, 3600, open_low=True)
    parser.add_argument("--every", type=every, default=2.0, help="seconds between two looks (default 2)")


def run(arguments: argparse.Namespace) -> None:
    """Prints what the runs' files tell. Raises UserError for a folder that does not exist."""
    if not arguments.folder.is_dir():
        raise UserError(f"no folder {arguments.folder} to watch; name the results, such as results/quick")
    if arguments.once or not sys.stdout.isatty():
        print("\n".join(map(printable, lines(arguments.folder, time.time()))))
        return
    try:
        while True:
            _draw([*map(printable, lines(arguments.folder, time.time())), _END])
            time.sleep(arguments.every)
    except KeyboardInterrupt:
        # Nothing was interrupted: this is how it ends.
        print()


def lines(folder: Path, now: float) -> list[str]:
    """Returns what there is to say of all runs under `folder`; `now` in seconds since 1970."""
    found = []
    for root in run_states.roots(folder):
        each = [run_states.state_of(run, run_states.name_of(run), now) for run in run_states.graph_runs(root)]
        if each:
            call = run_states.call_line(root, now)
            found += [_summary(root, each), *([f"  {call}"] if call else []), *_rows(each)]
    loose = [run_states.state_of(run, run_states.name_of(run), now) for run in run_states.loose_runs(folder)]
    if loose:
        found += [_summary(folder, loose), *_rows(loose)]
    return found or [f"no runs under {folder} yet: snakemake and python -m methods run make some"]


def _summary(root: Path, each: Sequence[RunState]) -> str:
    counts = Counter(one.state for one in each)
    states = ", ".join(f"{counts[state]} {state}" for state in run_states.STATES if counts[state])
    return f"{root}: {len(each)} run{'s' if len(each) > 1 else ''}: {states}"


def _rows(each: Sequence[RunState]) -> Iterator[str]:
    wide = max(len(one.name) for one in each)
    for one in sorted(each, key=lambda one: _ORDER.index(one.state)):
        yield f"  {one.state:8}  {one.name:{wide}}  {one.words}".rstrip()


def _draw(text: Sequence[str]) -> None:
    """Draws lines over those drawn before, as many and as much of them as the terminal shows."""
    width, height = shutil.get_terminal_size()
    if len(text) > height - 1:
        room = max(height - 3, 0)
        more = f"  ... and {len(text) - 1 - room} more: --once shows all"
        text = [*text[:room], more, text[-1]][-max(height - 1, 1) :]
    shown = "".join(f"{line[: width - 1]}{_CLEAR_LINE}{os.linesep}" for line in text)
    sys.stdout.write(f"{_HOME}{shown}{_CLEAR_BELOW}")
    sys.stdout.flush()
