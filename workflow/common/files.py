"""Reading and writing of text, JSON, CSV and npz: a file in `results/` is either whole or absent."""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from workflow.common.errors import UserError, short
from workflow.common.readers.csv_text import read_cells
from workflow.common.readers.guard import read_text, reading, reason
from workflow.common.readers.json_text import parse_json, read_json

__all__ = [
    "atomic", "csv_text", "json_or_path", "read_csv", "read_json", "read_lines", "read_object", "refuse_folder",
    "refuse_unwritable", "sha256", "write_csv", "write_json", "write_npz", "write_text",
]  # fmt: skip


def _umask() -> int:
    # It can only be read by setting it.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


# Random letters, then this, stand in the name of a file while it is written.
_WRITING = ".writing"
_HINT = "the same command continues once that is mended"
# What no disk can mend: the path itself cannot be.
_PATH = {errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EILSEQ}
_LEFTOVER = re.compile(rf"\..*\.[a-z0-9_]{{8}}{re.escape(_WRITING)}(\.[^.]*)?")
_cleared: set[Path] = set()
# What a write to an open file fails with; such an error bears no name.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.ESTALE}


def cannot_write(path: str | Path, error: OSError) -> UserError:
    """Returns the error for a file that a disk did not take, with what is free there."""
    why = error.strerror or str(error)
    if error.errno in _PATH:
        file = next((above for above in Path(path).parents if above.is_file()), None)
        return UserError(f"cannot write {path}: {f'{file} is a file, no folder' if file else why}; correct the path")
    with contextlib.suppress(OSError):
        why += f" ({shutil.disk_usage(_nearest(Path(path))).free / 2**30:.1f} GiB free on its disk)"
    return UserError(f"cannot write {path}: {why}; {_HINT}")


def _nearest(path: Path) -> Path:
    """Returns the folder of a path, or the nearest one above it that exists."""
    return next((folder for folder in path.absolute().parents if folder.is_dir()), Path("/"))


@contextlib.contextmanager
def atomic(path: str | Path, mode: int = 0o666) -> Iterator[Path]:
    """Yields a temporary path next to `path`, with its suffix; renames it onto `path` if the block succeeds.

    The file gets `mode`, less what the process's umask takes away. Raises UserError where nothing can be written there,
    now or while the block writes. What killed processes left half-written in that folder is removed.
    """
    path = Path(path)
    temporary = None
    try:
        temporary, handle = _temporary(path)
        try:
            yield temporary
            os.chmod(temporary, mode & ~_umask())
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            refuse_folder(path)
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            os.close(handle)
    except OSError as error:
        # What the block reads may fail as well, and is not this file's fault.
        names = error.filename is not None and os.fspath(error.filename) == os.fspath(temporary or error.filename)
        if names or (error.filename is None and error.errno in _DISK):
            raise cannot_write(path, error) from None
        raise


def refuse_folder(path: Path) -> None:
    """Raises UserError where a file is to be written and a folder stands: to be called before hours of work too."""
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder")


def refuse_unwritable(path: Path) -> None:
    """Raises UserError where `path` cannot be written, as far as can be told without: before hours of work.

    A folder stands there, a file in the place of a folder, or the nearest folder above it is closed.
    """
    refuse_folder(path)
    near = next(above for above in path.absolute().parents if os.path.lexists(above))
    for problem, found in ((errno.ENOTDIR, not near.is_dir()), (errno.EACCES, not os.access(near, os.W_OK | os.X_OK))):
        if found:
            raise cannot_write(path, OSError(problem, os.strerror(problem)))


def _temporary(path: Path) -> tuple[Path, int]:
    """Returns a new empty file next to `path`, and a handle that holds it: while it is open, the file is in use."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent not in _cleared:
        # Once a process: a folder may hold many thousands of pictures.
        _cleared.add(path.parent)
        clear_leftovers(path.parent)
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=f"{_WRITING}{path.suffix}")
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another process may have taken it for a leftover before it was held.
        if os.fstat(handle).st_nlink:
            return Path(name), handle
        os.close(handle)


def clear_leftovers(folder: Path) -> None:
    """Removes what `atomic` was writing in a folder when its process was killed."""
    with contextlib.suppress(OSError):
        for path in folder.glob(f".*{_WRITING}*"):
            if is_leftover(path):
                _remove_unless_held(path)


def is_leftover(path: Path) -> bool:
    """Returns whether a file's name is one that `atomic` writes under, as it stays where its process is killed."""
    return _LEFTOVER.fullmatch(path.name) is not None


def _remove_unless_held(path: Path) -> None:
    # Where a disk knows no locks this fails, and the file stays.
    with contextlib.suppress(OSError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()


def sync_whole(folder: Path) -> None:
    """Returns when all that a folder holds is on disk, but for its own name. Raises UserError as `sync_folder`."""
    # Together: a disk then writes many small files at once, in a thirtieth of the time.
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(sync_folder, [*folder.rglob("*"), folder]))


