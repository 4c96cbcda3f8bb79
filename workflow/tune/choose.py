"""`python -m workflow.tune choose`: the best settings that were tried go into the preset, with what choosing cost.

Of each row that has had its time, the trial with the highest mean score over the data sets and budgets of the preset's
`tuning`, but those where the first trial was near a guess (`least_score` there), less the `time_price` for each
doubling of its time, of those that have a score on each. Equal ones, and where all guess: the first. Trials that began
after the time was up do not count, nor do those of a row whose first one had other settings than the preset has before
the search, or results on data sets and budgets that a row is not tried on. Writes workflow/config/tuned/PRESET.yaml,
which the preset reads, and into results/reference/tuning/PRESET/ all trials of all machines that count there, and
costs.csv. Rows that are in none of the files keep what these hold of them, as do those whose trials do not count, and
tuned ones that have not had their time anew yet.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from methods.core import registry
from workflow import merging
from workflow.common.chosen_on import HELD_OUT, was_chosen
from workflow.common.errors import UserError
from workflow.common.files import write_csv, write_text
from workflow.grid import Config, Run
from workflow.tune import price, rows, rule, trials
from workflow.tune.before import Before
from workflow.tune.rows import Row
from workflow.tune.trials import Cell, Result, merged

HEAD = """\
# Written by `python -m workflow.tune choose`, from {trials}. Not by hand: see docs/tuning.md.
"""
REFERENCE = Path("results/reference/tuning")


def epilog(argv: Sequence[str]) -> str:
    """Returns what `--help` says below the options."""
    return __doc__ or ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    rows.add_preset(parser, "whose rows were tried")
    parser.add_argument("--trials", type=Path, nargs="+", required=True, help="trials.csv of each machine")
    parser.add_argument("--data", type=Path, help="folder of the data sets (default beside the first trials.csv)")
    parser.add_argument("--tuned", type=Path, help="file to write (default workflow/config/tuned/PRESET.yaml)")
    parser.add_argument("--out", type=Path, help=f"folder for trials and costs (default {REFERENCE}/PRESET)")


def best(row: Row, results: Sequence[Result], time_price: float) -> Result | None:
    """Returns a result of the best trial of a row on all of its cells; None where no trial has a score on each.

    The first one where all of them guess: there chance would choose.
    """
    whole, cells = _whole(row, results), row.judged(results)
    if not whole:
        return None
    worth = {trial: _worth(scored, cells, time_price) for trial, scored in whole.items()}
    winner = min(whole) if _guess(row, results) else min(worth, key=lambda trial: (-worth[trial], trial))
    return whole[winner][cells[0]]


def _whole(row: Row, results: Sequence[Result]) -> dict[int, dict[Cell, Result]]:
    """Returns the results with a score, of each trial of a row that has one wherever trials are judged."""
    found: dict[int, dict[Cell, Result]] = {}
    for one in row.counted(results):
        if one.score is not None:
            found.setdefault(one.trial, {})[one.cell] = one
    return {trial: scored for trial, scored in found.items() if scored.keys() >= set(row.judged(results))}


def _guess(row: Row, results: Sequence[Result]) -> bool:
    """Returns whether no trial of a row is anywhere further from a guess than the first one has to be to count."""
    whole = _whole(row, results).values()
    return all(scored[cell].score < row.least_score for scored in whole for cell in row.judged(results))


def _worth(scored: Mapping[Cell, Result], cells: Iterable[Cell], time_price: float) -> float:
    """Returns a trial's mean score less the price of its time: of its shortest run, as others may hold warm starts."""
    shortest = min(one.preset_seconds for one in scored.values())
    return fmean(scored[cell].score for cell in cells) - time_price * math.log2(max(shortest, 1.0))


