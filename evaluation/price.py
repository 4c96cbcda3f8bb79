"""What comparing methods on one data set spends: the sum over all runs, and what to do instead.

`python -m evaluation.price SCORES.csv` prints it alone; `python -m evaluation.rank` prints it below its tables.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from evaluation.scores import Score, measured
from evaluation.standings import exceeds
from workflow.common.errors import command
from workflow.common.files import read_json, sha256
from workflow.common.options import Parser

WHY = (
    "Each run reads the same records, so every method and every seed spends privacy, also those that are not used in "
    "the end. By the sound count and basic composition, which adds:"
)
# Adding or removing against replacing: docs/privacy.md, "Adjacency".
WHAT_IT_IS_WORTH = (
    "Where the images are sensitive, that sum is the price of choosing by this table, not the ε of the method chosen. "
    "It is no upper bound where counts differ: a run that protects against adding or removing a record counts up to "
    "double, at a larger δ, against replacing one. References without privacy have no ε at all. Where the images are "
    "public, it costs nobody anything."
)
PROTECTS_NOBODY = (
    "Whatever the sum, these runs protect nobody: the noise of a reproducible run follows from public numbers and the "
    "records. Nor does an ε cover the scores, which are computed from real images without noise."
)
INSTEAD = (
    "To choose for sensitive images: rank the methods on public images that look alike (about as many, as many "
    "classes, the same image size and colours; docs/your-own-images.md says how), then release once from the "
    "sensitive ones, with the method chosen. That costs the ε of that one release."
)


@dataclass(frozen=True)
class Spent:
    """What all private runs on one data set spent together, by the sound count.

    Attributes:
        epsilon: the sum over runs and seeds, inf where one has no finite bound.
        epsilon_over: the part of it spent by runs that exceed their own epsilon.
        uncounted: how many of `runs` have no sound epsilon recorded, and so no part in the sum.
    """

    runs: int
    epsilon: float
    epsilon_over: float
    uncounted: int


def spent(scores: Iterable[Score], dataset: str) -> Spent:
    """Returns the sum of the sound epsilons over all runs and seeds on a data set: basic composition."""
    runs: dict[tuple, Score | None] = {}
    for s in scores:
        if s.source == "measured" and s.dataset == dataset and math.isfinite(s.epsilon):
            key = (s.preset, s.method, s.epsilon, s.accounting, s.seed)
            runs[key] = s if s.metric == "eps_sound" else runs.get(key)
    counted = [s for s in runs.values() if s]
    over = [s.value for s in counted if exceeds(s.value, s.epsilon)]
    return Spent(len(runs), math.fsum(s.value for s in counted), math.fsum(over), len(runs) - len(counted))


def paragraphs(costs: Mapping[str, Spent], delta: float | None) -> list[str]:
    """Returns what comparing spent, a paragraph per data set and then what that means; none where nothing private ran.

    Args:
        costs: by data set.
        delta: of each run; None where it is not known.
    """
    sums = [_sum_of(name, cost, delta) for name, cost in costs.items() if cost.runs]
    return ["### What comparing spent", WHY, *sums, WHAT_IT_IS_WORTH, PROTECTS_NOBODY, INSTEAD] if sums else []


def delta_beside(path: Path) -> float | None:
    """Returns the delta of each run from provenance.json beside the scores; None if it is not of these scores."""
    beside = path.parent / "provenance.json"
    if not beside.is_file():
        return None
    record = read_json(beside)
    if not isinstance(record, dict) or record.get("scores_sha256") != sha256(path):
        return None
    settings = record.get("settings")
    delta = settings.get("delta") if isinstance(settings, dict) else None
    return float(delta) if isinstance(delta, int | float) and 0 < delta < 1 else None


def _sum_of(dataset: str, cost: Spent, delta: float | None) -> str:
    at = (
        f"at δ {cost.runs * delta:.2g} ({cost.runs} times {delta:g})"
        if delta
        else "at a δ of their number times one run's, which no provenance.json beside the scores says"
    )
    part = f", without {cost.uncounted} that have no recorded sound ε," if cost.uncounted else ""
    over = f" (of which {_shown(cost.epsilon_over)} by runs over their budget)" if cost.epsilon_over else ""
    runs = "this 1 run" if cost.runs == 1 else f"these {cost.runs} runs"
    return f"On {dataset} {runs}{part} spent ε {_shown(cost.epsilon)} in all{over}, {at}."


def _shown(epsilon: float) -> str:
    return "∞" if math.isinf(epsilon) else f"{epsilon:.1f}"


def add_arguments(parser: Parser) -> None:
    """Adds the options of the command."""
    parser.description = "Say what comparing the methods of a file spent."
    parser.add_argument("scores", type=Path, metavar="SCORES.csv", help="such as results/quick/scores.csv")


def run(options: argparse.Namespace) -> None:
    """Prints the sums and what they mean. Raises UserError for a file without measured scores."""
    path = options.scores
    scores = measured(path, "add up")
    costs = {name: spent(scores, name) for name in sorted({score.dataset for score in scores})}
    print("\n\n".join(paragraphs(costs, delta_beside(path))) or "nothing private ran: these scores spent no privacy")


@command
def main(argv: list[str] | None = None) -> None:
    """Runs `python -m evaluation.price`."""
    parser = Parser(prog="python -m evaluation.price")
    add_arguments(parser)
    run(parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())
