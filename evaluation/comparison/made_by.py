"""What made both sides of a comparison: their processors, and in which packages and settings they differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.comparison.sides import score_files
from evaluation.comparison.summary import listed
from workflow.common.files import read_object

RECORD = "provenance.json"
UNKNOWN = "a processor that nobody noted"


def made_by(a: Path, b: Path) -> list[str]:
    """Returns in words which processors scored each side, and what else differs between them.

    Nothing unless both sides' scores lie beside a provenance.json. Raises UserError for one that is malformed.
    """
    old, new = _records(a), _records(b)
    if not old or not new:
        return []
    on = [listed(map(_processor, records)) for records in (old, new)]
    told = f"both sides from {on[0]}" if on[0] == on[1] else f"A from {on[0]}, B from {on[1]}"
    return [told, *_others(old, new)]


def _records(side: Path) -> list[dict[str, Any]]:
    paths = (path.parent / RECORD for path in score_files(side).values())
    return [read_object(path, "the origin of scores") for path in paths if path.is_file()]


def _processor(record: Mapping[str, Any]) -> str:
    found = record.get("processor")
    return found if isinstance(found, str) and found else UNKNOWN


def _others(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[str]:
    packages = [_packages(old), _packages(new)]
    found = [
        f"{name} {listed(sorted(packages[0][name]))} in A, {listed(sorted(packages[1][name]))} in B"
        for name in sorted(packages[0].keys() & packages[1].keys())
        if packages[0][name] != packages[1][name]
    ]
    pinned = [{bool(record.get("pinned")) for record in records} for records in (old, new)]
    if pinned[0] != pinned[1]:
        found.append(f"{'A' if True in pinned[0] else 'B'} alone is reproducible: true")
    return found


def _packages(records: Iterable[Mapping[str, Any]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for record in records:
        packages = record.get("packages")
        for name, version in packages.items() if isinstance(packages, Mapping) else ():
            found.setdefault(name, set()).add(str(version))
    return found
