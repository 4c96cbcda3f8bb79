"""What a preset's schema refuses, in the words of who wrote the preset."""

from __future__ import annotations

from typing import Any

from workflow.common.errors import short, shown

KINDS = {
    "object": "a mapping of names to values",
    "array": "a list",
    "string": "a text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "nothing",
}
LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


def words(error: Any) -> str:
    """Returns what is wrong, without the place, of an error of jsonschema: what must stand there and what does."""
    rule, wanted = error.validator, error.validator_value
    if rule == "type":
        kinds = [wanted] if isinstance(wanted, str) else [kind for kind in wanted if kind != "null"]
        return f"must be {' or '.join(KINDS[kind] for kind in kinds)}, got {_got(error.instance)}"
    if rule in LIMITS:
        return f"must be {LIMITS[rule]} {wanted:g}, got {_got(error.instance)}"
    if rule in ("minItems", "minProperties"):
        return "is empty; give at least one"
    if rule == "uniqueItems":
        twice = next(item for place, item in enumerate(error.instance) if item in error.instance[:place])
        return f"holds {shown(twice)} twice; keep one"
    if rule == "enum":
        return f"must be one of {', '.join(map(str, wanted))}, got {_got(error.instance)}"
    if rule == "required":
        return f"lacks {', '.join(key for key in wanted if key not in error.instance)}"
    return short(error.message)


def _got(value: Any) -> str:
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else shown(value)
