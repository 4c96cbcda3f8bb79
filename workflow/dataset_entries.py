"""The entries under `datasets:` of a configuration: shipped data sets, and sets of the user's own."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from workflow.common.errors import UserError, unknown
from workflow.common.own_set import NAME, RESERVED, OwnSet
from workflow.overrides import OWN_HINT, retype

SHIPPED_KEYS = ("optional",)
PATHS = ("folder", "labels", "test", "test_labels")
GIVE = "--config 'datasets={NAME: {folder: PATH}}', or the same under datasets: of a file given by --configfile"


def read_datasets(
    entries: Mapping[str, Any], shipped: list[str], where: Callable[..., str]
) -> tuple[dict[str, dict[str, Any]], dict[str, OwnSet]]:
    """Returns the entries with values of their types, and the own sets among them, both by name in order.

    `entries` maps each name to its keys or None; `shipped` are the data sets that need no folder; `where` names
    the file or --config that set what stands under keys.

    Raises UserError for no entry, an unknown name or key, or an impossible value.
    """
    if not entries:
        raise UserError(f"{where('datasets')} has no data set: give a folder of pictures by {GIVE}")
    read: dict[str, dict[str, Any]] = {}
    own: dict[str, OwnSet] = {}
    for name, entry in entries.items():
        entry = entry or {}
        source = where("datasets", name)
        if name in shipped:
            read[name] = _shipped(name, entry, where)
        elif set(entry) <= set(SHIPPED_KEYS):
            raise unknown("data set", name, shipped, OWN_HINT, where=f"in {source} under datasets")
        else:
            read[name] = {key: _typed(key, value) for key, value in entry.items()}
            own[name] = _own(name, read[name], where)
    return read, own


def _shipped(name: str, entry: dict[str, Any], where: Callable[..., str]) -> dict[str, Any]:
    if "folder" in entry:
        source = where("datasets", name, "folder")
        raise UserError(f"{source}: {name} is the name of a shipped data set; choose another for {entry['folder']}")
    for key in entry:
        if key not in SHIPPED_KEYS:
            source = where("datasets", name, key)
            raise unknown("key", key, SHIPPED_KEYS, where=f"in {source} under datasets.{name}")
    return entry


def _own(name: str, entry: Mapping[str, Any], where: Callable[..., str]) -> OwnSet:
    source = where("datasets", name)
    if not NAME.fullmatch(str(name)):
        raise UserError(f"{source}: data set {name!r} must consist of a-z, 0-9 and _, a letter first; rename it")
    if name in RESERVED:
        raise UserError(f"{source}: data set {name!r} under datasets is reserved on some systems; rename it")
    try:
        return OwnSet.parse(name, entry)
    except UserError as error:
        raise UserError(f"{where('datasets', name, *_culprit(name, entry))}: datasets.{name}: {error}") from None


def _culprit(name: str, entry: Mapping[str, Any]) -> list[str]:
    """Returns the key of an entry that is wrong by itself; none where keys do not go together."""
    for key, value in entry.items():
        try:
            OwnSet.parse(name, {"folder": "x", key: value})
        except UserError:
            return [key]
    return []


def _typed(key: str, value: Any) -> Any:
    """Returns a value of an own set's key: a path or text stays text, also one like 2024."""
    if get_type_hints(OwnSet).get(key) is not str:
        return retype(value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def facts(own: OwnSet) -> dict[str, Any]:
    """Returns the settings that shape the images: where the pictures lie, and whether they are public, does not."""
    settings = dataclasses.asdict(own)
    return {key: value for key, value in settings.items() if key not in (*PATHS, "public")}


def check_folders(own: Mapping[str, OwnSet]) -> None:
    """Raises UserError for a path of a set that does not exist."""
    for name, one in own.items():
        for key in PATHS:
            path = getattr(one, key)
            if path and not os.path.exists(os.path.expanduser(path)):
                where = Path(os.path.expanduser(path)).absolute()
                raise UserError(f"data set {name}: {key} {path} does not exist (looked for {where}); correct the path")


def unprotected(own: Mapping[str, OwnSet], datasets: Iterable[str]) -> str:
    """Returns the warning of a benchmark run on own sets that are not marked public; empty where there is none."""
    names = [name for name in datasets if name in own and not own[name].public]
    if not names:
        return ""
    return (
        f"warning: a benchmark run is reproducible from public seeds and protects nobody in {', '.join(names)}: for"
        " pictures to give away use `python -m methods release`; every method compared spends privacy of its own"
        " (public: true under the data set says that its pictures need no protection)"
    )
