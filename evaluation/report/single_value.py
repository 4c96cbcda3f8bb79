"""The axis of a plot whose points all have one value: a plotting library finds no ticks for a range without length."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def axis_of(values: Iterable[float]) -> dict[str, Any]:
    """Returns a Vega-Lite channel's `scale` and `axis` that show the one value there is; nothing for any others."""
    distinct = set(values)
    if len(distinct) != 1:
        return {}
    (value,) = distinct
    around = abs(value) / 10 or 1.0
    shown = ",d" if float(value).is_integer() else ".4~g"
    scale = {"domain": [value - around, value + around], "zero": False, "nice": False}
    return {"scale": scale, "axis": {"values": [value], "format": shown}}
