"""`python -m evaluation.merge`: one folder of scores from machines that shared none, each with its part of a grid.

Each FOLDER is a finished results/<preset> or a committed one: scores.csv and provenance.json. Their runs may differ in
rows, seeds, budgets and data sets, and in nothing that a score depends on: they are of one commit, with the same
settings, packages and data. --out then holds scores.csv, and a provenance.json that names every part's machine. Tables
and the page are made of it as of any other: `python -m evaluation.report.page`.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.scores import Score, format_value, read_scores, write_scores
from workflow.common.contracts import REAL
from workflow.common.errors import UserError, command, shown
from workflow.common.files import read_object, refuse_folder, sha256, write_json
from workflow.common.options import Parser

SCORES, RECORD = "scores.csv", "provenance.json"
# What all parts have in common, or a score of one could not stand beside a score of another.
ALIKE = ("commit", "modified", "packages", "python")
SETTINGS_ALIKE = ("preset", "extends", "delta", "paper_settings", "reproducible", "protocol")
# Of a run, what may differ between parts; and of a machine, what is told of each.
GRID = ("epsilons", "seeds", "hyper")
MACHINE = ("processor", "cores", "time", "runs", "job_seconds", "train_seconds")


def merged_scores(parts: Mapping[str, Sequence[Score]]) -> list[Score]:
    """Returns the scores of all parts, by a part's name.

    What was measured on real images is the first part's: each machine measures it. Raises UserError where two parts
    have the same run with other values.
    """
    found: dict[tuple, tuple[str, Score]] = {}
    for name, scores in parts.items():
        for score in scores:
            first, other = found.setdefault(score.order, (name, score))
            if format_value(other.value) != format_value(score.value) and score.method != REAL:
                raise UserError(
                    f"{first} and {name} both have {score.metric} of {score.method} on {score.dataset}, seed"
                    f" {score.seed}, as {format_value(other.value)} and {format_value(score.value)}: one run was made"
                    " twice; leave it out of one of them"
                )
    return [score for _, score in found.values()]


def merged_record(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the provenance of all parts together. Raises UserError for parts that do not belong together."""
    first = next(iter(parts.values()))
    for name, part in parts.items():
        _check_alike(parts, name, part, ALIKE, ())
        _check_alike(parts, name, part, SETTINGS_ALIKE, ("settings",))
    return {
        **{key: value for key, value in first.items() if key not in (*MACHINE, "scores_sha256", "equal_on")},
        "settings": _settings(parts),
        "data": _union(parts, "data", lambda part: part.get("data", {})),
        "processor": " and ".join(sorted({str(part.get("processor")) for part in parts.values()})),
        "cores": first.get("cores"),
        "time": max(str(part.get("time")) for part in parts.values()),
        "job_seconds": _sums(part.get("job_seconds", {}) for part in parts.values()),
        "runs_by_commit": _sums(part.get("runs_by_commit", {}) for part in parts.values()),
        "runs": sum(part.get("runs", 0) for part in parts.values()),
        "train_seconds": round(sum(part.get("train_seconds", 0.0) for part in parts.values()), 1),
        "parts": [{key: part.get(key) for key in MACHINE} for part in parts.values()],
    }


def _check_alike(
    parts: Mapping[str, Mapping[str, Any]], name: str, part: Mapping[str, Any], keys: Iterable[str],
    where: tuple[str, ...],
) -> None:  # fmt: skip
    first_name, first = next(iter(parts.items()))
    for key in where:
        first, part = first.get(key, {}), part.get(key, {})
    for key in keys:
        if first.get(key) != part.get(key):
            at = ".".join((*where, key))
            raise UserError(
                f"{first_name} and {name} differ in {at} of {RECORD}: {shown(first.get(key))} and"
                f" {shown(part.get(key))}; parts are to be made by one commit with the same settings and packages"
            )


def _settings(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    first = next(iter(parts.values()))["settings"]
    runs: dict[str, dict[str, Any]] = {}
    for name, part in parts.items():
        for run, entry in part["settings"].get("runs", {}).items():
            runs[run] = _both(run, runs[run], entry, name) if run in runs else dict(entry)
    datasets = dict.fromkeys(one for part in parts.values() for one in part["settings"].get("datasets", []))
    return {**first, "datasets": list(datasets), "runs": runs}


def _both(run: str, one: Mapping[str, Any], other: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns a run's entry of several parts: all budgets and seeds, and the settings on each data set."""
    plain = [{key: value for key, value in entry.items() if key not in GRID} for entry in (one, other)]
    shared = one["hyper"].keys() & other["hyper"].keys()
    if plain[0] != plain[1] or any(one["hyper"][key] != other["hyper"][key] for key in shared):
        raise UserError(f"run {run} has other settings in {name} than in the parts before; run it again in one of them")
    return {
        **one,
        "epsilons": list(dict.fromkeys([*one["epsilons"], *other["epsilons"]])),
        "seeds": sorted({*one["seeds"], *other["seeds"]}),
        "hyper": {**one["hyper"], **other["hyper"]},
    }


def _union(parts: Mapping[str, Mapping[str, Any]], what: str, of: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, part in parts.items():
        for key, value in of(part).items():
            if found.setdefault(key, value) != value:
                raise UserError(f"{name} has another {what} {key} than the parts before: its records differ")
    return found


def _sums(counts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: Counter = Counter()
    for one in counts:
        total.update(one)
    return {key: round(value, 1) for key, value in sorted(total.items())}


def _record(folder: Path) -> dict[str, Any]:
    record = read_object(folder / RECORD, RECORD)
    runs = record.get("settings", {}).get("runs") if isinstance(record.get("settings"), dict) else None
    entries = runs.values() if isinstance(runs, dict) else [None]
    if not all(isinstance(entry, dict) and {*GRID} <= entry.keys() for entry in entries):
        raise UserError(f"{folder / RECORD} does not say which runs made the scores beside it; make it again")
    return record


def add_arguments(parser: Parser) -> None:
    """Adds the options of the command."""
    parser.description = __doc__
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="with scores.csv and provenance.json")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; none of the others")


def run(options: argparse.Namespace) -> None:
    """Writes the merged folder. Raises UserError for folders that do not belong together, or a damaged file."""
    folders = {str(folder): folder for folder in options.folders}
    if len(folders) < 2 or len(folders) < len(options.folders):
        raise UserError(f"merge takes at least two folders, each once; got {' '.join(map(str, options.folders))}")
    if options.out.resolve() in {folder.resolve() for folder in folders.values()}:
        raise UserError(f"--out {options.out} is one of the folders that are merged: give another")
    record = merged_record({name: _record(folder) for name, folder in folders.items()})
    scores = merged_scores({name: read_scores(folder / SCORES) for name, folder in folders.items()})
    refuse_folder(options.out / SCORES)
    write_scores(options.out / SCORES, scores)
    write_json(options.out / RECORD, {**record, "scores_sha256": sha256(options.out / SCORES)})
    print(f"{options.out}: {len(scores)} scores of {record['runs']} runs", file=sys.stderr)


@command
def main(argv: list[str] | None = None) -> None:
    """Runs `python -m evaluation.merge`."""
    parser = Parser(prog="python -m evaluation.merge")
    add_arguments(parser)
    run(parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())
