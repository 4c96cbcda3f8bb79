"""What all readers share: only regular files, only so many bytes, one error for whatever a library stumbles over."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from workflow.common.errors import UserError

MOST_TEXT = 1 << 26  # bytes of a text file: the largest that the suite writes have less than a hundredth of it


def check_file(path: str | Path, hint: str = "", most: int | None = None) -> int:
    """Returns the size in bytes of the regular file at `path`.

    Args:
        hint: what to do about it, for the error, in place of correcting the path.
        most: bytes that are read.

    Raises:
        UserError: there is no such file, it cannot be reached, is a folder, a pipe or a device, or is too large.
    """
    tail = f"; {hint or 'correct the path'}"
    try:
        facts = os.stat(path)
    except FileNotFoundError:
        raise UserError(f"no such file: {path}{tail}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}{tail}") from None
    if stat.S_ISDIR(facts.st_mode):
        raise UserError(f"cannot read {path}: Is a directory{tail}")
    if not stat.S_ISREG(facts.st_mode):
        raise UserError(f"cannot read {path}: it is no file but a pipe or a device; give a file")
    if most is not None and facts.st_size > most:
        raise UserError(f"{path} has {facts.st_size:,} bytes; at most {most:,} are read{tail}")
    return facts.st_size


@contextlib.contextmanager
def reading(
    path: str | Path, problem: str, mend: str = "", most: int | None = None, maker: str = ""
) -> Iterator[None]:
    """Turns whatever goes wrong in the block, which reads the file at `path`, into one UserError.

    Args:
        problem: what the file then is, such as "is not an npz of `images` and `labels`"; the library's words follow.
        mend: what to do about it.
        most: bytes of the largest file that is read.
        maker: how the file is made, in place of `mend` and also where there is no file.

    Raises:
        UserError: as `check_file`, or for an error in the block. KeyboardInterrupt and SystemExit pass.
    """
    check_file(path, maker, most)
    tail = (maker and f"; {maker}") or (mend and f"; {mend}")
    try:
        yield
    except UserError:
        raise
    except PermissionError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; change its permissions") from None
    except MemoryError:
        raise UserError(f"{path} needs more memory than there is{tail}") from None
    except RecursionError:
        raise UserError(f"{path} {problem}: it is nested too deep{tail}") from None
    except Exception as error:
        # Decoders let through whatever a broken file makes them stumble over; a list of it is never complete.
        raise UserError(f"{path} {problem}: {reason(error)}{tail}") from None


def reason(error: BaseException) -> str:
    """Returns an error's words on one line of at most 300 characters, its type where it has none."""
    words = " ".join(str(getattr(error, "strerror", None) or error).split())
    if isinstance(error, KeyError):
        words = f"it lacks {words}"
    return words[:300] or type(error).__name__


def read_bytes(path: str | Path, problem: str, mend: str = "", most: int = MOST_TEXT, maker: str = "") -> bytes:
    """Returns a file's content of at most `most` bytes. Raises UserError as `reading` does."""
    with reading(path, problem, mend, most, maker), open(path, "rb") as handle:
        content = handle.read(most + 1)
        if len(content) > most:
            raise ValueError(f"more than {most:,} bytes")
        return content


def read_text(path: str | Path, problem: str, mend: str = "", most: int = MOST_TEXT, maker: str = "") -> str:
    """Returns a UTF-8 text without the byte-order mark that some programs write. Raises UserError as `reading`."""
    content = read_bytes(path, problem, mend, most, maker)
    with reading(path, problem, mend, maker=maker):
        text = content.decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("it holds null characters, which no text does")
    return text
