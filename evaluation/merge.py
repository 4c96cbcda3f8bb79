"""`python -m evaluation.merge`: one folder of scores from machines that shared none, each with its part of a grid.

Each FOLDER is a finished results/<preset> or a committed one: scores.csv and provenance.json. Their runs may differ in
rows, seeds, budgets and data sets, and in nothing that a score depends on: they are of one commit, with the same
settings, packages and data. --out then holds scores.csv, and a provenance.json that names every part's machine. Tables
and the page are made of it as of any other: `python -m evaluation.report.page`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema

from evaluation.scores import Score, format_value, measured, write_scores
from workflow.common.contracts import REAL
from workflow.common.errors import UserError, command, short, shown
from workflow.common.files import read_object, refuse_folder, sha256, write_json
from workflow.common.metrics import METRICS
from workflow.common.options import Parser

SCORES, RECORD = "scores.csv", "provenance.json"
# What all parts have in common, or a score of one could not stand beside a score of another.
ALIKE = ("commit", "modified", "packages", "python", "pinned")
SETTINGS_ALIKE = ("preset", "extends", "delta", "paper_settings", "reproducible")
PROTOCOL, PER_DATASET = "protocol", "per_dataset"
APART = "networks_apart"  # of a merged record
# Of a run, what may differ between parts; and of a machine, what is told of each.
GRID = ("epsilons", "seeds", "hyper")
WARM_STARTS = "warm_starts_by_commit"  # of a part that has any
MACHINE = (
    "processor", "cores", "time", "runs", "runs_by_commit", WARM_STARTS, "job_seconds", "train_seconds", "call",
    "scores_sha256",
)  # fmt: skip
_OBJECTS = {"type": "object", "additionalProperties": {"type": "object"}}
_SUMS = {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}}
_TEXTS = {"type": "array", "items": {"type": "string"}}
_SEEDS = {"type": "array", "items": {"type": "integer", "minimum": 0}}
# What is read of a part's record.
_RUN = {"type": "object", "required": [*GRID], "properties": {"epsilons": _TEXTS, "seeds": _SEEDS, "hyper": _OBJECTS}}
_SETTINGS = {
    "type": "object", "required": ["preset", "datasets", "runs", PROTOCOL],
    "properties": {
        "preset": {"type": "string"}, "datasets": _TEXTS,
        "runs": {"type": "object", "minProperties": 1, "additionalProperties": _RUN},
        PROTOCOL: {"type": "object", "properties": {PER_DATASET: _OBJECTS}},
    },
}  # fmt: skip
_OF_MACHINE = {
    "type": "object", "required": ["time", "runs", "train_seconds", "scores_sha256"],
    "properties": {
        "time": {"type": "string"}, "runs": {"type": "integer", "minimum": 0},
        "train_seconds": {"type": "number", "minimum": 0}, "job_seconds": _SUMS, "runs_by_commit": _SUMS,
        WARM_STARTS: _SUMS,
    },
}  # fmt: skip
_SCHEMA = {
    "allOf": [_OF_MACHINE], "required": ["commit", "settings", "data"],
    "properties": {
        "settings": _SETTINGS, "data": _OBJECTS, "parts": {"type": "array", "minItems": 1, "items": _OF_MACHINE},
        APART: {"type": "object", "additionalProperties": _TEXTS},
    },
}  # fmt: skip


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
                    f" twice; collect one of them again without it (--config runs=..., nothing is trained anew)"
                )
    return [score for _, score in found.values()]


def networks_apart(parts: Mapping[str, Sequence[Score]], before: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Returns data set -> the networks that are not the same in all parts, as real images' scores by them tell.

    `before` are the parts' records: of a merged one, the scores of one part are left, and its record says the rest.
    """
    of_real: dict[tuple[str, str], set[str]] = {}
    for score in itertools.chain.from_iterable(parts.values()):
        if score.method == REAL and METRICS[score.metric].network:
            of_real.setdefault((score.dataset, score.metric), set()).add(format_value(score.value))
    found = [(dataset, METRICS[metric].network) for (dataset, metric), values in of_real.items() if len(values) > 1]
    told = itertools.chain.from_iterable(record.get(APART, {}).items() for record in before)
    found += [(dataset, name) for dataset, names in told for name in names]
    return {dataset: list(dict.fromkeys(name for of, name in found if of == dataset)) for dataset, _ in found}


