"""Presets: YAML in, merged with `--config`, checked against schema.yaml and what exists; a typed grid out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jsonschema
import yaml

from workflow.common import chosen_on
from workflow.common.contracts import REAL, parse_epsilon
from workflow.common.errors import UserError, unknown
from workflow.grid import Config, Run, check_accounting
from workflow.overrides import override

FOLDER = Path(__file__).resolve().parent / "config"
RUN_KEYS = ("method", "accounting", "over_budget", "datasets", "epsilons", "seeds", "chosen_on", "chosen_note",
            "per_dataset")  # fmt: skip
PER_DATASET = "per_dataset"
METHOD_KEYS = ("chosen_on", "chosen_note", "per_dataset")
DEFAULT_ACCOUNTING = "sound"


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


def names(folder: Path = FOLDER) -> list[str]:
    """Returns the names of the presets: the YAML files that hold a grid."""
    return sorted(path.stem for path in folder.glob("*.yaml") if path.stem not in ("schema", "report"))


def load(
    overrides: Mapping[str, Any],
    *,
    datasets: Iterable[str],
    methods: Catalogue,
    protocol_keys: Iterable[str],
    folder: Path = FOLDER,
) -> Config:
    """Returns the configuration of the preset that `overrides` name (default quick), merged with them.

    Hyper-parameters merge from weak to strong: the preset's `methods.<method>`, its `per_dataset.<data set>`, the
    run's own keys, the run's `per_dataset.<data set>`. Published settings, where the preset asks for them, lie below
    all of these and are merged when the run is planned. Evaluation settings merge likewise: `protocol`, then its
    `per_dataset.<data set>`.

    Args:
        overrides: what `--config` and `--configfile` gave. Lists (datasets, runs, epsilons, seeds) may be
            comma-separated text, where names of runs choose among the preset's; mappings are merged into the preset.
            A data set asked for by name is never optional.
        datasets: names of the data sets that can be prepared.
        methods: the methods that exist.
        protocol_keys: names of the evaluation settings.

    Raises:
        UserError: an unknown preset, key, data set, run, method or hyper-parameter (listing the valid ones), or a
            value outside its range.
    """
    known = list(datasets)
    name, content = _read(overrides, known, folder)
    reader = _Reader(content, known, methods, f"{name}.yaml")
    reader.check_names(protocol_keys)
    config = Config(
        preset=name,
        datasets=tuple(content["datasets"]),
        optional=frozenset(d for d, entry in content["datasets"].items() if (entry or {}).get("optional")),
        data_sources=tuple(content.get("data_sources", ())),
        delta=float(content["delta"]),
        seeds=tuple(content["seeds"]),
        paper_settings=content.get("paper_settings", False),
        threads=content.get("threads", 1),
        audit_seconds=content.get("audit_seconds", 8.0),
        runs={run: reader.run(run) for run in content["runs"]},
        protocol={key: value for key, value in content["protocol"].items() if key != PER_DATASET},
        protocol_per_dataset=content["protocol"].get(PER_DATASET) or {},
        publishes=methods.has_paper_settings,
        cost=content.get("cost") or {},
        chosen_note=content.get("chosen_note", ""),
    )
    if not config.jobs:
        raise UserError(f"nothing to run: {', '.join(config.runs)} are limited to other data sets than "
                        f"{', '.join(config.datasets)}")  # fmt: skip
    return config


def _read(overrides: Mapping[str, Any], datasets: Iterable[str], folder: Path = FOLDER) -> tuple[str, dict[str, Any]]:
    """Returns the name of the preset that `overrides` name (default quick) and its content, merged with them.

    `datasets` are the names of the data sets that can be prepared. Raises UserError for an unknown preset, key, data
    set or run, and for a value that the schema or `parse_epsilon` refuses.
    """
    name = str(overrides.get("preset", "quick"))
    if name not in names(folder):
        raise unknown("preset", name, names(folder))
    path = folder / f"{name}.yaml"
    content = override(_mapping(path), overrides, datasets)
    _check_epsilons(content)
    _check_schema(content, path.name)
    return name, content


def _mapping(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a mapping of keys, got {type(content).__name__}")
    return content


def _check_epsilons(content: Mapping[str, Any]) -> None:
    runs = content.get("runs")
    owners = [content, *(runs.values() if isinstance(runs, Mapping) else ())]
    for owner in owners:
        values = owner.get("epsilons") if isinstance(owner, Mapping) else None
        for value in values if isinstance(values, list) else ():
            parse_epsilon(value)


def _key_path(parts: Iterable[Any]) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _check_schema(content: Mapping[str, Any], source: str) -> None:
    schema = yaml.safe_load((FOLDER / "schema.yaml").read_text(encoding="utf-8"))
    errors = jsonschema.Draft202012Validator(schema).iter_errors(content)
    error = min(errors, key=lambda e: (len(e.absolute_path), str(e.absolute_path)), default=None)
    if error is None:
        return
    where = _key_path(error.absolute_path)
    if error.validator == "additionalProperties":
        valid = error.schema["properties"]
        wrong = next(key for key in error.instance if key not in valid)
        raise unknown("key", wrong, valid, where=f"in {source}" + (f" under {where}" if where else ""))
    about = error.schema.get("description", "")
    raise UserError(f"{source}: {where or 'top level'}: {error.message}" + (f" ({about})" if about else ""))


class _Reader:
    """Reads a preset's content into runs, checking every name it meets against `methods` and the known data sets."""

    def __init__(self, content: Mapping[str, Any], known: list[str], methods: Catalogue, source: str) -> None:
        self.content, self.known, self.methods, self.source = content, known, methods, source

    def check_names(self, protocol_keys: Iterable[str]) -> None:
        """Raises UserError for a data set, protocol key or method of the preset that does not exist."""
        for dataset in self.content["datasets"]:
            self._known_dataset(dataset, f"in {self.source}")
        self._check_protocol(self.content["protocol"], [*protocol_keys, PER_DATASET], "protocol")
        for dataset, settings in (self.content["protocol"].get(PER_DATASET) or {}).items():
            self._known_dataset(dataset, f"in {self.source} under protocol.{PER_DATASET}")
            self._check_protocol(settings, list(protocol_keys), f"protocol.{PER_DATASET}.{dataset}")
        for method in self.content.get("methods") or {}:
            self._known_method(method, f"in {self.source} under methods")

    def _check_protocol(self, settings: Mapping[str, Any], valid: list[str], where: str) -> None:
        for key in settings:
            if key not in valid:
                raise unknown("key", key, valid, where=f"in {self.source} under {where}")

    def run(self, name: str) -> Run:
        """Returns a run of the preset. Raises UserError where a name or value of it cannot be."""
        if name == REAL:
            raise UserError(f"run name {REAL!r} is reserved for the rows measured on real data; choose another")
        entry = self.content["runs"][name] or {}
        method = self._known_method(entry.get("method", name), f"of run {name!r}")
        base = (self.content.get("methods") or {}).get(method) or {}
        limited = [self._known_dataset(d, f"of run {name!r}") for d in entry.get("datasets", self.content["datasets"])]
        places, note = self._choice(method, base, name, entry)
        run = Run(
            name=name,
            method=method,
            accounting=entry.get("accounting", DEFAULT_ACCOUNTING),
            over_budget=entry.get("over_budget", False),
            datasets=tuple(d for d in self.content["datasets"] if d in limited),
            epsilons=tuple(float(e) for e in entry.get("epsilons", self.content["epsilons"])),
            seeds=tuple(entry.get("seeds", self.content["seeds"])),
            hyper=self._hyper(method, base, name, entry),
            chosen_on=places,
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

    def _known_method(self, name: str, where: str) -> str:
        if name not in self.methods.names():
            raise unknown("method", name, self.methods.names(), where=where)
        return name

    def _choice(
        self, method: str, base: Mapping[str, Any], run: str, entry: Mapping[str, Any]
    ) -> tuple[tuple[str, ...], str]:
        """Returns where a run's settings were chosen and the note on it: its own, or else those of its method."""
        # A method's note is on the settings that were chosen where the method says, not on those of such a run.
        where, stated = (f"runs.{run}", entry) if "chosen_on" in entry else (f"methods.{method}", base)
        valid, places = chosen_on.places(self.known), stated.get("chosen_on", [])
        for place in places:
            if place not in valid:
                raise unknown("place", place, valid, where=f"in {where}.chosen_on")
        return tuple(places), entry.get("chosen_note", stated.get("chosen_note", ""))

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
                place = f"under {where}: not a hyper-parameter of {method}"
                raise unknown("key", key, [*valid, *other], where=place)
        self.methods.hyper(method, overrides)
