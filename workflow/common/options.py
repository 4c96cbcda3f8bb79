"""Types of command-line options that several commands share; a bad value is one line and exit code 2."""

from __future__ import annotations

from collections.abc import Callable

from workflow.common.errors import UserError


def whole(option: str, low: int = 1) -> Callable[[str], int]:
    """Returns argparse's `type` for a whole number of at least `low`; it raises UserError naming `option`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise UserError(f"{option} must be a whole number, got {text!r}") from None
        if value < low:
            raise UserError(f"{option} must be at least {low}, got {value}")
        return value

    return parse
