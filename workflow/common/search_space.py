"""Where equal tuning looks for a method's settings: for each one a range, or a few values, from which trials draw."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from workflow.common.errors import UserError
from workflow.common.seeds import numpy_stream

# A drawn number has so many digits: more than a search can tell apart, few enough to read.
_DIGITS = 3
# Probability that a trial draws a setting anew. All at once, each by up to a few times, hardly ever lead to a GAN that
# learns, where those before the search do.
_ANEW = 1 / 3


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, evenly by value, or by logarithm where `log`.

    With `times` the limits are factors on what the setting is before the search, which no trial passes beyond the
    setting's own limits: such a range fits every preset.
    """

    low: float
    high: float
    log: bool = False
    times: bool = False

    def draw(self, share: float, present: Any, field: dataclasses.Field) -> float:
        """Returns the number at `share`, from 0 up to 1, of the range."""
        low, high = self.limits(present, field)
        number = low * (high / low) ** share if self.log else low + (high - low) * share
        return min(max(float(f"{number:.{_DIGITS}g}"), low), high)

    def limits(self, present: Any, field: dataclasses.Field) -> tuple[float, float]:
        """Returns the lowest and highest number, where the setting `field` is `present` before the search.

        Raises UserError where factors have nothing to multiply.
        """
        if not self.times:
            return self.low, self.high
        if isinstance(present, bool) or not isinstance(present, int | float) or present <= 0:
            raise UserError(f"{field.name} is searched by factors on what it is, which must be above 0; got {present}")
        return max(field.metadata["low"], self.low * present), min(field.metadata["high"], self.high * present)


@dataclass(frozen=True)
class Choice:
    """A few values, each as likely."""

    values: tuple[Any, ...]

    def draw(self, share: float, present: Any, field: dataclasses.Field) -> Any:
        """Returns the value at `share`, from 0 up to 1, of the list."""
        return self.values[int(share * len(self.values))]


Space = Mapping[str, Range | Choice]


def linear(low: float, high: float) -> Range:
    """Returns the range of numbers from `low` to `high`, all as likely."""
    return Range(low, high)


def log(low: float, high: float) -> Range:
    """Returns the range of numbers from `low`, above 0, to `high`, all magnitudes as likely."""
    return Range(low, high, log=True)


def times(low: float, high: float) -> Range:
    """Returns the range from `low` to `high` times what a setting is before the search, all factors as likely."""
    return Range(low, high, log=True, times=True)


def choice(*values: Any) -> Choice:
    """Returns the choice among values."""
    return Choice(values)


def draw(space: Space, before: Any, seed: int, *names: object) -> dict[str, Any]:
    """Returns new values for some settings of a space, a third of them on average and at least one.

    A function of the seed and the path of names alone. Each setting has a random stream of its own: one that is added
    to a space changes no other's value, and at most which is drawn where otherwise none would be.

    Args:
        before: the method's hyper-parameters before the search, an instance of its Hyper.

    Raises:
        UserError: a range of factors of a setting that is no number above 0.
    """
    hints, fields = get_type_hints(type(before)), {field.name: field for field in dataclasses.fields(before)}
    lots = {name: numpy_stream(seed, *names, name, "anew").random() for name in space}
    found = {}
    for name in space:
        if lots[name] > max(_ANEW, min(lots.values())):
            continue
        share = numpy_stream(seed, *names, name).random()
        value = space[name].draw(share, getattr(before, name), fields[name])
        found[name] = round(value) if hints[name] is int else value
    return found
