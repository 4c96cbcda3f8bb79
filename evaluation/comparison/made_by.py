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
PROTOCOL, PER_DATASET = "protocol", "per_dataset"
# Where a machine has a file of one content: it moves no score.
_PLACES = ("inception_weights",)
_UNSAID = "by default"


def made_by(a: Path, b: Path) -> list[str]:
    """Returns in words which processors scored each side, and what else differs between them.

    Nothing unless both sides' scores lie beside a provenance.json. Raises UserError for one that is malformed.
    """
    old, new = _records(a), _records(b)
    if not old or not new:
        return []
    on = [listed(map(_processor, records.values())) for records in (old, new)]
    told = f"both sides from {on[0]}" if on[0] == on[1] else f"A from {on[0]}, B from {on[1]}"
    return [told, *_others(list(old.values()), list(new.values())), *_scored_otherwise(old, new)]


def _records(side: Path) -> dict[str, dict[str, Any]]:
    paths = {name: path.parent / RECORD for name, path in score_files(side).items()}
    return {name: read_object(path, "the origin of scores") for name, path in paths.items() if path.is_file()}


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


def _scored_otherwise(old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns in words which evaluation settings differ on data sets of both sides: there a score may move alone."""
    found: dict[str, tuple[list[Any], list[Any]]] = {}
    for name in [name for name in old if name in new]:
        one, other = _protocols(old[name]), _protocols(new[name])
        for dataset in [dataset for dataset in one if dataset in other]:
            of_a, of_b = one[dataset], other[dataset]
            for key in sorted({*of_a, *of_b}.difference(_PLACES)):
                if of_a.get(key, _UNSAID) != of_b.get(key, _UNSAID):
                    in_a, in_b = found.setdefault(key, ([], []))
                    in_a.append(of_a.get(key, _UNSAID))
                    in_b.append(of_b.get(key, _UNSAID))
    told = [f"{key} {listed(in_a)} in A, {listed(in_b)} in B" for key, (in_a, in_b) in found.items()]
    return [f"{PROTOCOL}: {'; '.join(told)}"] if told else []


def _protocols(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns data set -> the evaluation settings that its preset gives; none where the record says nothing of them."""
    settings = _object(record.get("settings"))
    protocol, datasets = settings.get(PROTOCOL), settings.get("datasets")
    if not isinstance(protocol, Mapping) or not isinstance(datasets, list):
        return {}
    shared = {key: value for key, value in protocol.items() if key != PER_DATASET}
    own = _object(protocol.get(PER_DATASET))
    return {name: {**shared, **_object(own.get(name))} for name in map(str, datasets)}


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
