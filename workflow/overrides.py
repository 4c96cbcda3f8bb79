"""What config files and `--config` gave, merged into a preset: lists replace or choose, mappings are merged."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workflow.common.errors import UserError, shown, unknown
from workflow.common.readers.numbers import parse_number
from workflow.common.readers.yaml_text import parse_yaml

NAMED = ("methods", "runs")  # hold an entry for each name
LISTS = ("datasets", "runs", "epsilons", "seeds", "data_sources")
NOTHING = (None, "", [], [None], [""])  # as YAML and --config write it
EXAMPLES = {"runs": "runs: [dpac, dpgan]", "epsilons": "epsilons: [1, 10]", "seeds": "seeds: [0, 1]"}
OWN_HINT = "a set of your own needs a folder: datasets: {NAME: {folder: PATH}}"
OWN_ROWS = (
    "a row of your own: a file such as mine.yaml with extends: {preset} and runs: {{NAME: {{method: METHOD}}}}, or for"
    " samples made elsewhere runs: {{NAME: {{external: samples.npz, claimed_epsilon: 10}}}}, given by --configfile"
    " mine.yaml"
)
SCALED = "one_per"  # in a mapping that stands for one number, see workflow.common.settings


@dataclass(frozen=True)
class Layer:
    """Settings of one origin: `source` is a config file's name or `--config`."""

    source: str
    values: Mapping[str, Any]


def own_rows(preset: str = "quick") -> str:
    """Returns how to write a row of one's own beside those of a preset."""
    return OWN_ROWS.format(preset=preset)


def run_hint(preset: str | None) -> str:
    """Returns where the rows of a preset stand and how to add one, for the error on an unknown row."""
    where = f"the rows of workflow/config/{preset}.yaml; " if preset else ""
    return f"{where}{own_rows(preset or 'quick')}"


def override(preset: Mapping[str, Any], layers: Iterable[Layer], datasets: Iterable[str]) -> dict[str, Any]:
    """Returns a preset's content with `layers` merged in, from weak to strong.

    The first layer with `datasets` replaces the preset's; a later one adds to them or chooses among them. A list of
    runs chooses, a mapping is merged. `datasets` are the names of the shipped data sets.

    Raises UserError for an unknown data set, a run that the layers below do not have, or a list that holds nothing.
    """
    merged, own = dict(preset), {}
    for layer in layers:
        for key, value in layer.values.items():
            if key in EXAMPLES and value in NOTHING:
                such = f"give at least one, such as {EXAMPLES[key]}, or leave {key} out"
                raise UserError(f"{layer.source}: {key} holds nothing; {such}")
            items = listed(value) if key in LISTS else None
            if key == "datasets":
                own = _datasets(own, value, items, datasets, layer.source)
                merged[key] = own
            elif items is None:
                entries = key in NAMED and isinstance(value, Mapping)
                merged[key] = _merge(merged.get(key), _filled(retype(value)) if entries else retype(value))
            elif key == "runs":
                hint = run_hint(preset.get("preset"))
                chosen = _chosen("run", items, merged["runs"], hint, layer.source)
                merged[key] = {name: merged["runs"][name] for name in chosen}
            else:
                merged[key] = items
    return merged


def _filled(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Returns entries where nothing under a name, as YAML and `--config` write it, is an entry that changes nothing."""
    return {name: {} if entry in (None, "") else entry for name, entry in entries.items()}


def _datasets(
    own: Mapping[str, Any], value: Any, items: list[Any] | None, datasets: Iterable[str], source: str
) -> dict[str, Any]:
    if not names_alone(value) and not isinstance(value, Mapping):
        raise UserError(
            f"{source}: datasets holds {shown(value)}; indent below it, for each of them, a line NAME: {{folder: PATH}}"
        )
    if items is None:
        # What a set of the user's own holds is not retyped: a folder may be called 2024.
        typed = {name: retype(entry) if name in datasets else entry for name, entry in value.items()}
        return _merge(own, _filled(typed))
    return {name: own.get(name, {}) for name in _chosen("data set", items, [*datasets, *own], OWN_HINT, source)}


def names_alone(value: Any) -> bool:
    """Returns whether a value is a list of texts, or a text that stands for one."""
    return bool(value.strip()) if isinstance(value, str) else isinstance(value, list) and all(map(_is_text, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _chosen(kind: str, items: list[Any], valid: Iterable[str], hint: str, source: str) -> list[str]:
    valid = list(valid)
    for item in items:
        if item not in valid:
            raise unknown(kind, item, valid, hint, where=f"in {source}")
    return items


def origin(path: Sequence[Any], layers: Sequence[Layer], default: str) -> str:
    """Returns the source of the strongest layer that holds the keys `path`, `default` where none does."""
    number = holder(path, layers)
    return default if number < 0 else layers[number].source


def holder(path: Sequence[Any], layers: Sequence[Layer]) -> int:
    """Returns the number of the strongest layer that holds the keys `path`; -1 where none does."""
    return next((number for number in reversed(range(len(layers))) if _holds(layers[number].values, path)), -1)


def nearest_origin(path: Sequence[Any], layers: Sequence[Layer], default: str) -> str:
    """Returns the origin of `path`, or of as many of its first keys as a layer holds: a list has one for all."""
    keys = list(itertools.takewhile(_is_text, path))
    found = (origin(keys[:count], layers, "") for count in range(len(keys), 0, -1))
    return next(filter(None, found), default)


def _holds(values: Any, path: Sequence[Any]) -> bool:
    for depth, key in enumerate(path):
        if not isinstance(values, Mapping):
            # A list, such as datasets: mnist,lesions, sets what it names but no key of it.
            return depth == len(path) - 1 and key in (listed(values) or ())
        if key not in values:
            return False
        values = values[key]
    return True


def retype(value: Any) -> Any:
    """Returns a command-line value with numbers as numbers: `--config` hands over text inside lists and mappings."""
    if isinstance(value, Mapping):
        return {key: retype(item) for key, item in value.items()}
    if isinstance(value, list):
        return [retype(item) for item in value]
    if not isinstance(value, str):
        return value
    if re.fullmatch(r"[+-]?[0-9]{1,40}", value):
        return int(value)
    try:
        # nan stays a text, which is then refused where a number is meant.
        return parse_number(value, endless=True)
    except ValueError:
        return parse_yaml(value) if value.lower() in ("true", "false", "null", ".inf") else value


def listed(value: Any) -> list[Any] | None:
    """Returns the items of a list, of comma-separated text or of one scalar; None for a mapping."""
    if isinstance(value, Mapping):
        return None
    items = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    return [retype(item.strip() if isinstance(item, str) else item) for item in items]


def _merge(base: Any, extra: Any) -> Any:
    if isinstance(base, Mapping) and isinstance(extra, Mapping) and SCALED not in extra:
        kept = _kept(base, extra)
        return {**kept, **{key: _merge(kept.get(key), value) for key, value in extra.items()}}
    return dict(extra) if isinstance(extra, Mapping) else extra


def _kept(base: Mapping[str, Any], extra: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns what of a mapping stays below another one that is merged into it."""
    if "external" in extra and "external" not in base:
        # Nothing of a row that was trained goes with samples made elsewhere.
        return {}
    if "chosen_on" in extra:
        # Who says anew where settings were chosen does not speak of the trials and remarks of another choice.
        return {key: value for key, value in base.items() if key not in ("chosen_by", "chosen_note")}
    return base
