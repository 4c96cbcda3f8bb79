"""Finds methods by file name and builds their hyper-parameters."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow.common import settings
from workflow.common.contracts import format_epsilon
from workflow.common.errors import UserError, unknown

if TYPE_CHECKING:
    from methods.core.method import Method

ADD = (
    "add one as methods/<name>.py, by `dpbench new NAME`; rows of a preset, such as dpac_sound, stand in"
    " workflow/config/<preset>.yaml with the method and the settings of each"
)
FOLDER = Path(__file__).resolve().parents[1]


def names() -> list[str]:
    """Returns the names of all methods: the files of `methods/` without underscore."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))


def load(name: str) -> type[Method]:
    """Returns the class of a method.

    Raises UserError listing the methods if there is no such file, or naming the error if the file cannot be imported.
    """
    if name not in names():
        raise unknown("method", name, names(), ADD)
    # Here, for the names alone need no torch, which takes seconds.
    from methods.core.method import Method

    try:
        module = importlib.import_module(f"methods.{name}")
    except Exception as error:
        others = ", ".join(other for other in names() if other != name)
        raise UserError(f"methods/{name}.py cannot be loaded: {_described(error)}; other methods: {others}") from error
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Method) and value.__module__ == module.__name__
        and not value.__name__.startswith("_")
    ]  # fmt: skip
    if len(classes) != 1:
        raise UserError(f"methods/{name}.py must define exactly one public Method, it defines {len(classes)}")
    if not dataclasses.is_dataclass(getattr(classes[0], "Hyper", None)):
        raise UserError(f"methods/{name}.py: {classes[0].__name__} needs a frozen dataclass `Hyper` of its settings")
    return classes[0]


def _described(error: Exception) -> str:
    line = getattr(error, "lineno", None)
    return f"{type(error).__name__}: {getattr(error, 'msg', error)}" + (f" (line {line})" if line else "")


def fields(name: str) -> list[str]:
    """Returns the names of a method's hyper-parameters."""
    return [field.name for field in dataclasses.fields(load(name).Hyper)]


def hyper(name: str, overrides: Mapping[str, Any], records: int | None = None) -> Any:
    """Returns the Hyper of a method with `overrides` applied.

    A number that follows the data (see PerRecord) is what it is for so many training records; without `records` it
    stays a PerRecord. Raises UserError naming the valid fields for an unknown one, or what a wrong value should have
    been.
    """
    return settings.parse(load(name).Hyper, overrides, "hyper-parameter", name, records, per_record=True)


def has_paper_settings(name: str, dataset: str, epsilon: float) -> bool:
    """Returns whether the authors of a method published a setting for a data set and epsilon."""
    return (dataset, epsilon) in load(name).PAPER


def paper_settings(name: str, dataset: str, epsilon: float) -> dict[str, Any]:
    """Returns the published overrides for a data set and epsilon. Raises UserError listing the settings there are."""
    if has_paper_settings(name, dataset, epsilon):
        return dict(load(name).PAPER[dataset, epsilon])
    published = [f"{other} at epsilon {format_epsilon(value)}" for other, value in load(name).PAPER]
    raise UserError(
        f"no published setting of {name} for {dataset} at epsilon {format_epsilon(epsilon)};"
        f" valid: {', '.join(published) or 'none, leave out --paper'}"
    )
