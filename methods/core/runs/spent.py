"""The owner's record of every release of a data set's pictures, kept beside them: what they have spent in all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workflow.common.errors import UserError

FILE = "spent.jsonl"
WORDS = {"replace_one": "replacing one picture", "add_or_remove": "adding or removing one picture"}


def record(folder: Path, entry: Mapping[str, Any]) -> None:
    """Adds a release to `folder`/spent.jsonl, on disk when this returns; one whose `id` is there already is not added.

    `entry` holds id, epsilon, delta, adjacency (a list) and what else the owner may want to know. Raises UserError
    where the file cannot be read or written.
    """
    if any(line["id"] == entry["id"] for line in entries(folder)):
        return
    try:
        with (folder / FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"cannot write {folder / FILE}, where releases are recorded: {error.strerror}") from None


def entries(folder: Path) -> list[dict[str, Any]]:
    """Returns the recorded releases in order. Raises UserError for a file that holds anything else."""
    path = folder / FILE
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for line in lines:
            line["id"], float(line["epsilon"]), float(line["delta"]), list(line["adjacency"])
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{path} is damaged ({error}): mend the line, for it says what was spent on these pictures"
        raise UserError(message) from None
    return lines


def total(releases: Sequence[Mapping[str, Any]]) -> str:
    """Returns in words what releases have spent together by basic composition, for each kind of neighbour."""
    sums: dict[tuple[str, ...], list[float]] = {}
    for one in releases:
        kind = sums.setdefault(tuple(sorted(one["adjacency"])), [0.0, 0.0])
        kind[0] += one["epsilon"]
        kind[1] += one["delta"]
    parts = [
        f"epsilon {epsilon:.4g} at delta {delta:.3g} against {' and '.join(WORDS.get(one, one) for one in kind)}"
        for kind, (epsilon, delta) in sums.items()
    ]
    return ", and ".join(parts)
