"""Which committed rows their preset would make otherwise today: other settings, or another way of scoring."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from methods.core import registry
from workflow import presets
from workflow.datasets.sources import NAMES
from workflow.grid import Config

# Presets that committed rows on full-size images are of; a row that has left its own is looked for in the others.
PRESETS = ("quick", "long", "teachers")


def older(settings: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    """Returns each (run, data set) of a provenance's settings that no preset of its name makes so any more.

    Of a configuration of the user's own, none does that it extends. Settings are compared with every default of today
    filled in: a default that has changed since is not seen.
    """
    own = settings.get("extends") or settings["preset"]
    homes = (own, *(name for name in PRESETS if name != own))
    return frozenset(
        (run, dataset) for run, one in settings["runs"].items() for dataset, hyper in one["hyper"].items()
        if not _made_so(_home(run, homes, dataset), run, dataset, one["method"], hyper, settings["protocol"])
    )  # fmt: skip


def _home(run: str, names: tuple[str, ...], dataset: str) -> Config | None:
    strange = "" if dataset in NAMES else dataset
    return next((config for config in (_preset(name, strange) for name in names) if run in config.runs), None)


@cache
def _preset(name: str, strange: str) -> Config:
    """Returns a preset, on a data set `strange` of the user's own where there is one."""
    own = {"extends": name, "preset": "compared", "datasets": {strange: {"folder": "."}}}
    given = own if strange else {"preset": name}
    return presets.load(given, datasets=NAMES, methods=registry, protocol_keys=None)


def _made_so(
    home: Config | None, run: str, dataset: str, method: str, hyper: Mapping[str, Any], protocol: Mapping[str, Any]
) -> bool:
    if home is None or home.runs[run].method != method:
        return False
    shared = {key: value for key, value in protocol.items() if key != presets.PER_DATASET}
    if home.protocol_of(dataset) != {**shared, **protocol.get(presets.PER_DATASET, {}).get(dataset, {})}:
        return False
    return bool(registry.hyper(method, hyper) == registry.hyper(method, home.runs[run].hyper[dataset]))