def merged_record(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the provenance of all parts together. Raises UserError for parts that do not belong together."""
    first = next(iter(parts.values()))
    _check_alike(parts, ALIKE)
    _check_alike({name: part["settings"] for name, part in parts.items()}, SETTINGS_ALIKE, "settings.")
    machines: list[dict[str, Any]] = []
    for one in (one for part in parts.values() for one in part.get("parts", [part])):
        machine = {key: one[key] for key in MACHINE if key in one}
        # What was merged before may hold a part that is given alone as well.
        machines += [machine] if machine not in machines else []
    starts = _sums(one.get(WARM_STARTS, {}) for one in machines)
    return {
        **{key: value for key, value in first.items() if key not in (*MACHINE, "equal_on")},
        "settings": _settings(parts),
        "data": _union(parts, "data", lambda part: part.get("data", {})),
        "processor": _either(machines, "processor"),
        "cores": _either(machines, "cores"),
        "time": max(one["time"] for one in machines),
        "job_seconds": _sums(one.get("job_seconds", {}) for one in machines),
        "runs_by_commit": _sums(one.get("runs_by_commit", {}) for one in machines),
        **({WARM_STARTS: starts} if starts else {}),
        "runs": sum(one["runs"] for one in machines),
        "train_seconds": round(sum(one["train_seconds"] for one in machines), 1),
        "parts": machines,
    }


def _either(machines: Iterable[Mapping[str, Any]], key: str) -> Any:
    """Returns what all machines have, or in words what each has."""
    found = {str(one.get(key)): one.get(key) for one in machines}
    return " and ".join(sorted(found)) if len(found) > 1 else next(iter(found.values()))


def _check_alike(found: Mapping[str, Mapping[str, Any]], keys: Iterable[str], within: str = "") -> None:
    """Raises UserError for a key that one part has otherwise than the first; `within` names where they stand."""
    (first_name, first), *others = found.items()
    for (name, other), key in itertools.product(others, keys):
        if first.get(key) != other.get(key):
            raise UserError(
                f"{first_name} and {name} differ in {within}{key} of {RECORD}: {shown(first.get(key))} and"
                f" {shown(other.get(key))}; parts are to be made by one commit with the same settings and packages"
            )


def _settings(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    first = next(iter(parts.values()))["settings"]
    runs: dict[str, dict[str, Any]] = {}
    for name, part in parts.items():
        for run, entry in part["settings"].get("runs", {}).items():
            runs[run] = _both(run, runs[run], entry, name) if run in runs else dict(entry)
    datasets = dict.fromkeys(one for part in parts.values() for one in part["settings"].get("datasets", []))
    return {**first, "datasets": list(datasets), "runs": runs, PROTOCOL: _protocol(parts)}


def _protocol(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the protocol of all parts; what is otherwise for a data set, a part says of its own data sets alone."""
    shared = {
        name: {PROTOCOL: {key: value for key, value in part["settings"][PROTOCOL].items() if key != PER_DATASET}}
        for name, part in parts.items()
    }
    _check_alike(shared, [PROTOCOL], "settings.")
    own = _union(parts, "protocol of", lambda part: {
        dataset: part["settings"][PROTOCOL].get(PER_DATASET, {}).get(dataset, {})
        for dataset in part["settings"]["datasets"]
    })  # fmt: skip
    own = {dataset: settings for dataset, settings in own.items() if settings}
    return {**next(iter(shared.values()))[PROTOCOL], **({PER_DATASET: own} if own else {})}


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
                raise UserError(f"{name} has another {what} {key} than the parts before; leave it out of one of them")
    return found


def _sums(counts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: Counter = Counter()
    for one in counts:
        total.update(one)
    return {key: round(value, 1) for key, value in sorted(total.items())}


def _record(folder: Path) -> dict[str, Any]:
    record = read_object(folder / RECORD, RECORD)
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(_SCHEMA).iter_errors(record))
    if error is not None:
        where = ".".join(map(str, error.absolute_path))
        raise UserError(
            f"{folder / RECORD} does not say which runs made the scores beside it, and how"
            f" ({where and f'{where}: '}{short(error.message)}); make it again"
        )
    return record


def _scores(folder: Path, record: Mapping[str, Any]) -> list[Score]:
    """Returns a part's scores. Raises UserError for a file that its record does not speak of, or not wholly."""
    path, settings = folder / SCORES, record["settings"]
    scores = measured(path, "merge")
    if record["scores_sha256"] != sha256(path):
        raise UserError(f"{path} is not the file that {RECORD} beside it was written for; collect both again")
    for score in scores:
        if score.preset != settings["preset"] or score.method not in (*settings["runs"], REAL):
            raise UserError(
                f"{path} has scores of {score.method} in preset {score.preset}, of which {RECORD} beside it says"
                " nothing; collect both again"
            )
    return scores


def _check_out(out: Path) -> None:
    """Raises UserError where scores lie that no merge wrote: these would be gone."""
    if not (out / SCORES).exists():
        return
    if not (out / RECORD).is_file() or "parts" not in read_object(out / RECORD, RECORD):
        raise UserError(f"--out {out} holds scores that were measured there, not merged: give another folder")


def add_arguments(parser: Parser) -> None:
    """Adds the options of the command."""
    parser.description = __doc__
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="with scores.csv and provenance.json")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; none of the others")


def run(options: argparse.Namespace) -> None:
    """Writes the merged folder. Raises UserError for folders that do not belong together, or a damaged file."""
    folders = {str(folder): folder for folder in options.folders}
    places = {folder.resolve() for folder in options.folders}
    if len(places) < 2 or len(places) < len(options.folders):
        raise UserError(f"merge takes at least two folders, each once; got {' '.join(map(str, options.folders))}")
    if options.out.resolve() in places:
        raise UserError(f"--out {options.out} is one of the folders that are merged: give another")
    refuse_folder(options.out / SCORES)
    _check_out(options.out)
    records = {name: _record(folder) for name, folder in folders.items()}
    record = merged_record(records)
    parts = {name: _scores(folder, records[name]) for name, folder in folders.items()}
    scores, apart = merged_scores(parts), networks_apart(parts, records.values())
    write_scores(options.out / SCORES, scores)
    sums = {"scores_sha256": sha256(options.out / SCORES), **({APART: apart} if apart else {})}
    write_json(options.out / RECORD, {**record, **sums})
    for dataset, networks in apart.items():
        print(
            f"notice: not the same in all parts, as the scores of real images say: {' and '.join(networks)} of"
            f" {dataset}; what they score compares within a part alone", file=sys.stderr,
        )  # fmt: skip
    if record.get("modified") or record["commit"] is None:
        print("notice: the parts' code is not all in a commit; that it is the same was not checked", file=sys.stderr)
    print(f"{options.out}: {len(scores)} scores of {record['runs']} runs", file=sys.stderr)


@command
def main(argv: list[str] | None = None) -> None:
    """Runs `python -m evaluation.merge`."""
    parser = Parser(prog="python -m evaluation.merge")
    add_arguments(parser)
    run(parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())
