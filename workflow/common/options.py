"""Types of command-line options that several commands share; a bad value is one line and exit code 2."""

from __future__ import annotations

from collections.abc import Callable

from workflow.common.errors import UserError


def whole(option: str, low: int = 1, high: int | None = None) -> Callable[[str], int]:
    """Returns argparse's `type` for a whole number from `low` to `high`; it raises UserError naming `option`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise UserError(f"{option} must be a whole number, got {text[:80]!r}") from None
        if value < low:
            raise UserError(f"{option} must be at least {low}, got {value}")
        if high is not None and value > high:
            raise UserError(f"{option} must be at most {high}, got {value}")
        return value

    return parse


def number(option: str, low: float, high: float, open_low: bool = False) -> Callable[[str], float]:
    """Returns argparse's `type` for a number from `low` to `high`, `low` left out if `open_low`; it raises as `whole`.

    Neither limit may be infinite where infinity is not a value.
    """
    wanted = f"a number {f'above {low:g} and at most' if open_low else f'from {low:g} to'} {high:g}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise UserError(f"{option} must be {wanted}, got {text[:80]!r}") from None
        # Written so that NaN fails as well.
        if not low <= value <= high or (open_low and value == low):
            raise UserError(f"{option} must be {wanted}, got {text[:80]}")
        return value

    return parse
