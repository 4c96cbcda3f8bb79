"""What a program stored for itself and reads back: an object's fields, and of what kind each must be."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from workflow.common.errors import shown

Kind = Callable[[Any], bool]


def fields(content: Any, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """Returns `content`, an object that has all fields of `kinds`, each of its kind; it may have others.

    Raises ValueError, which names the field and shows its value, for anything else.
    """
    if not isinstance(content, dict):
        raise ValueError(f"it must be an object with {', '.join(kinds)}, and is {shown(content)}")
    for name, kind in kinds.items():
        if name not in content:
            raise ValueError(f"it lacks {name!r}")
        if not kind(content[name]):
            raise ValueError(f"{name!r} is {shown(content[name])}")
    return content


def is_text(value: Any) -> bool:
    """Whether a value is a printable text, which may be empty."""
    return isinstance(value, str) and value.isprintable()


def is_number(value: Any) -> bool:
    """Whether a value is a finite number from 0."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def is_whole(least: int = 0, most: int = 2**63 - 1) -> Kind:
    """Returns what tells whether a value is a whole number, `least` .. `most`."""
    return lambda value: type(value) is int and least <= value <= most


def is_hex(digits: int) -> Kind:
    """Returns what tells whether a value is a text of so many hexadecimal digits."""
    pattern = re.compile(rf"[0-9a-f]{{{digits}}}")
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def is_one_of(*values: str) -> Kind:
    """Returns what tells whether a value is one of these texts."""
    return lambda value: isinstance(value, str) and value in values


def is_object(value: Any) -> bool:
    """Whether a value is an object, of any fields."""
    return isinstance(value, dict)
