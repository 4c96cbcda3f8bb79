"""Gathers the JSON results of many runs into one tidy scores.csv."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from evaluation.scores import Score, write_scores
from workflow.common.at_file import AtFile
from workflow.common.contracts import RunFolder, format_epsilon, parse_epsilon, run_folders
from workflow.common.errors import UserError, command, shown
from workflow.common.files import read_object
from workflow.common.metrics import METRICS
from workflow.common.options import Parser

FILES = ("run.json", "fidelity.json", "utility.json")


def _accounting(folder: RunFolder, run: dict[str, Any] | None) -> str:
    if run is not None:
        return run.get("accounting", "none")
    if math.isinf(folder.epsilon):
        return "none"
    raise UserError(f"{folder.path} has no run.json: a run at epsilon {format_epsilon(folder.epsilon)} must state it")


def _check_same_run(folder: RunFolder, run: dict[str, Any]) -> None:
    expected = {"dataset": folder.dataset, "run": folder.run, "epsilon": folder.epsilon, "seed": folder.seed}
    for key, value in expected.items():
        stated = run.get(key, value)
        given = parse_epsilon(stated) if key == "epsilon" else stated
        if given != value or isinstance(given, bool):
            raise UserError(f"{folder.path}/run.json says {key} {shown(stated)}, but its folder says {value!r}")


def _notice_short(folder: RunFolder, run: dict[str, Any]) -> None:
    done, planned = run.get("steps_done"), run.get("steps_planned")
    if done != planned:
        print(f"notice: {folder.path} stopped after {done} of {planned} steps: a crash spent the rest", file=sys.stderr)


def _number(path: Path, metric: str, value: Any) -> float:
    if value == "inf":
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{path}: {metric} must be a number, got {shown(value)}")
    return float(value)


def collect_run(folder: RunFolder, preset: str) -> list[Score]:
    """Returns the scores of one run. A metric that is absent or null gives no row.

    Raises:
        UserError: no result file at all, a value that is not finite, or a run.json of another run.
    """
    results = {name: read_object(folder.path / name, name) for name in FILES if (folder.path / name).exists()}
    if not results:
        raise UserError(f"{folder.path} holds none of {', '.join(FILES)}")
    run = results.get("run.json")
    if run is not None:
        _check_same_run(folder, run)
        _notice_short(folder, run)
    key = (preset, folder.dataset, folder.run, folder.epsilon, _accounting(folder, run), folder.seed)
    scores = []
    for name, content in results.items():
        for metric in METRICS:
            if content.get(metric) is None:
                continue
            try:
                scores.append(Score(*key, metric, _number(folder.path / name, metric, content[metric]), "measured"))
            except UserError as error:
                raise UserError(f"{folder.path / name}: {error}") from None
    if (share := _share(run)) is not None:
        scores.append(Score(*key, "steps_share", share, "measured"))
    return scores


def _share(run: dict[str, Any] | None) -> float | None:
    """Returns which share of its steps a run did, None if that is all of them or not known."""
    done, planned = (run or {}).get("steps_done"), (run or {}).get("steps_planned")
    counted = all(isinstance(steps, int) and steps >= 0 for steps in (done, planned))
    return done / planned if counted and done < planned else None


@command
def main(argv: list[str] | None = None) -> None:
    """Runs `python -m evaluation.report.collect`."""
    parser = Parser(prog="python -m evaluation.report.collect", description=__doc__)
    parser.add_argument("--preset", required=True, help="name written to the preset column")
    parser.add_argument("--root", type=Path, required=True, help="results/<preset>; searched when no folder is given")
    parser.add_argument("--out", type=Path, required=True, help="scores.csv to write")
    parser.add_argument("folders", nargs="*", metavar="RUNDIR", action=AtFile,
                        help="run folders, or @FILE that lists them; default: all under ROOT/runs")  # fmt: skip
    options = parser.parse_args(argv)
    folders = run_folders(options.root, options.folders)
    if not folders:
        raise UserError(f"no run folders under {options.root}/runs")
    write_scores(options.out, [score for folder in folders for score in collect_run(folder, options.preset)])


if __name__ == "__main__":
    raise SystemExit(main())
