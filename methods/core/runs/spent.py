"""The owner's record of every release of a data set's pictures, kept beside them: what they have spent in all."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from workflow.common.errors import UserError, short, shown
from workflow.common.files import cannot_write
from workflow.common.readers.guard import read_text, reason
from workflow.common.readers.json_text import parse_json
from workflow.common.rounding import up

FILE = "spent.jsonl"
_MOST_EPSILON = 1e12  # of one release: more is a damaged line
_MEND = "mend the line, for it says what was spent on these pictures"
WORDS = {"replace_one": "replacing one picture", "add_or_remove": "adding or removing one picture"}


def record(folder: Path, entry: Mapping[str, Any]) -> None:
    """Adds a release to `folder`/spent.jsonl, on disk when this returns; one whose `id` is there already is not added.

    Such a one must say the same cost, and the same name of the folder `out`: a copy of what was begun spends anew. So
    does one that was given away already.

    `entry` holds id, epsilon, delta, adjacency (a list) and what else the owner may want to know. Raises UserError
    where the file cannot be read or written.
    """
    for line in entries(folder):
        if line["id"] == entry["id"]:
            _check_same(folder / FILE, line, entry)
            return
    _add(folder, entry)


def mark_published(folder: Path, name: str) -> None:
    """Notes, in a line of its own, that the release whose `id` is `name` was given away; does nothing if it says so.

    Raises UserError where the file cannot be read or written.
    """
    if any(line["id"] == name and not line.get("published") for line in entries(folder)):
        _add(folder, {"id": name, "published": True})


def _add(folder: Path, line: Mapping[str, Any]) -> None:
    try:
        # What was spent on private pictures is their owner's to tell.
        with open(folder / FILE, "ab+", opener=functools.partial(os.open, mode=0o600)) as file:
            _append(file, json.dumps(line, sort_keys=True).encode() + b"\n")
    except OSError as error:
        raise cannot_write(folder / FILE, error) from None


def _check_same(path: Path, line: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
    for name in ("epsilon", "delta", "adjacency"):
        if line[name] != entry[name]:
            raise UserError(
                f"{path} says {name} {shown(line[name])} of release {line['id']}, not {entry[name]}; {_MEND}"
            )
    # The name alone, since the folder may be reached from elsewhere.
    names = [Path(one["out"]).name if isinstance(one.get("out"), str) else None for one in (line, entry)]
    if names[0] != names[1]:
        raise UserError(
            f"the release begun here is recorded in {path} as {shown(names[0])}, not {shown(names[1])}: continue it"
            " under that name; a copy of its folder is no second release"
        )
    if line.get("published"):
        raise UserError(
            f"the release begun here was given away before, as {path} says, so this is an older copy of its folder,"
            f" which would release other noise for the same charge: remove {names[1]}.private and call again, which"
            " charges another release"
        )


def _append(file: BinaryIO, line: bytes) -> None:
    size = file.seek(0, os.SEEK_END)
    if size:
        file.seek(-1, os.SEEK_END)
        # An editor may have left the last line without its end.
        line = line if file.read() == b"\n" else b"\n" + line
    try:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    except OSError:
        file.truncate(size)
        raise


def entries(folder: Path) -> list[dict[str, Any]]:
    """Returns the recorded releases in order, with `published` true for those that `mark_published` has marked.

    Raises UserError for a file that holds anything else.
    """
    path = folder / FILE
    if not os.path.lexists(path):
        return []
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(read_text(path, "is damaged", _MEND).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            line = parse_json(text)
        except ValueError as error:
            raise UserError(f"{path} is damaged (line {number}: {reason(error)}): {_MEND}") from None
        if (marked := _marked(line, lines)) is not None:
            marked["published"] = True
        elif _is_entry(line):
            lines.append(line)
        else:
            raise UserError(f"{path} is damaged (line {number} holds {short(json.dumps(line))}): {_MEND}")
    names = [line["id"] for line in lines]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path} is damaged (release {shown(twice)} stands twice): {_MEND}")
    return lines


def _marked(line: Any, before: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns which of the releases recorded before a line marks as published, None if it is no such line."""
    if not isinstance(line, dict) or line.keys() != {"id", "published"} or line["published"] is not True:
        return None
    return next((one for one in before if one["id"] == line["id"]), None)


def _is_entry(line: Any) -> bool:
    if not isinstance(line, dict) or not isinstance(line.get("id"), str):
        return False
    numbers = [line.get("epsilon"), line.get("delta")]
    kinds = line.get("adjacency")
    return (
        all(isinstance(number, float | int) and not isinstance(number, bool) for number in numbers)
        and 0 <= numbers[0] <= _MOST_EPSILON and 0 <= numbers[1] < 1
        and isinstance(kinds, list) and bool(kinds) and all(isinstance(kind, str) for kind in kinds)
    )  # fmt: skip


def total(releases: Sequence[Mapping[str, Any]]) -> str:
    """Returns in words what releases have spent together by basic composition, for each kind of neighbour."""
    sums: dict[tuple[str, ...], list[float]] = {}
    for one in releases:
        kind = sums.setdefault(tuple(sorted(one["adjacency"])), [0.0, 0.0])
        kind[0] += one["epsilon"]
        kind[1] += one["delta"]
    parts = [
        f"epsilon {up(epsilon)} at delta {up(delta, '.3g')} against {' and '.join(WORDS.get(one, one) for one in kind)}"
        for kind, (epsilon, delta) in sums.items()
    ]
    return ", and ".join(parts)
