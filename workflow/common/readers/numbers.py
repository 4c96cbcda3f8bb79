"""Numbers in texts, as every program reads them: Python's own `float` takes 1_0, Arabic digits and blanks as well."""

from __future__ import annotations

import math
import re

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_ENDLESS = re.compile(r"\+?inf(inity)?", re.IGNORECASE)


def parse_number(text: str, endless: bool = False) -> float:
    """Returns the number that a text holds. With `endless` it may be inf.

    Raises ValueError for anything else: NaN, a number too large for a float, and what only Python takes for one.
    """
    if endless and _ENDLESS.fullmatch(text):
        return math.inf
    if len(text) > 400 or not _NUMBER.fullmatch(text) or math.isinf(float(text)):
        raise ValueError(f"{text[:40]!r} is no number")
    return float(text)
