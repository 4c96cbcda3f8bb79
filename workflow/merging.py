"""A preset's YAML, merged with config files and `--config` and checked against schema.yaml; not against what exists."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from workflow.common.errors import UserError, shown, unknown
from workflow.common.own_set import RESERVED, OwnSet
from workflow.common.readers.yaml_text import read_yaml
from workflow.dataset_entries import read_datasets
from workflow.grid_values import Origin, check_keys, settled
from workflow.overrides import Layer, listed, names_alone, nearest_origin, override
from workflow.reproducible import reproducible_layer
from workflow.schema_words import words

FOLDER = Path(__file__).resolve().parent / "config"
COMMAND_LINE = "--config"
CONFIG_NAME = re.compile("[a-z][a-z0-9_-]*")
PRESET_HINT = "their files: workflow/config/<preset>.yaml"
TUNED = "tuned"  # the folder, beside the presets, of what `python -m workflow.tune choose` wrote for each
TAKEN = ("published", "reference")  # folders of results/ that hold something else


def names(folder: Path = FOLDER) -> list[str]:
    """Returns the names of the presets: the YAML files that hold a grid."""
    return sorted(path.stem for path in folder.glob("*.yaml") if path.stem not in ("schema", "report"))


@dataclass(frozen=True)
class Merged:
    """A preset's content after merging.

    Attributes:
        name: of the configuration; its results lie in results/<name>.
        extends: the shipped preset below a configuration of the user's own; None for a preset as it is.
        source: the file named in errors.
        layers: all that was merged, from weak to strong, the preset first.
        content: by key as in schema.yaml; `datasets` holds a mapping for each data set.
        own: the user's own data sets among `datasets`.
        where: the file or --config that set what stands under keys.
    """

    name: str
    extends: str | None
    source: str
    layers: tuple[Layer, ...]
    content: dict[str, Any]
    own: dict[str, OwnSet]
    where: Callable[..., str]


def read(layers: Sequence[Layer], datasets: Iterable[str], folder: Path = FOLDER, tuned: bool = True) -> Merged:
    """Returns the preset that `layers` name (default quick), merged with them from weak to strong.

    What equal tuning chose for the preset lies between it and them, unless `tuned` is false. `datasets` are the names
    of the shipped data sets. Raises UserError for an unknown preset, key, data set or run,
    and for a value that the schema or `settled` refuses.
    """
    datasets = list(datasets)
    name, extends, source = _names(layers, folder)
    shipped = shipped_layers(extends or name, folder, tuned)
    for layer in layers:
        check_keys(layer.values, layer.source)
    given = [Layer(layer.source, {k: v for k, v in layer.values.items() if k != "extends"}) for layer in layers]
    replaced = ["datasets"] if any("datasets" in layer.values for layer in given) else []
    below = [_without(layer, *replaced) for layer in shipped]

    def origin(*keys: Any) -> str:
        return nearest_origin(keys, [*below, *given], source)

    preset = _stacked(shipped)
    content = settled(override(preset, given, datasets) | {"preset": name}, origin)
    _check_schema(content, origin)
    pinned = reproducible_layer(content, origin)
    content = override(content, [pinned], datasets)
    entries, own = read_datasets(content["datasets"], datasets, origin)
    if own and replaced and extends is None and preset.get("datasets"):
        raise UserError(
            f"data sets of your own ({', '.join(own)}) would mix with preset {name}'s results; write extends: {name} in"
            f" place of preset: {name} and give the configuration a name by preset: NAME"
        )
    content["datasets"] = entries
    merged = (*map(_listed, shipped), *given, pinned)
    return Merged(name, extends, source, merged, content, own, origin)


def shipped_layers(name: str, folder: Path = FOLDER, tuned: bool = True) -> list[Layer]:
    """Returns what a preset is made of, from weak to strong, each called after its file.

    These are the layers of the preset that it extends, if it does, as equal tuning left it; its own file; and what
    equal tuning chose for it, unless `tuned` is false. The first layer alone says `preset`, by the name asked for; the
    last one with data sets alone has them, by name, as they replace those of the presets below.

    Raises UserError for a file that is missing, not YAML, or no mapping of keys that are text, and for a preset that
    extends one that does not exist, or itself.
    """
    return _layers(name, folder, tuned, ())


def _layers(name: str, folder: Path, tuned: bool, above: tuple[str, ...]) -> list[Layer]:
    """Returns the layers of a preset; `above` are those that extend it, the last one directly."""
    path = folder / f"{name}.yaml"
    found = mapping(path)
    check_keys(found, path.name)
    below = _extended(found["extends"], folder, (*above, name)) if "extends" in found else []
    own = Layer(path.name, {key: _by_name(key, value) for key, value in found.items()})
    own = _without(own, "extends", "preset")
    if "datasets" in own.values:
        below = [_without(layer, "datasets") for layer in below]
    first, *others = [*below, own]
    first = Layer(first.source, {**first.values, "preset": name})
    chosen = folder / TUNED / path.name
    if tuned and chosen.exists():
        found = mapping(chosen)
        source = f"{TUNED}/{path.name}"
        check_keys(found, source)
        others.append(Layer(source, _of_rows(found, _stacked([first, *others]))))
    return [first, *others]


def _extended(name: Any, folder: Path, above: tuple[str, ...]) -> list[Layer]:
    """Returns the layers of the preset that the last of `above` extends. Raises UserError where there can be none."""
    valid = [one for one in names(folder) if one not in above]
    where = f"in {above[-1]}.yaml under extends"
    if not isinstance(name, str):
        raise UserError(f"{above[-1]}.yaml: extends must be the name of a preset, got {shown(name)}; {PRESET_HINT}")
    if name in above:
        circle = " -> ".join([*above[above.index(name) :], name])
        raise UserError(f"preset {name!r} {where} would extend itself: {circle}; take out one of these extends")
    if name not in valid:
        raise unknown("preset", name, valid, PRESET_HINT, where=where)
    return _layers(name, folder, True, above)


def _by_name(key: str, value: Any) -> Any:
    """Returns what a preset holds under a key: data sets that it lists alone as a mapping, as it may hold them too."""
    if key != "datasets" or not names_alone(value):
        return value
    return {name: {} for name in listed(value) or ()}


def _without(layer: Layer, *keys: str) -> Layer:
    return Layer(layer.source, {key: value for key, value in layer.values.items() if key not in keys})


def _stacked(layers: Sequence[Layer]) -> dict[str, Any]:
    """Returns the content of a preset's layers."""
    first, *others = layers
    return override(first.values, others, ())


