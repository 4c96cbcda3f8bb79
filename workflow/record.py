"""`python -m workflow.record --root results/P --settings JSON --out provenance.json`: what made these results."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path
from typing import Any

from workflow.common.contracts import run_folders
from workflow.common.errors import UserError, command
from workflow.common.files import json_or_path, read_object, sha256, write_json
from workflow.common.options import Parser
from workflow.common.provenance import provenance
from workflow.common.run_states import own_call
from workflow.progress import measured_seconds

# Under results/P: of data set and key, as the graph's rule `warmstart` makes them.
WARM_STARTS = "private/critics/*/*/done.json"


def rule_seconds(logs: Path) -> dict[str, float]:
    """Returns rule -> wall seconds of its jobs together, from the benchmark files `logs/<rule>/*.tsv`."""
    totals: dict[str, float] = {}
    for path in sorted(logs.glob("*/*.tsv")):
        seconds = measured_seconds(path)
        if seconds is not None:
            totals[path.parent.name] = round(totals.get(path.parent.name, 0.0) + seconds, 1)
    return totals


def record(root: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the provenance of the results under `root`: versions, machine, settings, data and time per rule.

    Seconds are wall seconds of jobs; jobs run side by side, so the sum exceeds the time that a person waited. In a step
    of the graph `call` has that time: of the call that has made the scores, from its first step until now, when ranking
    and page are still to come. Its `steps` are fewer than `all_steps` where earlier calls had made others.
    """
    seconds = rule_seconds(root / "logs")
    cards = {path.parent.name: read_object(path, "a card") for path in sorted((root / "data").glob("*/card.json"))}
    data = {
        name: {"source": card.get("source"), "splits": _hashes(card, root / "data" / name / "card.json")}
        for name, card in cards.items()
    }
    records = [folder.path / "run.json" for folder in run_folders(root)]
    runs = [read_object(path, "run.json") for path in records if path.is_file()]
    starts = [read_object(path, "done.json") for path in sorted(root.glob(WARM_STARTS))]
    return {
        **provenance(),
        "settings": settings,
        "data": data,
        "scores_sha256": sha256(root / "scores.csv"),
        "job_seconds": {**seconds, "total": round(sum(seconds.values()), 1)},
        **_waited(root, time.time()),
        "train_seconds": round(sum(_seconds(run) for run in runs), 1),
        "runs": len(runs),
        "runs_by_commit": _by_commit(runs),
        # Runs begin from these, which may be older than they are.
        **({"warm_starts_by_commit": _by_commit(starts)} if starts else {}),
    }


def _waited(root: Path, now: float) -> dict[str, Any]:
    call = own_call(root)
    if not call:
        return {}
    waited = round(now - call["begun"], 1)
    return {"call": {"wall_seconds": waited, "steps": call["steps"], "all_steps": call["all_steps"]}}


def _hashes(card: dict[str, Any], path: Path) -> dict[str, str]:
    """Returns split -> hash of its records. Raises UserError for a card without them."""
    splits = card.get("splits")
    splits = splits if isinstance(splits, dict) else {}
    found = {name: one.get("sha256") for name, one in splits.items() if isinstance(one, dict)}
    if not found or not all(isinstance(digest, str) for digest in found.values()):
        raise UserError(f"{path} has no sha256 of its splits; make the data again by python -m workflow.datasets")
    return found


def _seconds(run: dict[str, Any]) -> float:
    seconds = run.get("train_seconds", 0.0)
    return float(seconds) if isinstance(seconds, int | float) and seconds >= 0 else 0.0


def _by_commit(records: list[dict[str, Any]]) -> dict[str, int]:
    return dict(sorted(Counter(map(_trained_by, records)).items()))


def _trained_by(run: dict[str, Any]) -> str:
    """Returns the commit that made a run or a warm start: not the record's, where a later call added to older ones."""
    origin = run.get("provenance")
    origin = origin if isinstance(origin, dict) else {}
    return f"{origin.get('commit')}{' modified' if origin.get('modified') else ''}"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m workflow.record", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="results/<preset>, with scores.csv")
    parser.add_argument("--settings", default="{}", help="the configuration: JSON in braces, or its file")
    parser.add_argument("--out", type=Path, required=True, help="provenance.json to write")
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    if not (arguments.root / "scores.csv").is_file():
        raise UserError(f"{arguments.root} has no scores.csv: collect the scores first")
    write_json(arguments.out, record(arguments.root, json_or_path(arguments.settings, "--settings")))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