def unsettled(config: Config, row: Row, parts: Sequence[Sequence[Result]]) -> str:
    """Returns why nothing is chosen for a row yet: one that was searched for less time would not be tuned alike.

    Args:
        parts: the results of each file. Machines that share a row by cells end each when its share of the time is up.
    """
    name, budget = row.run.name, 60 * config.tuning["core_minutes"]
    own = row.counted(merged(parts))
    over = _is_over(row, [own], budget) or _is_over(row, parts, budget)
    if not over and has_time(row, own, budget):
        spent = f"{rule.spent(own) / 60:.1f} of {config.tuning['core_minutes']:g}"
        return f"the search of {name} has taken {spent} minutes of a core, and another trial fits"
    if best(row, rule.within(own, budget), config.tuning["time_price"]) is None:
        return f"no trial of {name} has a score everywhere"
    if all(one.trial for one in own):
        return f"trial 0 of {name}, the settings before the search, has no results to be compared with"
    if any(one.trial == 0 and one.score is None for one in own):
        return f"trial 0 of {name}, the settings before the search, took too long to be compared with"
    open_ = rule.unfinished(own, row.judged(own))
    return "" if over else f"trial {max(one.trial for one in own) if open_ is None else open_} of {name} has not ended"


def outdated(row: Row, results: Iterable[Result]) -> str:
    """Returns why a row's trials are none of the preset as it is, so that the best of them may break its limits."""
    is_so = rule.is_of_another_preset(row.counted(results), row.before)
    return f"trial 0 of {row.run.name} had other settings than the preset has before the search" if is_so else ""


def has_time(row: Row, results: Sequence[Result], budget: float) -> bool:
    """Returns whether a search of a row, or of a part of its cells, would begin another trial in so many seconds."""
    fits = rule.has_time(results, len(row.judged(results)), budget)
    last = max(results, key=lambda one: one.trial, default=None)
    return fits and (last is None or not row.is_exhausted(last.trial + 1, last.seed))


def _is_over(row: Row, parts: Iterable[Sequence[Result]], budget: float) -> bool:
    """Returns whether the searches that share a row by cells have all ended, and were on all of its cells."""
    shared = [_shared(row, part) for part in parts if row.counted(part)]
    going = (
        has_time(part, own, budget * len(part.cells) / len(row.cells))
        or rule.unfinished(own, part.judged(own)) is not None
        for part, own in shared
    )
    return not any(going) and {cell for part, _ in shared for cell in part.cells} == set(row.cells)


def _shared(row: Row, results: Iterable[Result]) -> tuple[Row, list[Result]]:
    """Returns a row on those of its cells that a search was on, and the results of it that count there."""
    found = {one.cell for one in results if one.run == row.run.name}
    part = replace(row, cells=tuple(cell for cell in row.cells if cell in found))
    return part, part.counted(results)


def chosen(config: Config, row: Row, results: Sequence[Result]) -> dict[str, Any]:
    """Returns the entry in the tuned preset of a row that is settled: its settings, and which trials chose them."""
    own = _own(config, row, results)
    winner = best(row, own, config.tuning["time_price"])
    return {
        "chosen_on": list(config.tuning["datasets"]),
        "chosen_by": {
            "trials": len({one.trial for one in own}),
            "core_minutes": round(rule.spent(own) / 60, 1),
            "commit": " and ".join(sorted({one.commit for one in own})),
        },
        **_note(row, guess=_guess(row, own)),
        **winner.settings,
    }


def _own(config: Config, row: Row, results: Sequence[Result]) -> list[Result]:
    """Returns the results that a row's settings are chosen by."""
    return rule.within(row.counted(results), 60 * config.tuning["core_minutes"])


def _note(row: Row, *, guess: bool) -> dict[str, str]:
    """Returns the note on settings that no trial changes and on the first trial, where there is more to say of them.

    That they were chosen on held-out images, too, is what the row says already; not that all trials were guesses.
    """
    places = row.run.chosen_on
    held_out = all(place.endswith(HELD_OUT) for place in places)
    before = [*([] if held_out else [was_chosen(places)]), row.run.chosen_note]
    said = "; ".join(filter(None, before)).removesuffix(".")
    # Not that the settings are as they were: a preset that extends this one may change them, and says this note too.
    mark = f"no trial with every score had {row.least_score:g} anywhere"
    notes = [f"{mark}, so all guess, and the search changed nothing"] * guess
    notes += [f"of the first trial, and of what no trial changes: {said}"] * bool(said)
    return {"chosen_note": f"{'; '.join(notes)}."} if notes else {}


