"""Presets: YAML in, merged with config files and `--config`, checked against what exists; a typed grid out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from workflow.changed_settings import without_false_choice
from workflow.common import chosen_on
from workflow.common.errors import UserError, unknown
from workflow.external_runs import external_run
from workflow.grid import Config, Run, check_accounting
from workflow.merging import COMMAND_LINE, FOLDER, names, read
from workflow.overrides import Layer

__all__ = ["FOLDER", "Layer", "load", "names"]
RUN_KEYS = ("method", "accounting", "over_budget", "datasets", "epsilons", "seeds", "chosen_on", "chosen_by",
            "chosen_note", "per_dataset")  # fmt: skip
PER_DATASET = "per_dataset"
METHOD_KEYS = ("chosen_on", "chosen_by", "chosen_note", "per_dataset")
DEFAULT_ACCOUNTING = "sound"
DEFAULTS = {"paper_settings": False, "threads": 1, "reproducible": False, "audit_seconds": 8.0, "figure_rows": "all"}


class Catalogue(Protocol):
    """What the configuration asks about methods: methods.core.registry answers."""

    def names(self) -> Iterable[str]:
        """Returns the names of all methods."""

    def fields(self, method: str) -> Iterable[str]:
        """Returns the names of a method's hyper-parameters."""

    def hyper(self, method: str, overrides: Mapping[str, Any]) -> Any:
        """Returns all hyper-parameters. Raises UserError where one's value has the wrong type or range."""

    def has_paper_settings(self, method: str, dataset: str, epsilon: float) -> bool:
        """Returns whether the method has a published setting for a data set and budget."""


def load(
    overrides: Mapping[str, Any],
    *,
    datasets: Iterable[str],
    methods: Catalogue,
    protocol_keys: Iterable[str] | None,
    folder: Path = FOLDER,
    files: Sequence[Layer] = (),
    tuned: bool = True,
) -> Config:
    """Returns the configuration of the preset that `overrides` or `files` name (default quick), merged with them.

    With `extends` it is a configuration of the user's own over that preset, called `preset` or after the config file.
    Hyper-parameters merge from weak to strong: the preset's `methods.<method>`, its `per_dataset.<data set>`, the
    run's own keys, the run's `per_dataset.<data set>`. Published settings, where the preset asks for them, lie below
    all of these and are merged when the run is planned. Evaluation settings merge likewise: `protocol`, then its
    `per_dataset.<data set>`.

    Args:
        overrides: what `--config` gave. Lists (datasets, runs, epsilons, seeds) may be comma-separated text, where
            names choose among those of the layers below; mappings are merged. Data sets replace the preset's.
        datasets: names of the shipped data sets; others need an entry that holds `folder`.
        methods: the methods that exist.
        protocol_keys: names of the evaluation settings; None where they play no part and are not checked.
        files: what each `--configfile` gave, from weak to strong, below `overrides`; `source` is its name.
        tuned: whether rows have the settings that equal tuning chose for the preset; else those before it.

    Raises:
        UserError: an unknown preset, key, data set, run, method or hyper-parameter (listing the valid ones), or a
            value outside its range.
    """
    shipped = list(datasets)
    given = [*files, Layer(COMMAND_LINE, overrides)]
    merged = read(given, shipped, folder, tuned)
    content, own = merged.content, merged.own
    reader = _Reader(content, [*shipped, *own], methods, merged.where)
    reader.check_names(protocol_keys)
    config = Config(
        preset=merged.name,
        extends=merged.extends,
        own=own,
        datasets=tuple(content["datasets"]),
        optional=frozenset(d for d, entry in content["datasets"].items() if entry.get("optional")),
        data_sources=tuple(content.get("data_sources", ())),
        delta=float(content["delta"]),
        seeds=tuple(content["seeds"]),
        paper_settings=content.get("paper_settings", DEFAULTS["paper_settings"]),
        threads=content.get("threads", DEFAULTS["threads"]),
        reproducible=content.get("reproducible", DEFAULTS["reproducible"]),
        audit_seconds=content.get("audit_seconds", DEFAULTS["audit_seconds"]),
        figure_rows=content.get("figure_rows", DEFAULTS["figure_rows"]),
        runs={
            name: without_false_choice(reader.run(name), merged, len(given), methods.has_paper_settings)
            for name in content["runs"]
        },
        protocol={key: value for key, value in content["protocol"].items() if key != PER_DATASET},
        protocol_per_dataset=content["protocol"].get(PER_DATASET) or {},
        publishes=methods.has_paper_settings,
        cost=content.get("cost") or {},
        chosen_note=content.get("chosen_note", ""),
        tuning=content.get("tuning") or {},
    )
    if not config.jobs:
        raise UserError(f"nothing to run: {', '.join(config.runs)} are limited to other data sets than "
                        f"{', '.join(config.datasets)}")  # fmt: skip
    return config


