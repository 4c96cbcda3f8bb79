"""A merged configuration as YAML, each value with a comment on where it came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from workflow.common.own_set import OwnSet
from workflow.merging import Merged
from workflow.overrides import SCALED, Layer, origin

PER_DATASET = "per_dataset"

DEFAULT = "default"


def with_origins(merged: Merged, defaults: Mapping[str, Any]) -> str:
    """Returns the YAML of all settings, with a comment that names the preset, the file, --config or `default`.

    `defaults` holds, in the content's shape, the values of keys that nothing sets; own sets get their own.
    """
    own = {
        name: {f.name: f.default for f in dataclasses.fields(OwnSet) if f.name != "folder"} for name in merged.own
    }  # fmt: skip
    content = _filled(merged.content, {**defaults, "datasets": own})
    lines = [f"preset: {merged.name}  # {_name_origin(merged)}"]
    if merged.extends:
        lines.append(f"extends: {merged.extends}")
    lines += [
        line for key, value in content.items() if key != "preset" for line in _lines((key,), value, merged.layers)
    ]
    return "\n".join(lines) + "\n"


def setting_origins(
    merged: Merged, run: str, method: str, dataset: str, names: Iterable[str], published: Iterable[str] = ()
) -> dict[str, str]:
    """Returns where a run's settings on a data set came from: the preset, a file, --config or `published settings`.

    Of a setting that several places hold the strongest counts, as in `presets.load`; one that none holds is left out,
    for it is the method's default. `published` are those that published settings hold.
    """
    found = dict.fromkeys(published, "published settings")
    for name in names:
        sources = [origin(path, merged.layers, "") for path in setting_places(run, method, dataset, name)]
        if stated := [source for source in sources if source]:
            found[name] = stated[-1]
    return found


def setting_places(run: str, method: str, dataset: str, name: str) -> list[tuple[str, ...]]:
    """Returns where a setting of a run on a data set may stand, the weakest place first."""
    places = (("methods", method), ("methods", method, PER_DATASET, dataset),
              ("runs", run), ("runs", run, PER_DATASET, dataset))  # fmt: skip
    return [(*place, name) for place in places]


def _name_origin(merged: Merged) -> str:
    stated = origin(("preset",), merged.layers[1:], DEFAULT)
    if merged.extends and stated == DEFAULT:
        return f"the name of {merged.source}"
    return stated


def _filled(content: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `content` with the defaults of the mappings in it; a mapping of defaults alone adds nothing."""
    filled = dict(content)
    for key, value in defaults.items():
        if not isinstance(value, Mapping):
            filled.setdefault(key, value)
        elif key in content:
            filled[key] = {
                name: _filled(entry or {}, value[name]) if isinstance(value.get(name), Mapping) else entry
                for name, entry in _filled(content[key], value).items()
            }
    return filled


def _lines(path: tuple[Any, ...], value: Any, layers: Sequence[Layer]) -> Iterator[str]:
    key = f"{'  ' * (len(path) - 1)}{_flow(path[-1])}:"
    if isinstance(value, Mapping) and value and SCALED not in value:
        yield key
        for name, item in value.items():
            yield from _lines((*path, name), item, layers)
    else:
        yield f"{key} {_flow(value)}  # {origin(path, layers, DEFAULT)}"


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("...").rstrip("\n")
