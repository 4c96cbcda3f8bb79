"""`python -m workflow.tune choose`: the best settings that were tried go into the preset, with what choosing cost.

Of each row that has had its time, the trial with the highest mean score over all data sets and budgets of the preset's
`tuning`, less the `time_price` there for each doubling of its time, of those that have a score on each. Equal ones: the
earlier. Writes workflow/config/tuned/PRESET.yaml, which the preset reads, and into results/reference/tuning/PRESET/ all
trials of all machines and costs.csv.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from workflow import merging
from workflow.common.chosen_on import HELD_OUT, was_chosen
from workflow.common.errors import UserError
from workflow.common.files import write_csv, write_text
from workflow.grid import Config
from workflow.tune import price, rows, trials
from workflow.tune.rows import Row
from workflow.tune.search import has_time
from workflow.tune.trials import SCORED, Result

HEAD = """\
# Written by `python -m workflow.tune choose`, from {trials}. Not by hand: see docs/tuning.md.
"""
REFERENCE = Path("results/reference/tuning")


def epilog(argv: Sequence[str]) -> str:
    """Returns what `--help` says below the options."""
    return __doc__ or ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("--preset", default="quick", help="whose rows were tried (default quick)")
    parser.add_argument("--trials", type=Path, nargs="+", required=True, help="trials.csv of each machine")
    parser.add_argument("--data", type=Path, help="folder of the data sets (default beside the first trials.csv)")
    parser.add_argument("--tuned", type=Path, help="file to write (default workflow/config/tuned/PRESET.yaml)")
    parser.add_argument("--out", type=Path, help=f"folder for trials and costs (default {REFERENCE}/PRESET)")


def best(row: Row, results: Sequence[Result], time_price: float) -> Result | None:
    """Returns a result of the best trial of a row on all of its cells; None where no trial has a score on each."""
    found: dict[int, dict[Any, Result]] = {}
    for one in results:
        if one.run == row.run.name and one.score is not None and one.cell in row.cells:
            found.setdefault(one.trial, {})[one.cell] = one
    worth = {
        trial: _worth(scored.values(), time_price)
        for trial, scored in found.items() if scored.keys() >= set(row.cells)
    }  # fmt: skip
    if not worth:
        return None
    winner = min(worth, key=lambda trial: (-worth[trial], trial))
    return next(one for one in results if (one.run, one.trial, one.outcome) == (row.run.name, winner, SCORED))


def _worth(scored: Collection[Result], time_price: float) -> float:
    """Returns a trial's mean score less the price of its time: of its shortest run, as others may hold warm starts."""
    shortest = min(one.seconds for one in scored)
    return fmean(one.score for one in scored) - time_price * math.log2(max(shortest, 1.0))


def unsettled(config: Config, row: Row, results: Sequence[Result]) -> str:
    """Returns why nothing is chosen for a row yet: one that was searched for less time would not be tuned alike."""
    own = [one for one in results if one.run == row.run.name]
    if has_time(own, len(row.cells), 60 * config.tuning["core_minutes"]):
        spent = f"{sum(one.seconds for one in own) / 60:.1f} of {config.tuning['core_minutes']:g}"
        return f"the search of {row.run.name} has taken {spent} minutes of a core, and another trial fits"
    found = best(row, own, config.tuning["time_price"])
    return "" if found else f"no trial of {row.run.name} has a score everywhere"


def chosen(config: Config, row: Row, results: Sequence[Result]) -> dict[str, Any]:
    """Returns the entry in the tuned preset of a row that is settled: its settings, and which trials chose them."""
    winner = best(row, results, config.tuning["time_price"])
    own = [one for one in results if one.run == row.run.name]
    return {
        "chosen_on": list(config.tuning["datasets"]),
        "chosen_by": {
            "trials": len({one.trial for one in own}),
            "core_minutes": round(sum(one.seconds for one in own) / 60, 1),
            "commit": " and ".join(sorted({one.commit for one in own})),
        },
        **_note(row),
        **winner.settings,
    }


def _note(row: Row) -> dict[str, str]:
    """Returns the note on settings that no trial changes and on the first trial, where there is more to say of them.

    That they were chosen on held-out images, too, is what the row says already.
    """
    places = row.run.chosen_on
    held_out = all(place.endswith(HELD_OUT) for place in places)
    before = [*([] if held_out else [was_chosen(places)]), row.run.chosen_note]
    if not any(before):
        return {}
    said = "; ".join(filter(None, before)).removesuffix(".")
    return {"chosen_note": f"of the first trial, and of what no trial changes: {said}."}


def tuned(config: Config, entries: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of the tuned preset: methods' entries apart from those of rows with a name of their own."""
    found: dict[str, Any] = {}
    for name, entry in entries.items():
        found.setdefault("methods" if name == config.runs[name].method else "runs", {})[name] = entry
    return found


def read(paths: Iterable[Path]) -> list[Result]:
    """Returns the results of several files. Raises UserError where they have several seeds or contradict each other."""
    paths = list(paths)
    named = ", ".join(map(str, paths))
    results = trials.merged([trials.read(path) for path in paths], named)
    if len(seeds := sorted({one.seed for one in results})) > 1:
        raise UserError(f"{named}: trials of several seeds, {', '.join(map(str, seeds))}; choose among those of one")
    return results


def run(arguments: argparse.Namespace) -> None:
    """Writes the tuned preset, all trials, and costs.csv.

    Raises UserError for a damaged file, results that contradict each other, or a row that the preset does not tune.
    """
    config = rows.load(arguments.preset)
    results = read(arguments.trials)
    tried = rows.rows(config, dict.fromkeys(one.run for one in results))
    entries = {}
    for row in tried:
        if why := unsettled(config, row, results):
            print(f"notice: {why}; its settings stay as they are", file=sys.stderr)
        else:
            entries[row.run.name] = chosen(config, row, results)
    if not entries:
        raise UserError("no row has had its time and a score on every data set and budget; let the search go on")
    costs = price.of(config, results, arguments.data or arguments.trials[0].parent / "data")
    out = arguments.out or REFERENCE / arguments.preset
    path = arguments.tuned or merging.FOLDER / merging.TUNED / f"{arguments.preset}.yaml"
    trials.write(out / "trials.csv", results)
    write_csv(out / "costs.csv", price.COLUMNS, costs)
    text = yaml.safe_dump(tuned(config, entries), sort_keys=False, allow_unicode=True, width=110)
    write_text(path, HEAD.format(trials=out / "trials.csv") + text)
    for name, entry in entries.items():
        print(f"{name}: the best of {entry['chosen_by']['trials']} trials in {entry['chosen_by']['core_minutes']} min")