class _Reader:
    """Reads a preset's content into runs, checking every name it meets against `methods` and the known data sets."""

    def __init__(
        self, content: Mapping[str, Any], known: list[str], methods: Catalogue, source: Callable[..., str]
    ) -> None:
        self.content, self.known, self.methods, self.source = content, known, methods, source

    def check_names(self, protocol_keys: Iterable[str] | None) -> None:
        """Raises UserError for a data set, protocol key or method of the preset that does not exist."""
        for dataset in self.content["datasets"]:
            self._known_dataset(dataset, f"in {self.source('datasets', dataset)}")
        if protocol_keys is not None:
            self._check_protocols(list(protocol_keys))
        for method in self.content.get("methods") or {}:
            self._known_method(method, f"in {self.source('methods', method)} under methods")

    def _check_protocols(self, keys: list[str]) -> None:
        self._check_protocol(self.content["protocol"], [*keys, PER_DATASET], "protocol")
        for dataset, settings in (self.content["protocol"].get(PER_DATASET) or {}).items():
            source = self.source("protocol", PER_DATASET, dataset)
            self._known_dataset(dataset, f"in {source} under protocol.{PER_DATASET}")
            self._check_protocol(settings, keys, f"protocol.{PER_DATASET}.{dataset}")

    def _check_protocol(self, settings: Mapping[str, Any], valid: list[str], where: str) -> None:
        for key in settings:
            if key not in valid:
                raise unknown("key", key, valid, where=f"in {self.source(*where.split('.'), key)} under {where}")

    def run(self, name: str) -> Run:
        """Returns a run of the preset. Raises UserError where a name or value of it cannot be."""
        entry = self.content["runs"][name] or {}
        if {"external", "claimed_epsilon"} & set(entry):
            return external_run(name, entry, self.content, self.source("runs", name))
        said = "" if "method" in entry else "the run says none, so its name is taken: add method: METHOD"
        method = self._known_method(entry.get("method", name), f"of run {name!r} in {self.source('runs', name)}", said)
        base = (self.content.get("methods") or {}).get(method) or {}
        limited = [self._known_dataset(d, f"of run {name!r}") for d in entry.get("datasets", self.content["datasets"])]
        places, by, note = self._choice(method, base, name, entry)
        run = Run(
            name=name,
            method=method,
            accounting=entry.get("accounting", DEFAULT_ACCOUNTING),
            over_budget=entry.get("over_budget", False),
            datasets=tuple(d for d in self.content["datasets"] if d in limited),
            epsilons=tuple(float(e) for e in entry.get("epsilons", self.content["epsilons"])),
            seeds=tuple(entry.get("seeds", self.content["seeds"])),
            hyper=self._hyper(method, base, name, entry),
            own_settings=name == method or "chosen_on" in entry,
            chosen_on=places,
            chosen_by=by,
            chosen_note=note,
        )
        check_accounting(run.name, run.accounting, run.epsilons)
        if run.over_budget and run.accounting == "none":
            raise UserError(f"run {name!r}: over_budget does not go with accounting none, which has no budget; drop it")
        return run

    def _known_dataset(self, name: str, where: str) -> str:
        if name not in self.known:
            raise unknown("data set", name, self.known, where=where)
        return name

    def _known_method(self, name: str, where: str, hint: str = "") -> str:
        if name not in self.methods.names():
            raise unknown("method", name, self.methods.names(), hint, where=where)
        return name

    def _choice(
        self, method: str, base: Mapping[str, Any], run: str, entry: Mapping[str, Any]
    ) -> tuple[tuple[str, ...], Mapping[str, Any], str]:
        """Returns where a run's settings were chosen, by which trials, and the note: its own, or its method's."""
        # A method's note is on the settings that were chosen where the method says, not on those of such a run.
        where, stated = (f"runs.{run}", entry) if "chosen_on" in entry else (f"methods.{method}", base)
        valid, places = chosen_on.places(self.known), stated.get("chosen_on", [])
        for place in places:
            if place not in valid:
                raise unknown("place", place, valid, where=f"in {where}.chosen_on")
        trials = stated.get("chosen_by") or {}
        if trials and not (places and all(place.endswith(chosen_on.HELD_OUT) for place in places)):
            raise UserError(
                f"{self.source(*where.split('.'), 'chosen_by')}: {where} was tuned, so its chosen_on must name held-out"
                f" images alone, such as [mnist_val]; got [{', '.join(places)}]"
            )
        return tuple(places), trials, entry.get("chosen_note", stated.get("chosen_note", ""))

    def _hyper(self, method: str, base: Mapping[str, Any], run: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Returns data set -> overrides, merged from weak to strong as `load` describes."""
        shared, per_dataset = self._layers(f"methods.{method}", method, base, METHOD_KEYS)
        by_run, by_run_per_dataset = self._layers(f"runs.{run}", method, entry, RUN_KEYS)
        return {
            dataset: {**shared, **per_dataset.get(dataset, {}), **by_run, **by_run_per_dataset.get(dataset, {})}
            for dataset in self.known
        }

    def _layers(self, where: str, method: str, entry: Mapping[str, Any], other: tuple[str, ...]) -> tuple[dict, dict]:
        """Returns the overrides of an entry and those it holds per data set, both checked against the method."""
        shared = {key: value for key, value in entry.items() if key not in other}
        self._check_hyper(where, method, shared, other)
        per_dataset = entry.get("per_dataset") or {}
        for dataset, overrides in per_dataset.items():
            self._known_dataset(dataset, f"in {where}.per_dataset")
            self._check_hyper(f"{where}.per_dataset.{dataset}", method, overrides, ())
        return shared, per_dataset

    def _check_hyper(self, where: str, method: str, overrides: Mapping[str, Any], other: tuple[str, ...]) -> None:
        valid = set(self.methods.fields(method))
        for key in overrides:
            if key not in valid:
                source = self.source(*where.split("."), key)
                place = f"in {source} under {where}: not a hyper-parameter of {method}"
                raise unknown("key", key, [*valid, *other], where=place)
        try:
            self.methods.hyper(method, overrides)
        except UserError as error:
            keys = [key for key, value in overrides.items() if self._refuses(method, {key: value})]
            raise UserError(f"{self.source(*where.split('.'), *keys[:1])}: {where}: {error}") from None

    def _refuses(self, method: str, overrides: Mapping[str, Any]) -> bool:
        try:
            self.methods.hyper(method, overrides)
        except UserError:
            return True
        return False
