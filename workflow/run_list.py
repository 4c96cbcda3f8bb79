"""`python -m workflow.run_list --root results/P --grid JSON --runs FILE --plans FILE`: lists a configuration's runs.

The lists are read by commands that take all runs, as `@FILE`: their command lines stay short, however many runs there
are. So does this one's: the grid names each run, epsilon and seed once, not every combination.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from workflow.common.contracts import RunFolder, format_epsilon, parse_epsilon
from workflow.common.errors import UserError, command, short
from workflow.common.files import json_or_path, write_text
from workflow.common.options import Parser
from workflow.grid import Job


def compact(jobs: Iterable[Job]) -> dict[str, Any]:
    """Returns the grid of some jobs, in their order and ready for JSON.

    `sweeps` holds pairs of epsilons and seeds; `runs` holds, for each data set and run, its name `<data set>/<run>`,
    the number of its sweep, and whether it is trained, and so has a plan.
    """
    # Dictionaries as sets that keep their order.
    found: dict[tuple[str, str], tuple[dict[str, None], dict[int, None], bool]] = {}
    for job in jobs:
        epsilons, seeds, _ = found.setdefault((job.dataset, job.run), ({}, {}, not job.external))
        epsilons[format_epsilon(job.epsilon)] = seeds[job.seed] = None
    sweeps: dict[tuple[tuple[str, ...], tuple[int, ...]], int] = {}
    runs = []
    for (dataset, run), (epsilons, seeds, trained) in found.items():
        number = sweeps.setdefault((tuple(epsilons), tuple(seeds)), len(sweeps))
        runs.append([f"{dataset}/{run}", number, trained])
    return {"sweeps": [[list(epsilons), list(seeds)] for epsilons, seeds in sweeps], "runs": runs}


def folders(root: Path, grid: Mapping[str, Any]) -> Iterator[tuple[Path, bool]]:
    """Yields the folder of each run of a grid that `compact` made, and whether it has a plan.

    Raises UserError for anything else than such a grid.
    """
    try:
        for name, number, trained in grid["runs"]:
            dataset, run = name.split("/")
            epsilons, seeds = grid["sweeps"][number]
            for epsilon in map(parse_epsilon, epsilons):
                for seed in seeds:
                    folder = RunFolder(root, dataset, run, epsilon, seed).path
                    RunFolder.parse(folder)
                    yield folder, bool(trained)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise UserError(
            f'--grid is no grid: {short(str(dict(grid)))}; write {{"sweeps": [[["10"], [0]]], '
            '"runs": [["mnist/dpac", 0, true]]}'
        ) from None


@command
def main(argv: list[str] | None = None) -> int:
    """Writes the two lists."""
    parser = Parser(prog="python -m workflow.run_list", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--root", type=Path, required=True, help="results/<preset>")
    parser.add_argument("--grid", required=True, help="runs, epsilons and seeds: JSON in braces, or its file")
    parser.add_argument("--runs", type=Path, required=True, help="list of all run folders to write")
    parser.add_argument("--plans", type=Path, required=True, help="list of the plans of trained runs to write")
    options = parser.parse_args(argv)
    found = list(folders(options.root, json_or_path(options.grid, "--grid")))
    write_text(options.runs, "".join(f"{folder}\n" for folder, _ in found))
    write_text(options.plans, "".join(f"{folder}/plan.json\n" for folder, trained in found if trained))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