def tuned(config: Config, entries: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of the tuned preset: methods' entries apart from those of rows with a name of their own.

    An entry of a row that the preset has no more is left out. What a method is tuned to goes to its ablations alone: in
    rows with settings of their own, each setting that they would take of it stands as it was.
    """
    found: dict[str, Any] = {}
    for name, entry in entries.items():
        if name in config.runs:
            found.setdefault("methods" if name == config.runs[name].method else "runs", {})[name] = entry
    for run in config.runs.values():
        base = found.get("methods", {}).get(run.method)
        if base and run.own_settings and run.name != run.method and (kept := _kept(config, run, base)):
            found.setdefault("runs", {})[run.name] = kept | found.get("runs", {}).get(run.name, {})
    return found


def _kept(config: Config, run: Run, base: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a run's settings before the search, of those that its method is tuned to and it says nothing of.

    They stand above what the method says per data set, which is said again where it differs.
    """
    said = merging.shipped_content(config.preset)["runs"][run.name] or {}
    before = {name: registry.hyper(run.method, hyper) for name, hyper in run.hyper.items()}
    first = before[config.tuning["datasets"][0]]
    names = [name for name in base if hasattr(first, name) and name not in said]
    kept = {name: getattr(first, name) for name in names if getattr(first, name) != base[name]}
    elsewhere = {
        dataset: found for dataset, settings in before.items()
        if (found := {name: getattr(settings, name) for name in kept if getattr(settings, name) != kept[name]})
    }  # fmt: skip
    return {**kept, "per_dataset": elsewhere} if elsewhere else kept


def read(paths: Iterable[Path]) -> list[list[Result]]:
    """Returns the results of each file. Raises UserError where they have several seeds or contradict each other."""
    paths = list(paths)
    named = ", ".join(map(str, paths))
    parts = [trials.read(path) for path in paths]
    if len(seeds := sorted({one.seed for one in merged(parts, named)})) > 1:
        raise UserError(f"{named}: trials of several seeds, {', '.join(map(str, seeds))}; choose among those of one")
    return parts


def run(arguments: argparse.Namespace) -> None:
    """Writes the tuned preset, all trials, and costs.csv.

    Raises UserError for a damaged file, results that contradict each other, or a row that the preset does not tune.
    """
    config = rows.load(arguments.preset)
    parts = read(arguments.trials)
    results = merged(parts)
    out = arguments.out or REFERENCE / arguments.preset
    path = arguments.tuned or merging.FOLDER / merging.TUNED / f"{arguments.preset}.yaml"
    before = Before.read(path, out)
    entries, guesses = {}, set()
    for row in rows.rows(config, dict.fromkeys(one.run for one in results)):
        counted = row.counted(results)
        if gone := [one for one in results if one.run == row.run.name and one not in counted]:
            print(f"notice: {len(gone)} results of {row.run.name} are on data sets or budgets that it is not tried on;"
                  " they are left out", file=sys.stderr)  # fmt: skip
            results = [one for one in results if one not in gone]
        if old := outdated(row, results):
            results = [one for one in results if one.run != row.run.name]
        if why := old or unsettled(config, row, parts):
            print(f"notice: {why}; its settings stay as they are", file=sys.stderr)
        else:
            entries[row.run.name] = chosen(config, row, results)
            guesses |= {row.run.name} if _guess(row, _own(config, row, results)) else set()
    if not entries:
        raise UserError("no row has had its time and a score on every data set and budget; let the search go on")
    staying = before.staying(results, entries)
    results = [one for one in results if one.run not in staying]
    costs = price.of(config, results, arguments.data or arguments.trials[0].parent / "data")
    costs += [one for one in before.costs if one["run"] in staying]
    trials.write(out / "trials.csv", [*results, *(one for one in before.results if one.run in staying)])
    write_csv(out / "costs.csv", price.COLUMNS, sorted(costs, key=itemgetter("run", "dataset")))
    text = yaml.safe_dump(tuned(config, before.entries | entries), sort_keys=False, allow_unicode=True, width=110)
    write_text(path, HEAD.format(trials=out / "trials.csv") + text)
    for name, entry in entries.items():
        which = "its settings as they were, as all guess" if name in guesses else "the best"
        print(f"{name}: {which} of {entry['chosen_by']['trials']} trials in {entry['chosen_by']['core_minutes']} min")
