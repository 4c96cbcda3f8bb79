"""What `--config` and `--configfile` gave, merged into a preset: lists replace or choose, mappings are merged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from workflow.common.errors import unknown

LISTS = ("datasets", "runs", "epsilons", "seeds", "data_sources")


def override(preset: Mapping[str, Any], overrides: Mapping[str, Any], datasets: Iterable[str]) -> dict[str, Any]:
    """Returns a preset's content with `overrides` merged in; `datasets` are the names that can be prepared.

    Raises UserError for an unknown data set, or a run that the preset does not have.
    """
    merged = dict(preset)
    for key, value in overrides.items():
        items = _listed(value) if key in LISTS else None
        if items is None:
            merged[key] = _merge(preset.get(key), _retype(value))
        elif key == "datasets":
            merged[key] = {name: {"optional": False} for name in _chosen("data set", items, datasets)}
        elif key == "runs":
            merged[key] = {name: preset["runs"][name] for name in _chosen("run", items, preset["runs"])}
        else:
            merged[key] = items
    return merged


def _retype(value: Any) -> Any:
    """Returns a command-line value with numbers as numbers: `--config` hands over text inside lists and mappings."""
    if isinstance(value, Mapping):
        return {key: _retype(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_retype(item) for item in value]
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return yaml.safe_load(value) if value.lower() in ("true", "false", "null", ".inf") else value


def _listed(value: Any) -> list[Any] | None:
    """Returns the items of a list, of comma-separated text or of one scalar; None for a mapping."""
    if isinstance(value, Mapping):
        return None
    items = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    return [_retype(item.strip() if isinstance(item, str) else item) for item in items]


def _merge(base: Any, extra: Any) -> Any:
    if isinstance(base, Mapping) and isinstance(extra, Mapping):
        return {**base, **{key: _merge(base.get(key), value) for key, value in extra.items()}}
    return extra


def _chosen(kind: str, items: Iterable[Any], valid: Iterable[str]) -> Iterable[Any]:
    """Returns `items`. Raises UserError for one that is not among the valid names."""
    for name in items:
        if name not in valid:
            raise unknown(kind, name, valid, "a new row is a line under runs: in the preset" if kind == "run" else "")
    return items
