"""log.csv while its run trains: each row is there as a whole line as soon as its step has ended.

The checkpoint holds the rows that count. Here is what a reader sees: what a kill left beyond the last checkpoint goes
when the run continues, and the finished file, the same as if nobody had watched, takes this one's place.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workflow.common.errors import UserError
from workflow.common.files import csv_text, write_text

Row = Mapping[str, float]


def log_csv(rows: Sequence[Row]) -> str:
    """Returns the rows as the text of log.csv: a column for each name, an empty cell where a row has no such value."""
    return csv_text(_columns(rows), rows)


def plain_numbers(values: Mapping[str, Any]) -> Row:
    """Returns what a step tells as Python's own numbers: a checkpoint with those of torch or numpy is not read back."""
    return {name: value.item() if hasattr(value, "item") else value for name, value in values.items()}


class LiveLog:
    """The growing file. A disk that refuses is passed over: what the run needs it stores elsewhere, and says so."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns: list[str] = []
        self._written: int | None = None  # rows in the file; None where that is not known

    def show(self, rows: Sequence[Row]) -> None:
        """Lets the file hold `rows`, those shown before and perhaps one more."""
        with contextlib.suppress(UserError, OSError):
            columns = _columns(rows)
            grows = self._written == len(rows) - 1 and columns == self._columns and self._path.exists()
            self._written = None
            if grows:
                self._append(csv_text(columns, rows[-1:]).partition("\n")[2])
            else:
                write_text(self._path, log_csv(rows))
            self._columns, self._written = columns, len(rows)

    def _append(self, line: str) -> None:
        # One write, so that no reader and no kill of the process sees half a line.
        with self._path.open("ab", buffering=0) as file:
            whole, content = file.seek(0, os.SEEK_END), line.encode()
            if file.write(content) < len(content):
                # A disk that becomes full takes the part that it has room for.
                file.truncate(whole)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row)) or ["step"]
