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
    runs: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for name, run in settings.get("runs", {}).items():
        if run.get("chosen_on"):
            by = run.get("chosen_by") or {}
            key = (tuple(run["chosen_on"]), f"by equal tuning at commit {by['commit']}" if by else "")
            runs.setdefault(key, []).append(f"`{name}`" + (f" ({_trials(by)})" if by else ""))
    lines = [
        f"Settings of {_listed(names)} were {' '.join(filter(None, [was_chosen(where), how]))}."
        for (where, how), names in runs.items()
    ]
    notes: dict[str, list[str]] = {}
    for name, run in settings.get("runs", {}).items():
        if run.get("chosen_note"):
            notes.setdefault(run["chosen_note"], []).append(name)
    lines += [f"{_quoted(names)}: {note}" for note, names in notes.items()]
    return [*lines, *([settings["chosen_note"]] if settings.get("chosen_note") else [])]


def brief(run: Mapping[str, Any]) -> str:
    """Returns where and by what a run's settings were chosen in short, such as "mnist_val, 31 trials, commit 1a2b".

    `run` is one of `runs` of `Config.summary()`. Empty where nothing is stated.
    """
    by = run.get("chosen_by") or {}
    return ", ".join([*run.get("chosen_on", ()), *([_trials(by), f"commit {by['commit']}"] if by else [])])


def _trials(by: Mapping[str, Any]) -> str:
    return f"{by['trials']} trial{'' if by['trials'] == 1 else 's'}"


def _quoted(names: list[str]) -> str:
    return _listed([f"`{name}`" for name in names])


def _listed(items: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]]))


def was_chosen(where: tuple[str, ...]) -> str:
    """Returns how settings were chosen, in words that follow "were"."""
    tested = [place.removesuffix(TEST_SPLIT) for place in where if place.endswith(TEST_SPLIT)]
    trained = [place for place in where if place != PUBLISHED and not place.endswith(TEST_SPLIT)]
    parts = ["taken from their authors"] if PUBLISHED in where else []
    if trained:
        parts.append(f"chosen on held-out images ({_quoted(trained)})")
    if tested:
        parts.append(f"chosen by scores on the test split of {_quoted(tested)}, which flatters these rows")
    return " and ".join(parts)
