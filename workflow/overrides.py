"""What config files and `--config` gave, merged into a preset: lists replace or choose, mappings are merged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from workflow.common.errors import UserError, unknown

LISTS = ("datasets", "runs", "epsilons", "seeds", "data_sources")
OWN_HINT = "a set of your own needs a folder: datasets: {NAME: {folder: PATH}}"
RUN_HINT = "a new row is an entry of runs: that names its method"
SCALED = "one_per"  # in a mapping that stands for one number, see workflow.common.settings


@dataclass(frozen=True)
class Layer:
    """Settings of one origin: `source` is a config file's name or `--config`."""

    source: str
    values: Mapping[str, Any]


def override(preset: Mapping[str, Any], layers: Iterable[Layer], datasets: Iterable[str]) -> dict[str, Any]:
    """Returns a preset's content with `layers` merged in, from weak to strong.

    The first layer with `datasets` replaces the preset's; a later one adds to them or chooses among them. A list of
    runs chooses, a mapping is merged. `datasets` are the names of the shipped data sets.

    Raises UserError for an unknown data set, or a run that the layers below do not have.
    """
    merged, own = dict(preset), {}
    for layer in layers:
        for key, value in layer.values.items():
            items = listed(value) if key in LISTS else None
            if key == "datasets":
                own = _datasets(own, value, items, datasets)
                merged[key] = own
            elif items is None:
                merged[key] = _merge(merged.get(key), retype(value))
            elif key == "runs":
                merged[key] = {name: merged["runs"][name] for name in _chosen("run", items, merged["runs"], RUN_HINT)}
            else:
                merged[key] = items
    return merged


def _datasets(own: Mapping[str, Any], value: Any, items: list[Any] | None, datasets: Iterable[str]) -> dict[str, Any]:
    if value is None or (isinstance(value, list) and not all(isinstance(item, str) for item in value)):
        raise UserError(f"datasets holds {value!r}; indent below it, for each of them, a line NAME: {{folder: PATH}}")
    if items is None:
        # What a set of the user's own holds is not retyped: a folder may be called 2024.
        typed = {name: retype(entry) if name in datasets else entry for name, entry in value.items()}
        # `--config` hands over an empty entry as text.
        return _merge(own, {name: {} if entry in (None, "") else entry for name, entry in typed.items()})
    return {name: own.get(name, {}) for name in _chosen("data set", items, [*datasets, *own], OWN_HINT)}


def _chosen(kind: str, items: list[Any], valid: Iterable[str], hint: str = "") -> list[str]:
    valid = list(valid)
    for item in items:
        if item not in valid:
            raise unknown(kind, item, valid, hint)
    return items


def retype(value: Any) -> Any:
    """Returns a command-line value with numbers as numbers: `--config` hands over text inside lists and mappings."""
    if isinstance(value, Mapping):
        return {key: retype(item) for key, item in value.items()}
    if isinstance(value, list):
        return [retype(item) for item in value]
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            number = kind(value)
        except ValueError:
            continue
        # A number that float cannot hold stays text, for its reader to refuse.
        return value if number in (math.inf, -math.inf) and any(map(str.isdigit, value)) else number
    return yaml.safe_load(value) if value.lower() in ("true", "false", "null", ".inf") else value


def listed(value: Any) -> list[Any] | None:
    """Returns the items of a list, of comma-separated text or of one scalar; None for a mapping."""
    if isinstance(value, Mapping):
        return None
    items = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    return [retype(item.strip() if isinstance(item, str) else item) for item in items]


def _merge(base: Any, extra: Any) -> Any:
    if isinstance(base, Mapping) and isinstance(extra, Mapping) and SCALED not in extra:
        return {**base, **{key: _merge(base.get(key), value) for key, value in extra.items()}}
    return dict(extra) if isinstance(extra, Mapping) else extra