def shipped_content(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """Returns a preset's content by key, before equal tuning. Raises UserError as `shipped_layers` does."""
    return _stacked(shipped_layers(name, folder, tuned=False))


def _listed(layer: Layer) -> Layer:
    """Returns a preset's layer as it is called where settings are listed: by the preset, or by what was tuned."""
    return layer if layer.source.startswith(f"{TUNED}/") else Layer(f"preset {Path(layer.source).stem}", layer.values)


def _of_rows(chosen: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what equal tuning chose without the rows that the preset has no more, which it would make anew."""
    held = {name: entry for name, entry in (chosen.get("runs") or {}).items() if name in (preset.get("runs") or {})}
    return {**chosen, "runs": held} if "runs" in chosen else dict(chosen)


def _names(layers: Sequence[Layer], folder: Path) -> tuple[str, str | None, str]:
    """Returns the name of a configuration, the preset that it extends or None, and the file to name in errors."""
    def given(key: str) -> tuple[str | None, str]:
        found = [(str(layer.values[key]), layer.source) for layer in layers if layer.values.get(key) is not None]
        return found[-1] if found else (None, "")

    (name, named_in), (extends, where) = given("preset"), given("extends")
    shipped = names(folder)
    if extends is None:
        name = name or "quick"
        if name not in shipped:
            raise unknown("preset", name, shipped, f"{PRESET_HINT}; your own also needs extends: PRESET")
        return name, None, f"{name}.yaml"
    if extends not in shipped:
        raise unknown("preset", extends, shipped, PRESET_HINT, where=f"in {where} under extends")
    files = [layer.source for layer in layers if layer.source != COMMAND_LINE]
    source = where if where in files else files[-1] if files else COMMAND_LINE
    if name is None and source == COMMAND_LINE:
        raise UserError(f"extends: {extends} needs a name for the results: give preset: NAME")
    stated = name or Path(source).stem
    said = f"preset: {stated} in {named_in}" if name else f"{source} gives its configuration the name {stated!r}, which"
    if stated in (*shipped, *TAKEN):
        raise UserError(f"{said} is taken: results/{stated} is not yours; give another by preset: NAME")
    if stated in RESERVED:
        raise UserError(f"{said} is reserved on some systems; give another by preset: NAME")
    if not CONFIG_NAME.fullmatch(stated):
        raise UserError(f"{said} must consist of a-z, 0-9, _ and -, a letter first; give another by preset: NAME")
    return stated, extends, source


def mapping(path: Path) -> dict[str, Any]:
    """Returns what a YAML file holds. Raises UserError for a file that is missing, not YAML, or no mapping of keys."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a mapping of keys, got {type(content).__name__}")
    return content


def _key_path(parts: Iterable[Any]) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _check_schema(content: Mapping[str, Any], origin: Origin) -> None:
    schema = yaml.safe_load((FOLDER / "schema.yaml").read_text(encoding="utf-8"))
    errors = jsonschema.Draft202012Validator(schema).iter_errors(content)
    error = min(errors, key=lambda e: (len(e.absolute_path), str(e.absolute_path)), default=None)
    if error is None:
        return
    where = _key_path(error.absolute_path)
    if error.validator == "additionalProperties":
        valid = error.schema["properties"]
        wrong = next(key for key in error.instance if key not in valid)
        source = origin(*error.absolute_path, wrong)
        raise unknown("key", wrong, valid, where=f"in {source}" + (f" under {where}" if where else ""))
    about = error.schema.get("description", "")
    source = origin(*error.absolute_path)
    raise UserError(f"{source}: {where or 'top level'}: {words(error)}" + (f" ({about})" if about else ""))
