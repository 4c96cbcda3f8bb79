"""CSV as rows of cells, with the lines they stand on."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from workflow.common.readers.guard import read_text, reading


def read_cells(path: str | Path, maker: str = "", delimiter: str = ",") -> list[tuple[int, list[str]]]:
    """Returns the rows of a CSV file that are not blank, each with the number of its last line.

    Raises UserError for a file that is missing, no UTF-8 text, cut inside a quoted cell, or holds a cell of more than
    131,072 characters.
    """
    problem = "is no readable CSV"
    text = read_text(path, problem, "save it again as CSV in UTF-8", maker=maker)
    with reading(path, problem, "mend that line", maker=maker):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            return [(reader.line_num, cells) for cells in reader if cells]
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}") from None
