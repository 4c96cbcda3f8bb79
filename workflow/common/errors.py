"""Errors a user can fix, and the one way every command reports them."""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """Bad input: one line saying what was wrong, the value, the valid choices and how to fix it."""


def unknown(kind: str, value: object, valid: Iterable[object], hint: str = "", where: str = "") -> UserError:
    """Returns the error for a name outside a closed set, listing the valid names and the nearest one if there is one.

    `where` says in which place it stands, after the name. Example: `raise unknown("data set", "mnits", ["mnist"],
    where="in quick.yaml")`
    """
    names = sorted(str(name) for name in valid)
    close = difflib.get_close_matches(str(value), names, n=1, cutoff=0.7)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return UserError(
        f"unknown {kind} {str(value)!r}{where and f' {where}'}; {guess}valid: {', '.join(names) or 'none'}"
        + (f" ({hint})" if hint else "")
    )


def print_error(error: Exception) -> None:
    """Prints the error as one line on stderr."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)


def command(main: Callable[..., int | None]) -> Callable[..., int]:
    """Decorates a command's `main(argv=None)`: a UserError becomes one line on stderr and exit code 2.

    So does what the system refuses, such as a file on a disk that fails, where no code nearer to it said more.
    """

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> int:
        try:
            return main(argv) or 0
        except UserError as error:
            print_error(error)
            return 2
        except BrokenPipeError:
            raise
        except OSError as error:
            about = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
            print_error(OSError(f"{about}: {error.strerror or error}" if about else str(error)))
            return 2

    return wrapped
