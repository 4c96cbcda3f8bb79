"""Errors a user can fix, and the one way every command reports them."""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Callable, Iterable

from workflow.common import process


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
    """Decorates a command's `main(argv=None)`: however it ends, it ends in at most one line on stderr.

    A UserError is that line and exit code 2; Ctrl-C is one and exit code 130; where the reader of its output has gone
    (`| head`) it ends in silence with exit code 141.
    """

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> int:
        try:
            with process.raised():
                return _reported(main, argv)
        except KeyboardInterrupt:
            print(process.LINE, file=sys.stderr, flush=True)
            return process.INTERRUPTED
        except BrokenPipeError:
            if not process.has_no_reader():
                raise
            process.drop_output()
            return process.CLOSED_PIPE

    return wrapped


def _reported(main: Callable[..., int | None], argv: list[str] | None) -> int:
    try:
        return main(argv) or 0
    except UserError as error:
        print_error(error)
        return 2
    except SystemExit as end:
        # As training ends on Ctrl-C, after its checkpoint.
        if end.code == process.INTERRUPTED:
            print(process.LINE, file=sys.stderr)
        raise
    finally:
        # What a closed pipe refuses is found out here and not in Python's own last act. A process may have no stdout.
        if sys.stdout:
            sys.stdout.flush()
