"""On which images each run's settings were chosen, in sentences for the report: a choice that costs no budget leaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HELD_OUT = "_val"  # ends the name of a data set whose test images are cut from another's training split
TEST_SPLIT = " (test split)"  # after the name of a data set: chosen by scores on images that the tables are scored on
PUBLISHED = "published"  # taken from the method's authors


def places(datasets: list[str]) -> list[str]:
    """Returns what `chosen_on` may hold: a held-out data set, the test split of another, or `published`."""
    return [name if name.endswith(HELD_OUT) else f"{name}{TEST_SPLIT}" for name in datasets] + [PUBLISHED]


def sentences(settings: Mapping[str, Any]) -> list[str]:
    """Returns Markdown sentences on how the settings of all runs were chosen, then every note; empty if none is stated.

    `settings` is `Config.summary()`, which provenance.json holds under `settings`.
    """
    runs: dict[tuple[str, ...], list[str]] = {}
    for name, run in settings.get("runs", {}).items():
        if run.get("chosen_on"):
            runs.setdefault(tuple(run["chosen_on"]), []).append(name)
    lines = [f"Settings of {_listed(names)} were {_chosen(where)}." for where, names in runs.items()]
    notes: dict[str, list[str]] = {}
    for name, run in settings.get("runs", {}).items():
        if run.get("chosen_note"):
            notes.setdefault(run["chosen_note"], []).append(name)
    lines += [f"{_listed(names)}: {note}" for note, names in notes.items()]
    return [*lines, *([settings["chosen_note"]] if settings.get("chosen_note") else [])]


def _listed(names: list[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return " and ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]]))


def _chosen(where: tuple[str, ...]) -> str:
    tested = [place.removesuffix(TEST_SPLIT) for place in where if place.endswith(TEST_SPLIT)]
    trained = [place for place in where if place != PUBLISHED and not place.endswith(TEST_SPLIT)]
    parts = ["taken from their authors"] if PUBLISHED in where else []
    if trained:
        parts.append(f"chosen on held-out images ({_listed(trained)})")
    if tested:
        parts.append(f"chosen by scores on the test split of {_listed(tested)}, which flatters these rows")
    return " and ".join(parts)
