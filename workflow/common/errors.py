"""Errors a user can fix, and the one way every command reports them."""

from __future__ import annotations

import difflib
import errno
import functools
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from workflow.common import process

LONGEST = 2000  # characters of a line on stderr: a value that was given may be of any length


class UserError(Exception):
    """Bad input: one line saying what was wrong, the value, the valid choices and how to fix it."""


def unknown(kind: str, value: object, valid: Iterable[object], hint: str = "", where: str = "") -> UserError:
    """Returns the error for a name outside a closed set, listing the valid names and the nearest one if there is one.

    `where` says in which place it stands, after the name. Example: `raise unknown("data set", "mnits", ["mnist"],
    where="in quick.yaml")`
    """
    names = sorted(str(name) for name in valid)
    text = str(value) if len(str(value)) <= 80 else f"{str(value)[:80]}..."
    guess = _guess(text, names)
    return UserError(
        f"unknown {kind} {text!r}{where and f' {where}'}; {guess and f'{guess} '}valid: {', '.join(names) or 'none'}"
        + (f" ({hint})" if hint else "")
    )


def misfit(what: str, value: object, valid: Iterable[str]) -> UserError:
    """Returns the error for a setting `what` whose value is none of `valid`, with the nearest one if there is one.

    Where `unknown` is for a name that does not exist, this is for a known setting. Example:
    `raise misfit("toy.network", "cn", ["cnn", "mlp"])`
    """
    names = list(valid)
    guess = _guess(str(value), names)
    return UserError(f"{what} must be {either(names)}, got {shown(value)}{guess and f'; {guess}'}")


def either(names: Sequence[str]) -> str:
    """Returns names in words, as "a, b or c"."""
    return " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _guess(text: str, names: Sequence[str]) -> str:
    # Of three letters two that stand in order are 0.67, and one slip leaves no more.
    close = difflib.get_close_matches(text, names, n=1, cutoff=0.65 if len(text) <= 3 else 0.7)
    return f"did you mean {close[0]!r}?" if close else ""


def shown(value: object) -> str:
    """Returns a value as an error shows it: its `repr`, cut after 80 characters."""
    try:
        text = repr(value)
    except ValueError:
        # Python refuses to write thousands of digits.
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:80]}..."


def short(text: object) -> str:
    """Returns a text as an error names it: cut after 200 characters."""
    return str(text) if len(str(text)) <= 200 else f"{str(text)[:200]}..."


def printable(text: str) -> str:
    """Returns a text in which what a terminal would obey, or cannot show, is written out as \\x1b."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def at(error: Exception, place: traceback.FrameSummary) -> str:
    """Returns an error of code in one line, with the file and line of `place`, one of its frames."""
    words = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {words} (at {Path(place.filename).name} line {place.lineno})"


def print_error(error: Exception) -> None:
    """Prints the error as one line of at most 2,000 printable characters on stderr."""
    text = " ".join(str(error).split())
    print(f"error: {printable(text[:LONGEST])}{'...' if len(text) > LONGEST else ''}", file=sys.stderr, flush=True)


def command(main: Callable[..., int | None]) -> Callable[..., int]:
    """Decorates a command's `main(argv=None)`: however it ends, it ends in at most one line on stderr.

    A UserError is that line and exit code 2. So is what the system refuses, such as a name that is too long or a file
    on a disk that fails, where no code nearer to it said more, and too little memory. Ctrl-C is one and exit code 130;
    where the reader of its output has gone (`| head`) it ends in silence with exit code 141.
    """

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> int:
        try:
            with process.raised():
                return _reported(main, argv)
        except KeyboardInterrupt:
            print(process.interrupted_line(), file=sys.stderr, flush=True)
            return process.INTERRUPTED
        except BrokenPipeError:
            if not process.has_no_reader():
                raise
            process.drop_output()
            return process.CLOSED_PIPE
        except OSError as error:
            if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                # Files of the suite's own are named where they are written; what bears no name is stdout.
                print_error(UserError(f"cannot write the output: {error.strerror}; make room, or send it elsewhere"))
                return 2
            about = " -> ".join(short(name) for name in (error.filename, error.filename2) if name is not None)
            where = f"{about}: " if about else ""
            print_error(UserError(f"{where}{error.strerror or error}; correct the path, or what is in its way"))
        except UnicodeError as error:
            print_error(UserError(f"a name holds what cannot be written as text ({error}); rename it"))
        except MemoryError:
            print_error(UserError("this needs more memory than there is; give smaller files or fewer images at a time"))
        return 2

    return wrapped


def _reported(main: Callable[..., int | None], argv: list[str] | None) -> int:
    try:
        return main(argv) or 0
    except UserError as error:
        print_error(error)
        return 2
    except SystemExit as end:
        # As training ends on a signal, after its checkpoint.
        if end.code == process.INTERRUPTED or isinstance(end, process.Stopped):
            print(process.interrupted_line(getattr(end, "kept", "")), file=sys.stderr, flush=True)
        raise
    finally:
        # What a closed pipe refuses is found out here and not in Python's own last act. A process may have no stdout.
        if sys.stdout:
            sys.stdout.flush()
