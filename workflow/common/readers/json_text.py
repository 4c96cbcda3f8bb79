"""JSON as other programs read it too: no NaN, no infinity, no key twice, no number beyond 64 bits."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from workflow.common.readers.guard import read_text, reading

_LARGEST = 2**64
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str) -> Any:
    """Returns the value of a JSON text.

    Raises ValueError for malformed text, NaN and infinities, numbers of more than 64 bits, a key that stands twice, a
    text that is no Unicode, and what is nested too deep.
    """
    try:
        value = json.loads(
            text, parse_constant=_constant, parse_float=_float, parse_int=_int, object_pairs_hook=_object
        )
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if _SURROGATE.search(text):
        json.dumps(value, ensure_ascii=False).encode()
    return value


def read_json(path: str | Path) -> Any:
    """Returns what a JSON file holds. Raises UserError naming the file if it is missing or malformed."""
    problem = "is not readable JSON"
    text = read_text(path, problem, "write it again")
    with reading(path, problem, "mend it or make it again"):
        return parse_json(text)


def _constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def _int(text: str) -> int:
    number = int(text) if len(text) <= 20 else _LARGEST
    if not -_LARGEST < number < _LARGEST:
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return found
