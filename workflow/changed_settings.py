"""What of a run's settings was not chosen where the preset says: the user, or a preset that extends it, changed it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from workflow.common.chosen_on import HELD_OUT, was_chosen
from workflow.grid import Run
from workflow.merging import Merged
from workflow.origins import setting_places
from workflow.overrides import holder, retype

_PUBLISHED = "paper_settings"


def without_false_choice(
    run: Run, merged: Merged, given: int, publishes: Callable[[str, str, float], bool]
) -> Run:
    """Returns a run that says what of its settings was changed, if something was, and not that it was all chosen.

    A layer that states `chosen_on` speaks for its own settings and those of the layers below it, as a shipped preset
    does for those of the preset that it extends. But `chosen_by` is of its own layer and those below alone: no trial
    chose what an extending preset has instead. Where others were chosen on a test split, or by authors, that is still
    said. A value that was there before is no change.

    Args:
        given: how many of the merged layers are the user's.
        publishes: whether a method has published settings for a data set and budget.
    """
    if not run.chosen_on:
        return run
    layers = _Layers(run, merged, given)
    since = min(layers.stated, layers.level("chosen_by")) if run.chosen_by else layers.stated
    later = dict(_later(run, layers, since, publishes))
    if not later:
        return run
    by_user = any(layers.of(path) > layers.stated for path in later.values())
    sources = {name: layers.source(path) for name, path in later.items()}
    each = [(", ".join(name for name in sources if sources[name] == one), one) for one in sorted(set(sources.values()))]
    said = [" and ".join(f"{names} by {one}" for names, one in each)]
    if not all(place.endswith(HELD_OUT) for place in run.chosen_on):
        said.append(f"the others were {was_chosen(run.chosen_on)}")
    if run.chosen_by and (run.chosen_note or not by_user):
        # The note tells what no trial chose.
        said.append("the others were chosen by equal tuning")
    if run.chosen_note and (run.chosen_by or layers.level("chosen_note") > layers.stated):
        said.append(run.chosen_note.removesuffix("."))
    places = () if by_user else run.chosen_on
    return replace(run, chosen_on=places, chosen_by={}, chosen_note=f"settings were changed: {'; '.join(said)}.")


class _Layers:
    """The layers of a configuration, and up to which of them a run's settings are those that were chosen."""

    def __init__(self, run: Run, merged: Merged, given: int) -> None:
        self.all, self._run, self._entry = merged.layers, run, merged.content["runs"][run.name] or {}
        self._method = (merged.content.get("methods") or {}).get(run.method) or {}
        self.published = merged.content.get(_PUBLISHED, False)
        # Above the user's lies what `reproducible` asks for.
        self.stated = max(len(self.all) - given - 2, self.level("chosen_on"))

    @property
    def is_row_s_choice(self) -> bool:
        """Whether the row itself, and not its method, says where its settings were chosen."""
        return "chosen_on" in self._entry

    def level(self, key: str) -> int:
        """Returns the number of the strongest layer that says `key` of the run or its method; -1 where none does."""
        where = ("runs", self._run.name) if key in self._entry else ("methods", self._run.method)
        return self.of((*where, key))

    def of(self, path: tuple[str, ...]) -> int:
        """Returns the number of the strongest layer that holds a path; what is pinned is whose wish it was."""
        found = holder(path, self.all)
        return holder(("reproducible",), self.all) if found == len(self.all) - 1 else found

    def source(self, path: tuple[str, ...]) -> str:
        """Returns what the layer is called that holds a path."""
        return self.all[holder(path, self.all)].source

    def before(self, paths: list[tuple[str, ...]], since: int) -> Iterator[Any]:
        """Yields what paths hold in the layers up to the number `since`, the strongest first."""
        below = self.all[: since + 1]
        for path in reversed(paths):
            if (number := holder(path, below)) >= 0:
                value: Any = below[number].values
                for key in path:
                    value = value[key]
                yield retype(value)


def _later(
    run: Run, layers: _Layers, since: int, publishes: Callable[[str, str, float], bool]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yields each setting whose value is another than in the layers up to the number `since`, with where it stands."""
    for dataset in run.datasets:
        for name, value in run.hyper[dataset].items():
            paths = setting_places(run.name, run.method, dataset, name)
            strongest = [path for path in paths if layers.of(path) >= 0][-1]
            if layers.of(strongest) > since and next(layers.before(paths, since), None) != value:
                yield name, strongest
    place = ("runs", run.name, "method")
    # A method's own choice goes with the method.
    exchanged = layers.is_row_s_choice and layers.of(place) > since
    if exchanged and next(layers.before([place], since), run.name) != run.method:
        yield "method", place
    asked = (_PUBLISHED,)
    switched = layers.of(asked) > since and next(layers.before([asked], since), False) != layers.published
    if switched and any(publishes(run.method, name, epsilon) for name in run.datasets for epsilon in run.epsilons):
        yield _PUBLISHED, asked
