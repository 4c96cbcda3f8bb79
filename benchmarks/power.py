"""`python -m benchmarks.power`: what `evaluation.compare --seeds mean` sees of a run that has become worse.

Scores of several seeds are drawn anew, by normal laws with the means and spreads of a committed run, for both sides of
a comparison; on one side the accuracies of one run are then lowered. Counted is how many of them are reported.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from evaluation.comparison import changes, seeds
from evaluation.comparison.changes import Row, Run
from evaluation.comparison.tolerance import DEFAULT_TOLERANCES
from evaluation.scores import read_scores
from workflow.common.errors import UserError, command
from workflow.common.files import write_csv
from workflow.common.metrics import METRICS
from workflow.common.options import Parser, whole

ROOT = Path(__file__).resolve().parents[1]
SCORES = ROOT / "results/reference/gan_seeds/scores.csv"
OUT = ROOT / "benchmarks/results/power/power.csv"
ACCURACIES = ("g2r_mlp", "g2r_cnn", "r2g_mlp", "r2g_cnn")
SEEDS, FALLS = (3, 5), (0.0, 0.1, 0.4)
# Of the comparisons, those that report any regression at all, and by how many of the lowered accuracies they report.
COLUMNS = ("seeds", "fall", "comparisons", "any", *(f"of_four_{n}" for n in range(len(ACCURACIES) + 1)))
Laws = Mapping[Row, tuple[float, float]]


def laws(path: Path) -> dict[Row, tuple[float, float]]:
    """Returns mean and standard deviation over the seeds of each score that has several.

    Raises:
        UserError: the file cannot be read, or no score in it has two seeds.
    """
    values: dict[Row, list[float]] = {}
    for one in read_scores(path):
        run = Run("", one.dataset, one.method, one.epsilon, one.accounting, None, one.source)
        values.setdefault(Row(run, one.metric), []).append(one.value)
    found = {row: (statistics.fmean(v), statistics.stdev(v)) for row, v in values.items() if len(v) > 1}
    if not found:
        raise UserError(f"{path} has no score of two seeds or more; name one that has")
    return found


def reported(of: Laws, run: Run | None, fall: float, count: int, rng: np.random.Generator) -> list[Row]:
    """Returns what a comparison of two draws of `count` seeds reports as worse, `run` having lost a share `fall`."""
    old, new = ({row: _drawn(row, *law, count, rng) for row, law in of.items()} for _ in range(2))
    for row in new:
        if row.run == run and row.metric in ACCURACIES:
            new[row] = [value * (1 - fall) for value in new[row]]
    limits, _ = seeds.limits(old, new, DEFAULT_TOLERANCES, {})
    told = changes.compare(seeds.means(old), seeds.means(new), limits)
    return [change.row for change in told if change.kind == "regression"]


def _drawn(row: Row, mean: float, spread: float, count: int, rng: np.random.Generator) -> list[float]:
    known = METRICS[row.metric]
    return np.clip(rng.normal(mean, spread, count), known.low, known.high).tolist()


def measure(of: Laws, count: int, fall: float, draws: int, seed: int = 0) -> list[float]:
    """Returns a row of COLUMNS, of `draws` comparisons for each run of `of`."""
    rng = np.random.default_rng([seed, count, round(1000 * fall)])
    runs = [run for run in dict.fromkeys(row.run for row in of if row.metric in ACCURACIES) for _ in range(draws)]
    told = [reported(of, run, fall, count, rng) for run in runs]
    pairs = zip(runs, told, strict=True)
    hits = [sum(row.run == run and row.metric in ACCURACIES for row in rows) for run, rows in pairs]
    return [count, fall, len(told), sum(map(bool, told)), *(hits.count(n) for n in range(len(ACCURACIES) + 1))]


@command
def main(argv: list[str] | None = None) -> None:
    """Writes the table."""
    parser = Parser(prog="python -m benchmarks.power", description=__doc__)
    parser.add_argument("--scores", type=Path, default=SCORES, help="scores.csv of several seeds (gan_seeds')")
    parser.add_argument("--draws", type=whole("--draws"), default=10, help="comparisons for each run (default 10)")
    parser.add_argument("--out", type=Path, default=OUT, help="csv to write (default: the committed one)")
    options = parser.parse_args(argv)
    of = laws(options.scores)
    write_csv(options.out, COLUMNS, [measure(of, count, fall, options.draws) for count in SEEDS for fall in FALLS])


if __name__ == "__main__":
    raise SystemExit(main())
