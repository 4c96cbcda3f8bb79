"""Errors a user can mend, and the one way every command reports them."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """Bad input: one line saying what was wrong, the value, the valid choices and how to mend it."""


def unknown(kind: str, value: object, valid: Iterable[object], hint: str = "") -> UserError:
    """Returns the error for a name outside a closed set, listing the valid names.

    Example: `raise unknown("dataset", "mnits", ["mnist"])`
    """
    choices = ", ".join(sorted(str(v) for v in valid))
    return UserError(f"unknown {kind} {str(value)!r}; valid: {choices}" + (f" ({hint})" if hint else ""))


def command(main: Callable[..., int | None]) -> Callable[..., int]:
    """Decorates a command's `main(argv=None)`: a UserError becomes one line on stderr and exit code 2."""

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> int:
        try:
            return main(argv) or 0
        except UserError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            return 2

    return wrapped
