"""What `reproducible: true` asks of a preset's other settings: single precision, and one thread a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workflow.common.errors import UserError
from workflow.grid_values import Origin
from workflow.overrides import Layer

SOURCE = "reproducible: true"


def reproducible_layer(content: Mapping[str, Any], origin: Origin) -> Layer:
    """Returns what lies over a preset's content, so that every processor computes the same; empty where not asked for.

    bfloat16 becomes single precision: processors differ in whether they sum its products in it.

    Raises UserError for several threads, among which a sum would be split.
    """
    if not content.get("reproducible", False):
        return Layer(SOURCE, {})
    if content.get("threads", 1) != 1:
        raise UserError(
            f"{origin('threads')}: threads: {content['threads']} does not go with {SOURCE} "
            f"({origin('reproducible')}), which computes on one thread; leave one of them out"
        )
    found = {key: _single(content.get(key)) for key in ("methods", "runs")}
    return Layer(SOURCE, {key: value for key, value in found.items() if value})


def _single(value: Any) -> Any:
    """Returns the keys, at any depth, whose `precision` is bf16, with fp32 instead; None where there is none."""
    if not isinstance(value, Mapping):
        return None
    below = {key: found for key, item in value.items() if (found := _single(item))}
    return below | ({"precision": "fp32"} if value.get("precision") == "bf16" else {}) or None
