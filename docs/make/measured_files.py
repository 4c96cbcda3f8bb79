"""Tables of a page that are made of a measured csv as it stands, not of scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docs.make.references import number, table
from evaluation.scores import Score
from workflow.common.errors import UserError, unknown
from workflow.common.files import read_csv

# Of a benchmark's csv, as benchmarks/ writes it.
COLUMNS = ("case", "at", "quantity", "value", "unit", "low", "high")


@dataclass(frozen=True)
class Timings:
    """Some of a benchmark's measurements: medians, with the lowest and highest of their repeats for ratios.

    `rows` say which `case` and `at` they are of, `columns` which `quantity`, in how many `digits`, `times` what.
    """

    path: Path
    head: str
    rows: Mapping[str, Mapping[str, Any]]
    columns: Mapping[str, Mapping[str, Any]]

    def markdown(self, paper: Iterable[Score]) -> str:
        """Returns the table's lines; `paper` has no part in it.

        Raises UserError for a file or column that is missing, and a case, size or quantity that no line has.
        """
        measured = read_csv(self.path, COLUMNS, "a command of benchmarks/")
        found = {(one["case"], one["at"], one["quantity"]): one for one in measured}
        for key, said in (("case", self.rows), ("at", self.rows), ("quantity", self.columns)):
            for entry in said.values():
                if str(entry[key]) not in (held := {one[key] for one in measured}):
                    raise unknown(f"{key} of a table", str(entry[key]), held, where=f"of {self.path.name}")
        rows = [
            [label, *(self._cell(found.get((row["case"], str(row["at"]), column["quantity"])), column)
                      for column in self.columns.values())]
            for label, row in self.rows.items()
        ]  # fmt: skip
        return table([self.head, *self.columns], rows)

    def _cell(self, measured: Mapping[str, str] | None, column: Mapping[str, Any]) -> str:
        if measured is None:
            return "-"
        names = ("value", "low", "high") if measured["unit"] == "x" else ("value",)
        value, *ends = (number(float(measured[name]) * column.get("times", 1), column["digits"]) for name in names)
        return f"{value} ({ends[0]} to {ends[1]})" if ends else value


@dataclass(frozen=True)
class Rows:
    """Every line of a csv, some of its columns: each one's `key`, and in how many `digits`, none for a text.

    A text is shown as it is, one that is `code` in backticks.
    """

    path: Path
    columns: Mapping[str, Mapping[str, Any]]

    def markdown(self, paper: Iterable[Score]) -> str:
        """Returns the table's lines; `paper` has no part in it.

        Raises UserError for a missing file or column, and a text where `digits` asks for a number.
        """
        columns = list(self.columns.values())
        lines = read_csv(self.path, [column["key"] for column in columns], "a command of benchmarks/")
        rows = [[_shown(line[column["key"]], column) for column in columns] for line in lines]
        return table(list(self.columns), rows)


@dataclass(frozen=True)
class TuningCosts:
    """What tuning each row would have cost in privacy, as `python -m workflow.tune choose` wrote it; no row before."""

    path: Path

    def markdown(self, paper: Iterable[Score]) -> str:
        """Returns the table's lines; `paper` has no part in it."""
        names = ("run", "dataset", "runs", "delta", "eps_sum", "eps_together")
        found = read_csv(self.path, names, "python -m workflow.tune choose") if self.path.exists() else []
        rows = [
            [f"`{one['run']}`", f"`{one['dataset']}`", one["runs"], f"{float(one['eps_sum']):.1f}",
             f"{float(one['eps_together']):.1f}", one["delta"]]
            for one in found
        ]  # fmt: skip
        return table(["row", "tuned on", "runs", "sum of their ε", "ε of all together", "at δ"], rows)


def _shown(text: str, column: Mapping[str, Any]) -> str:
    if (digits := column.get("digits")) is not None:
        try:
            return f"{float(text):,.{digits}f}"
        except ValueError:
            raise UserError(f"column {column['key']} holds {text!r}, no number; show it without digits") from None
    return f"`{text}`" if column.get("code") else text
