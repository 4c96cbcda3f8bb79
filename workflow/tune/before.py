"""What earlier calls of `choose` wrote: a row for which a later call chooses nothing keeps its settings and trials."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow import merging
from workflow.common.files import read_csv
from workflow.tune import price, trials
from workflow.tune.trials import Result


@dataclass(frozen=True)
class Before:
    """The files of `choose` as they are, each empty where there is none.

    Attributes:
        entries: of the tuned preset, by row; not of a row that it only keeps apart from its method.
        results: of trials.csv.
        costs: of costs.csv.
    """

    entries: dict[str, Any]
    results: list[Result]
    costs: list[dict[str, str]]

    @classmethod
    def read(cls, tuned: Path, out: Path) -> Before:
        """Returns what stands in the tuned preset and in the folder of trials and costs.

        Raises UserError for a damaged file.
        """
        content = merging.mapping(tuned) if tuned.exists() else {}
        costs = out / "costs.csv"
        return cls(
            {name: entry for kind in ("methods", "runs") for name, entry in (content.get(kind) or {}).items()
             if "chosen_by" in entry},
            trials.read(out / "trials.csv") if (out / "trials.csv").exists() else [],
            read_csv(costs, price.COLUMNS, "python -m workflow.tune choose") if costs.exists() else [],
        )

    def staying(self, results: Sequence[Result], chosen: Collection[str]) -> set[str]:
        """Returns the rows whose trials stay: those that `results` has none of, and of what it has too few to choose.

        A tuned row would otherwise have settings that the trials beside it did not choose.
        """
        named, held = {one.run for one in results}, {one.run for one in self.results}
        return {name for name in held if name not in named or (name in self.entries and name not in chosen)}