def sync_folder(folder: Path) -> None:
    """Returns when the names of a folder's files are on disk, or what a file holds. Raises UserError otherwise."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise cannot_write(folder, error) from None


def write_text(path: str | Path, text: str, mode: int = 0o666) -> None:
    """Writes UTF-8 text atomically; `mode` as in `atomic`."""
    with atomic(path, mode) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any, mode: int = 0o666) -> None:
    """Writes indented, key-sorted JSON atomically. Infinities are refused: write them as the string "inf"."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n", mode)


def read_object(path: str | Path, what: str = "settings") -> dict[str, Any]:
    """Returns the JSON object that a file holds. Raises UserError as `read_json`, and for anything but an object."""
    return _mapping(read_json(path), str(path), what)


def json_or_path(text: str | Path, what: str = "settings", load: Callable[[str], Any] = parse_json) -> dict[str, Any]:
    """Returns the JSON object that `text` holds, if it begins with a brace, or that the file at the path `text` holds.

    Args:
        what: the name of the object in an error, such as "--protocol".
        load: reads text in another notation; it raises ValueError where the text is malformed.

    Raises:
        UserError: a missing file, malformed text, or something else than an object.
    """
    if str(text).lstrip().startswith("{"):
        try:
            return _mapping(load(str(text)), short(text), what)
        except ValueError as error:
            raise UserError(f"{what} is not readable: {reason(error)}; mend the text in braces") from None
    if not os.path.lexists(str(text).replace("\0", "")):
        with contextlib.suppress(ValueError):
            value = load(str(text))
            if not isinstance(value, str) or str(text).startswith('"'):
                raise UserError(f"{what} must be a mapping of names to values in braces, got {short(text)}")
        raise UserError(f"no such file: {short(text)} ({what} takes JSON in braces, or the path of a file)")
    content = read_text(text, "is not readable")
    with reading(text, "is not readable", "mend it or make it again"):
        return _mapping(load(content), str(text), what)


def _mapping(value: Any, source: str, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{what} must be a mapping of names to values, but {source} holds {short(repr(value))}")
    return value


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any] | Mapping[str, Any]]) -> str:
    """Returns CSV with one header line.

    A row is its cells in order, or a mapping of columns to cells, where a column that it lacks is an empty cell.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([row.get(name) for name in columns] if isinstance(row, Mapping) else row for row in rows)
    return text.getvalue()


def write_csv(path: str | Path, columns: Sequence[str], rows: Iterable[Sequence[Any] | Mapping[str, Any]]) -> None:
    """Writes CSV atomically; `columns` and `rows` as in `csv_text`."""
    write_text(path, csv_text(columns, rows))


def read_csv(
    path: str | Path, columns: Sequence[str] = (), maker: str = "", exact: bool = False
) -> list[dict[str, str]]:
    """Returns the rows of a CSV file as texts by column; a file with a header alone gives none. See `read_lines`."""
    return list(read_lines(path, columns, maker, exact).values())


def read_lines(
    path: str | Path, columns: Sequence[str] = (), maker: str = "", exact: bool = False
) -> dict[int, dict[str, str]]:
    """Returns the rows of a CSV file as texts by column, each by the number of the line on which it ends.

    Blank lines and the byte-order mark that spreadsheets write are passed over.

    Args:
        columns: names that the header must hold, in any order and among others.
        maker: the command that writes such a file, for the error.
        exact: whether the header must be `columns` and nothing else, in this order.

    Raises:
        UserError: the file is missing, empty or not text, lacks columns, or a line has too many or too few cells.
    """
    hint = f"; it is written by {maker}" if maker else "; the first line must name the columns"
    cells = read_cells(path, f"it is written by {maker}" if maker else "")
    header = cells[0][1] if cells else []
    if problem := _wrong_header(header, list(columns), exact):
        raise UserError(f"{path}{problem}{hint}")
    for number, row in cells[1:]:
        if len(row) != len(header):
            raise UserError(f"{path} line {number}: {len(row)} cells instead of {len(header)}; mend or remove it")
    return {number: dict(zip(header, row, strict=True)) for number, row in cells[1:]}


def _wrong_header(header: list[str], columns: list[str], exact: bool) -> str:
    if exact and header != columns:
        return f": the first line must be {','.join(columns)}; found {','.join(header) or 'nothing'}"
    if not header:
        return " is empty"
    twice = [name for name in columns or header if header.count(name) > 1]
    if twice:
        return f" has the column {twice[0]} twice; remove one"
    missing = [name for name in columns if name not in header]
    return f" lacks the columns {', '.join(missing)}; it has {', '.join(header)}" if missing else ""


def write_npz(path: str | Path, mode: int = 0o666, /, **arrays: np.ndarray) -> None:
    """Writes a compressed npz atomically; `mode` as in `atomic`."""
    with atomic(path, mode) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, **arrays)


def sha256(path: str | Path) -> str:
    """Returns the hex SHA-256 of a file's content."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
