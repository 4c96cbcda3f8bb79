"""The grid of a preset: YAML in, a checked and typed Config with every job out. Imports no method and no torch."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import jsonschema
import yaml

from workflow.common.contracts import format_epsilon, parse_epsilon, run_folder
from workflow.common.errors import UserError

FOLDER = Path(__file__).resolve().parents[1] / "config"
RUN_KEYS = ("method", "accounting", "over_budget", "datasets", "epsilons", "seeds", "per_dataset")
REAL = "real"  # the run name of the reference rows measured on real data
LISTS = ("datasets", "runs", "epsilons", "seeds", "data_sources")


class Catalogue(Protocol):
    """What the configuration asks about methods; `rules/common.smk` answers from methods.core.registry."""

    def names(self) -> Iterable[str]:
        """Returns the names of all methods."""

    def fields(self, method: str) -> Iterable[str]:
        """Returns the names of a method's hyper-parameters."""

    def check(self, method: str, overrides: Mapping[str, Any]) -> None:
        """Raises UserError where a hyper-parameter's value has the wrong type or range."""


@dataclass(frozen=True)
class Run:
    """A row of the comparison: a method, the accounting that calibrates it, and where it takes part.

    Attributes:
        over_budget: whether it is trained although its plan costs more than epsilon.
        datasets: names in the order of the preset.
        hyper: data set -> overrides of the method's hyper-parameters, without the published settings.
    """

    name: str
    method: str
    accounting: str
    over_budget: bool
    datasets: tuple[str, ...]
    epsilons: tuple[float, ...]
    seeds: tuple[int, ...]
    hyper: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Job:
    """One training: a run on a data set with a budget and a seed. `paper` starts from the published settings."""

    dataset: str
    run: str
    method: str
    epsilon: float
    seed: int
    accounting: str
    over_budget: bool
    hyper: Mapping[str, Any]
    paper: bool

    def folder(self, root: str | Path) -> str:
        """Returns the run's folder under `root` = `results/<preset>`."""
        return str(run_folder(root, self.dataset, self.run, self.epsilon, self.seed))


@dataclass(frozen=True)
class Config:
    """A preset after merging and checking; `jobs` is its whole grid.

    Attributes:
        datasets: names that take part, in order.
        optional: those of them that are left out where their files are missing.
        delta, seeds, paper_settings, threads, audit_seconds, protocol, cost: as described in schema.yaml.
    """

    preset: str
    datasets: tuple[str, ...]
    optional: frozenset[str]
    data_sources: tuple[str, ...]
    delta: float
    seeds: tuple[int, ...]
    paper_settings: bool
    threads: int
    audit_seconds: float
    runs: Mapping[str, Run]
    protocol: Mapping[str, Any]
    cost: Mapping[str, Any] = field(default_factory=dict)

    @property
    def root(self) -> str:
        """The folder of all results of this preset."""
        return f"results/{self.preset}"

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Every training of the grid, by data set, run, epsilon and seed."""
        return tuple(
            self._job(run, dataset, epsilon, seed)
            for dataset in self.datasets
            for run in self.runs.values()
            if dataset in run.datasets
            for epsilon in run.epsilons
            for seed in run.seeds
        )

    def _job(self, run: Run, dataset: str, epsilon: float, seed: int) -> Job:
        return Job(
            dataset, run.name, run.method, epsilon, seed, run.accounting, run.over_budget, run.hyper[dataset],
            self.paper_settings,
        )  # fmt: skip

    def job(self, dataset: str, run: str, epsilon: str, seed: str) -> Job:
        """Returns the job of a path's four names, also one outside the grid such as another seed or epsilon.

        Raises UserError for an unknown data set or run, an epsilon that is not written in its shortest form, or an
        epsilon that does not go with the run's accounting.
        """
        found = self.runs.get(run) or _unknown("run", run, self.runs)
        if dataset not in found.hyper:
            _unknown("data set", dataset, found.hyper)
        value = parse_epsilon(epsilon)
        if format_epsilon(value) != epsilon:
            raise UserError(f"epsilon {epsilon!r} in a path must be written eps{format_epsilon(value)}")
        _check_accounting(run, found.accounting, (value,))
        if not seed.isdecimal():
            raise UserError(f"seed in a path must be an integer from 0, such as seed0; got {seed!r}")
        return self._job(found, dataset, value, int(seed))

    def summary(self) -> dict[str, Any]:
        """Returns what determines the scores, ready for JSON: the grid, each run's settings and the protocol."""
        return {
            "preset": self.preset,
            "datasets": list(self.datasets),
            "delta": self.delta,
            "paper_settings": self.paper_settings,
            "runs": {
                run.name: {
                    "method": run.method,
                    "accounting": run.accounting,
                    "over_budget": run.over_budget,
                    "epsilons": [format_epsilon(epsilon) for epsilon in run.epsilons],
                    "seeds": list(run.seeds),
                    "hyper": {dataset: run.hyper[dataset] for dataset in self.datasets if dataset in run.datasets},
                }
                for run in self.runs.values()
            },
            "protocol": self.protocol,
        }

    def without(self, missing: Iterable[str]) -> Config:
        """Returns the configuration with some data sets left out. Raises UserError if none is left."""
        gone = set(missing)
        kept = tuple(name for name in self.datasets if name not in gone)
        if not kept:
            raise UserError(f"no data set of preset {self.preset!r} has its files: {', '.join(sorted(gone))}")
        return replace(self, datasets=kept)


