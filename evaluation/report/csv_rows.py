"""The rows of a csv file whose columns a table shows, with the checks that its layout asks for."""

from __future__ import annotations

from pathlib import Path

from evaluation.report.layout import CsvTableSpec
from workflow.common.errors import UserError, shown
from workflow.common.files import read_lines
from workflow.common.readers.numbers import parse_number


def read_rows(path: Path, spec: CsvTableSpec, lead: tuple[str, ...], maker: str) -> list[dict[str, str]]:
    """Returns the rows as texts by column.

    Args:
        lead: columns that the table needs besides those of its layout.
        maker: the command that writes the file, for an error.

    Raises:
        UserError: the file cannot be read or lacks a column, or one that has decimals holds what is no number from 0.
    """
    rows = read_lines(path, list(dict.fromkeys([*lead, *spec.columns])), maker)
    for number, row in rows.items():
        for name, column in spec.columns.items():
            if column.decimals is not None and row[name]:
                as_number(row, name, f"{path} line {number}: ")
    return list(rows.values())


def as_number(row: dict[str, str], name: str, where: str = "") -> float:
    """Returns the number of a cell, from 0 to inf. Raises UserError if it holds something else."""
    try:
        number = parse_number(row[name], endless=True)
    except ValueError:
        raise UserError(f"{where}{name} must be a number, got {shown(row[name])}") from None
    if number < 0:
        raise UserError(f"{where}{name} must be a number from 0, got {number:g}")
    return number
