"""Finds methods by file name and builds their hyper-parameters."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from methods.core.method import Method
from workflow.common.errors import UserError, unknown

FOLDER = Path(__file__).resolve().parents[1]


def names() -> list[str]:
    """Returns the names of all methods: the files of `methods/` without underscore."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))


def load(name: str) -> type[Method]:
    """Returns the class of a method. Raises UserError listing the methods found if there is no such file."""
    if name not in names():
        raise unknown("method", name, names(), "add one as methods/<name>.py")
    module = importlib.import_module(f"methods.{name}")
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Method) and value.__module__ == module.__name__
        and not value.__name__.startswith("_")
    ]  # fmt: skip
    if len(classes) != 1:
        raise UserError(f"methods/{name}.py must define exactly one public Method, found {len(classes)}")
    return classes[0]


def _coerce(name: str, value: Any, kind: type) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind in (int, float) and isinstance(value, bool)):
        raise UserError(f"hyper-parameter {name} must be {kind.__name__}, got {value!r}")
    return value


def hyper(name: str, overrides: Mapping[str, Any]) -> Any:
    """Returns the Hyper of a method with `overrides` applied.

    Raises UserError naming the valid fields for an unknown one, or the expected type for a wrong value.
    """
    cls = load(name).Hyper
    hints = get_type_hints(cls)
    fields = {field.name for field in dataclasses.fields(cls)}
    for key in overrides:
        if key not in fields:
            raise unknown(f"hyper-parameter of {name}", key, fields)
    return cls(**{key: _coerce(f"{name}.{key}", value, hints[key]) for key, value in overrides.items()})


def paper_settings(name: str, dataset: str, epsilon: float) -> dict[str, Any]:
    """Returns the published overrides for a dataset and epsilon; empty where the authors published none."""
    return dict(load(name).PAPER.get((dataset, epsilon), {}))
