"""Settings as dataclass fields that state their meaning, unit and range, and the one validator that reads them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_type_hints

from workflow.common.errors import UserError, either, misfit, shown, unknown
from workflow.common.per_record import PerRecord


def setting(
    default: Any,
    help: str,
    low: float | None = None,
    high: float | None = None,
    choices: Iterable[str] | None = None,
    group: str = "",
) -> Any:
    """Returns a dataclass field with its default, its meaning (unit included), and the values it may take.

    Args:
        default: its type is the field's annotation: bool, int, float or str.
        low, high: smallest and largest value, both included; None where there is no limit.
        choices: the names that a text may be; None where any text may stand.
        group: names the settings of an option that came later; see `stated`.
    """
    choices = None if choices is None else tuple(choices)
    metadata = {"help": help, "low": low, "high": high, "choices": choices, "group": group}
    return dataclasses.field(default=default, metadata=metadata)


def stated(values: Any) -> dict[str, Any]:
    """Returns the fields of a dataclass instance as a record of it keeps them.

    A group of which every field has its default is left out, so that records without the option stay as they were.
    """
    fields = dataclasses.fields(values)
    chosen = {one.metadata.get("group") for one in fields if getattr(values, one.name) != one.default} | {"", None}
    kept = [field.name for field in fields if field.metadata.get("group") in chosen]
    return {name: value for name, value in dataclasses.asdict(values).items() if name in kept}


def parse(
    cls: type,
    values: Mapping[str, Any],
    kind: str,
    owner: str = "",
    records: int | None = None,
    per_record: bool = False,
) -> Any:
    """Returns `cls` with the fields `values`, each checked; the others keep their defaults.

    Args:
        kind, owner: name a setting in an error: "hyper-parameter" and "dpac" give "hyper-parameter dpac.steps".
        records: training records; a number that follows them (see PerRecord) becomes what it is for so many.
        per_record: leaves such a number in its field as a PerRecord where `records` is None. Without both it is
            refused, as any value of another type.

    Raises:
        UserError: an unknown field (the valid ones are listed), a value of another type, or one outside its range.
    """
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    checked = {}
    for name, value in values.items():
        if name not in fields:
            raise unknown(f"{kind} of {owner}" if owner else kind, name, fields)
        what = f"{kind} {_placed(name, owner)}"
        if (per_record or records is not None) and hints[name] in (int, float):
            value = _per_record(what, value, hints[name], fields[name], records)
        checked[name] = value if isinstance(value, PerRecord) else _checked(what, value, hints[name], fields[name])
    return cls(**checked)


def _placed(name: str, owner: str) -> str:
    if " " in owner:
        return f"{name} of {owner}"
    return f"{owner}.{name}" if owner else name


def range_of(field: dataclasses.Field) -> str:
    """Returns the values a field may take in words, such as "1 to 10"; empty where nothing limits them."""
    low, high, choices = (field.metadata.get(name) for name in ("low", "high", "choices"))
    if choices is not None:
        return either(choices)
    if low is not None and low == high:
        return _limit(low)
    if low is not None and high is not None:
        return f"{_limit(low)} to {_limit(high)}"
    if low is not None:
        return f"at least {_limit(low)}"
    return "" if high is None else f"at most {_limit(high)}"


def describe(cls: type) -> Iterator[str]:
    """Yields one line a field: name, type, default, range and meaning."""
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        facts = [hints[field.name].__name__, f"default {field.default!r}", range_of(field)]
        yield f"{field.name} ({', '.join(filter(None, facts))}): {field.metadata.get('help', '')}"


def _limit(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _per_record(what: str, value: Any, kind: type, field: dataclasses.Field, records: int | None) -> Any:
    """Returns the number that follows `records`, its limits checked; any other value as it is."""
    try:
        rule = PerRecord.read(value)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None
    if rule is None:
        return value
    for limit in ("at_least", "at_most"):
        if getattr(rule, limit) is not None:
            _checked(f"{limit} of {what}", getattr(rule, limit), kind, field)
    if records is None:
        return rule
    number = rule.of(records)
    try:
        return _checked(what, number, kind, field)
    except UserError as error:
        told = f"one per {rule.one_per:g} of {records} records; give at_least or at_most"
        raise UserError(f"{error}, {told}") from None


def _checked(what: str, value: Any, kind: type, field: dataclasses.Field) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = _float(value)
    low, high, choices = (field.metadata.get(name) for name in ("low", "high", "choices"))
    if choices is not None and value not in choices:
        raise misfit(what, value, choices)
    if not isinstance(value, kind) or (kind in (int, float) and isinstance(value, bool)):
        raise UserError(f"{what} must be of type {kind.__name__}, got {shown(value)}")
    # Written so that NaN fails as well.
    outside = (low is not None and not value >= low) or (high is not None and not value <= high)
    endless = kind is float and not math.isfinite(value)
    if outside or endless:
        finite = "a finite number" if endless and high is None else ""
        wanted = " of ".join(filter(None, [finite, range_of(field)]))
        raise UserError(f"{what} must be {wanted}, got {shown(value)}")
    return value


def _float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
