"""A number that follows the size of the data, so that one preset fits 300 images as well as 60,000."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workflow.common.errors import UserError, unknown

KEYS = ("one_per", "at_least", "at_most")
# Far beyond any data set, and far within what a float can hold.
_MOST = 1e12
HELP = "a number may follow the training records: {one_per: 60, at_least: 4, at_most: 1000} is one per 60 records"


@dataclass(frozen=True)
class PerRecord:
    """One per so many training records, rounded down, within limits; None is no limit.

    Raises UserError for a `one_per` that is not above 0, or limits in the wrong order.
    """

    one_per: float
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        for key in KEYS:
            value = getattr(self, key)
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _MOST
            if not number and (value is not None or key == "one_per"):
                raise UserError(f"{key} must be a number, got {value!r}; {HELP}")
        if self.one_per <= 0:
            raise UserError(f"one_per must be above 0, got {self.one_per!r}; {HELP}")
        if self.one_per < 1 / _MOST:
            raise UserError(f"one_per must be at least {1 / _MOST:g}, got {self.one_per!r}; {HELP}")
        if None not in (self.at_least, self.at_most) and self.at_least > self.at_most:
            raise UserError(f"at_least {self.at_least:g} lies above at_most {self.at_most:g}; {HELP}")

    @classmethod
    def read(cls, value: Any) -> PerRecord | None:
        """Returns a value of a configuration that asks for such a number; None for any other value.

        Raises UserError for a mapping with other keys, or values that cannot be.
        """
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            return None
        for key in value:
            if key not in KEYS:
                raise unknown("key", key, KEYS, HELP)
        if "one_per" not in value:
            raise UserError(f"one_per is missing in {dict(value)}; {HELP}")
        return cls(**value)

    def of(self, records: int) -> int | float:
        """Returns the number for a data set of `records` training records: whole, unless a limit that holds is not."""
        number = int(records // self.one_per)
        if self.at_least is not None:
            number = max(number, self.at_least)
        return number if self.at_most is None else min(number, self.at_most)

    def to_dict(self) -> dict[str, float]:
        """Returns it as a configuration writes it, without the limits that it has not."""
        return {key: getattr(self, key) for key in KEYS if getattr(self, key) is not None}


def settled(value: Any, records: int) -> Any:
    """Returns a setting's number for so many records; a value that does not follow them as it is."""
    rule = PerRecord.read(value)
    return value if rule is None else rule.of(records)