def presets(folder: Path = FOLDER) -> list[str]:
    """Returns the names of the presets: the YAML files that hold a grid."""
    return sorted(path.stem for path in folder.glob("*.yaml") if path.stem not in ("schema", "report"))


def _unknown(kind: str, value: object, valid: Iterable[object], where: str = "") -> Any:
    names = sorted(str(v) for v in valid)
    close = difflib.get_close_matches(str(value), names, n=1, cutoff=0.6)
    guess = f"; did you mean {close[0]!r}?" if close else ";"
    raise UserError(f"unknown {kind} {str(value)!r}{where}{guess} valid: {', '.join(names)}")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a mapping of keys, got {type(content).__name__}")
    return content


def _retype(value: Any) -> Any:
    """Returns a command-line value with numbers as numbers: `--config` hands over text inside lists and mappings."""
    if isinstance(value, Mapping):
        return {key: _retype(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_retype(item) for item in value]
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    loaded = yaml.safe_load(value) if value.lower() in ("true", "false", "null", ".inf") else value
    return loaded


def _listed(value: Any) -> list[Any] | None:
    """Returns the items of a list, of comma-separated text or of one scalar; None for a mapping."""
    if isinstance(value, Mapping):
        return None
    items = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    return [_retype(item.strip() if isinstance(item, str) else item) for item in items]


def _merge(base: Any, extra: Any) -> Any:
    if isinstance(base, Mapping) and isinstance(extra, Mapping):
        return {**base, **{key: _merge(base.get(key), value) for key, value in extra.items()}}
    return extra


def _override(preset: dict[str, Any], overrides: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    merged = dict(preset)
    for key, value in overrides.items():
        items = _listed(value) if key in LISTS else None
        if items is None:
            merged[key] = _merge(preset.get(key), _retype(value))
        elif key == "datasets":
            for name in items:
                if name not in known:
                    _unknown("data set", name, known)
            merged[key] = {name: {"optional": False} for name in items}
        elif key == "runs":
            runs = preset["runs"]
            merged[key] = {name: runs[name] if name in runs else _unknown("run", name, runs) for name in items}
        else:
            merged[key] = items
    return merged


def _key_path(parts: Iterable[Any]) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _validate(content: Mapping[str, Any], source: str) -> None:
    schema = yaml.safe_load((FOLDER / "schema.yaml").read_text(encoding="utf-8"))
    errors = jsonschema.Draft202012Validator(schema).iter_errors(content)
    error = min(errors, key=lambda e: (len(e.absolute_path), str(e.absolute_path)), default=None)
    if error is None:
        return
    where = _key_path(error.absolute_path)
    if error.validator == "additionalProperties":
        valid = error.schema["properties"]
        wrong = next(key for key in error.instance if key not in valid)
        _unknown("key", wrong, valid, f" in {source}" + (f" under {where}" if where else ""))
    about = error.schema.get("description", "")
    raise UserError(f"{source}: {where or 'top level'}: {error.message}" + (f" ({about})" if about else ""))


def _check_epsilons(content: Mapping[str, Any]) -> None:
    runs = content.get("runs")
    owners = [content, *(runs.values() if isinstance(runs, Mapping) else ())]
    for owner in owners:
        values = owner.get("epsilons") if isinstance(owner, Mapping) else None
        for value in values if isinstance(values, list) else ():
            parse_epsilon(value)


def _check_accounting(name: str, accounting: str, epsilons: Iterable[float]) -> None:
    for epsilon in epsilons:
        if math.isinf(epsilon) != (accounting == "none"):
            raise UserError(
                f"run {name!r}: accounting {accounting!r} does not go with epsilon {format_epsilon(epsilon)}; "
                "accounting none means epsilon .inf, and epsilon .inf means accounting none"
            )


def _check_hyper(where: str, method: str, overrides: Mapping[str, Any], extra: Iterable[str], methods: Catalogue):
    valid = set(methods.fields(method))
    for key in overrides:
        if key not in valid:
            _unknown("key", key, [*valid, *extra], f" under {where}: not a hyper-parameter of {method}")
    methods.check(method, overrides)


def _layers(
    where: str,
    entry: Mapping[str, Any] | None,
    skip: tuple[str, ...],
    method: str,
    methods: Catalogue,
    known: Iterable[str],
):
    """Returns the overrides of an entry and those it holds per data set, both checked against the method."""
    entry = entry or {}
    shared = {key: value for key, value in entry.items() if key not in skip}
    _check_hyper(where, method, shared, skip, methods)
    per_dataset = entry.get("per_dataset") or {}
    for dataset, overrides in per_dataset.items():
        if dataset not in known:
            _unknown("data set", dataset, known, f" in {where}.per_dataset")
        _check_hyper(f"{where}.per_dataset.{dataset}", method, overrides, (), methods)
    return shared, per_dataset


def _run(name: str, content: Mapping[str, Any], known: Iterable[str], methods: Catalogue) -> Run:
    entry = content["runs"][name] or {}
    if name == REAL:
        raise UserError(f"run name {REAL!r} is reserved for the rows measured on real data; choose another")
    method = entry.get("method", name)
    if method not in methods.names():
        _unknown("method", method, methods.names(), f" of run {name!r}")
    limited = entry.get("datasets", list(content["datasets"]))
    for dataset in limited:
        if dataset not in known:
            _unknown("data set", dataset, known, f" of run {name!r}")
    accounting = entry.get("accounting", "published")
    epsilons = tuple(float(e) for e in entry.get("epsilons", content["epsilons"]))
    _check_accounting(name, accounting, epsilons)
    over_budget = entry.get("over_budget", False)
    if over_budget and accounting == "none":
        raise UserError(f"run {name!r}: over_budget does not go with accounting none, which has no budget; drop it")
    base, base_per = _layers(f"methods.{method}", (content.get("methods") or {}).get(method), ("per_dataset",), method,
                             methods, known)  # fmt: skip
    own, own_per = _layers(f"runs.{name}", entry, RUN_KEYS, method, methods, known)
    hyper = {d: {**base, **base_per.get(d, {}), **own, **own_per.get(d, {})} for d in known}
    datasets = tuple(d for d in content["datasets"] if d in limited)
    seeds = tuple(entry.get("seeds", content["seeds"]))
    return Run(name, method, accounting, over_budget, datasets, epsilons, seeds, hyper)


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
    all of these and are merged when the run is planned.

    Args:
        overrides: what `--config` and `--configfile` gave. Lists (datasets, runs, epsilons, seeds) may be
            comma-separated text, where names of runs choose among the preset's; mappings are merged into the preset.
            A data set asked for by name is never optional.
        datasets: names of the data sets that can be prepared.
        methods: the methods found.
        protocol_keys: names of the evaluation settings.

    Raises:
        UserError: an unknown preset, key, data set, run, method or hyper-parameter (listing the valid ones), or a
            value outside its range.
    """
    known = list(datasets)
    name = str(overrides.get("preset", "quick"))
    if name not in presets(folder):
        _unknown("preset", name, presets(folder))
    path = folder / f"{name}.yaml"
    content = _override(_read(path), overrides, known)
    _check_epsilons(content)
    _validate(content, path.name)
    for dataset in content["datasets"]:
        if dataset not in known:
            _unknown("data set", dataset, known, f" in {path.name}")
    for key in content["protocol"]:
        if key not in protocol_keys:
            _unknown("key", key, protocol_keys, f" in {path.name} under protocol")
    for method in content.get("methods") or {}:
        if method not in methods.names():
            _unknown("method", method, methods.names(), f" in {path.name} under methods")
    runs = {run: _run(run, content, known, methods) for run in content["runs"]}
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
        runs=runs,
        protocol=content["protocol"],
        cost=content.get("cost") or {},
    )
    if not config.jobs:
        raise UserError(f"nothing to run: {', '.join(runs)} are limited to other data sets than "
                        f"{', '.join(config.datasets)}")  # fmt: skip
    return config


def canonical(value: Any) -> str:
    """Returns key-sorted JSON on one line; the text of a setting in commands and hashes.

    Raises UserError for a setting that is infinite or not a number.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise UserError(f"settings must be finite numbers, got {value}") from None
