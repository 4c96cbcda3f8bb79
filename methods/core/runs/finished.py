"""A finished run is final: its folder is trained again only by an explicit word, and what it spent stays on record.

A run is finished when its ledger is published and no run is in progress. That is said by the ledger and not by
run.json, which Snakemake deletes before it makes it anew.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods.core.accounting.calibration import COUNTS, epsilon
from methods.core.privacy import ledger_lines
from methods.core.release import Release
from methods.core.runs import outputs
from methods.core.runs.folder import LEDGER, RECORD, end, kept_ledgers
from methods.core.runs.plan import Plan
from workflow.common.errors import UserError
from workflow.common.files import read_object, sync_folder
from workflow.common.readers.fields import fields, is_object
from workflow.common.readers.guard import reason
from workflow.common.rounding import up

_LOST = "restore it, or use another folder"


@dataclass(frozen=True)
class Spent:
    """What runs have spent: epsilon at `delta` by each count of COUNTS."""

    costs: Mapping[str, float]
    delta: float

    def __add__(self, other: Spent) -> Spent:
        """Returns the sum by basic composition: epsilons add up, and deltas too."""
        costs = {count: cost + other.costs[count] for count, cost in self.costs.items()}
        return Spent(costs, self.delta + other.delta)

    def __str__(self) -> str:
        costs = " and ".join(f"{up(cost)} ({count})" for count, cost in self.costs.items())
        return f"epsilon {costs} at delta {up(self.delta, 'g')}"


def begin(plan: Plan, folder: Path, again: bool, secret_noise: bool = False) -> None:
    """Readies a folder, in which no run is in progress, for a new ledger; a folder never trained is left alone.

    A finished run's ledger gets the next free name ledger-N.jsonl, after one line on stderr says what it spent. Raises
    UserError without `again` for a finished run.
    """
    # A first line alone, and what a kill left of a run before that.
    outputs.sweep(folder)
    outputs.put_back_ledger(folder)
    earlier = _ledgers(folder)
    check_record(folder)
    if not earlier:
        outputs.forget(folder)
        return
    before = _total([spent(path) for path in earlier])
    cost = f"charges the same records once more, {before + _of(plan)} in all by basic composition"
    if not again:
        raise UserError(
            f"{folder} is a finished run that spent {before}; training it again {cost}: use another folder, or say"
            " --again to python -m methods train"
        )
    # Before anything is done about it.
    print(f"notice: {folder} is a finished run that spent {before}; --again {cost}; {_noise(secret_noise)}",
          file=sys.stderr)  # fmt: skip
    outputs.forget(folder)
    _keep(folder)


def earlier_runs(folder: Path) -> dict[str, Any]:
    """Returns what run.json says of the runs before the one in progress; nothing if there was none.

    Their epsilons stand in the order of the runs, an infinite one as "inf".
    """
    kept = kept_ledgers(folder)
    if not kept:
        return {}
    each = [spent(kept[number]).costs for number in sorted(kept)]
    costs = {f"earlier_eps_{count}": [_json_number(one[count]) for one in each] for count in COUNTS}
    return {"earlier_runs": len(kept), **costs}


def spent(path: Path, reserved: bool = True) -> Spent:
    """Returns what a run's ledger spent, as the ledger itself counts after a restart of the machine.

    Without `reserved`, uses that were only reserved ahead do not count.
    Raises UserError for a file that is not a ledger, or whose cost is not known.
    """
    try:
        lines = ledger_lines.read(path.read_bytes())
        if lines.broken is not None:
            raise UserError(f"it was changed: line {lines.broken} does not follow from those before it")
        if not lines.records or lines.records[0] is None:
            raise ValueError("it is empty, or its first line cannot be read")
        header, *records = lines.records
        records = [one for one in records if reserved or one is None or "reserve" not in one]
        fields(header, {"plan": lambda value: isinstance(value, list), "budget": is_object})
        releases = {fields["name"]: Release.from_dict(fields) for fields in header["plan"]}
        delta, uses = header["budget"]["delta"], ledger_lines.uses(releases, records, boot=None)
        used = [release.used(min(uses[name], release.max_uses)) for name, release in releases.items()]
        return Spent({count: epsilon(used, delta, count) for count in COUNTS}, delta)
    except Exception as error:
        raise UserError(f"cannot tell what {path} spent ({reason(error)}); use another folder") from None


def _keep(folder: Path) -> None:
    if (folder / LEDGER).exists():
        # One step, so that the ledger has either name; on disk before there is a working ledger to be published.
        (folder / LEDGER).rename(folder / f"ledger-{max(kept_ledgers(folder), default=0) + 1}.jsonl")
        sync_folder(folder)
    # A run is complete exactly when its run.json is there.
    (folder / RECORD).unlink(missing_ok=True)


def check_record(folder: Path) -> None:
    """Raises UserError where a finished run's record tells of another cost than its ledger, or the ledger is gone."""
    if not (folder / RECORD).exists():
        return
    # After a kill in `_keep` it is the last of those that have their new names.
    ledgers = _ledgers(folder)
    record = read_object(folder / RECORD)
    earlier = record.get("earlier_runs", 0)
    if len(ledgers) <= (earlier if isinstance(earlier, int) else 0):
        raise UserError(f"{folder} holds the {RECORD} of a finished run without its {LEDGER}: {_LOST}")
    for count in COUNTS:
        before = record.get(f"earlier_eps_{count}")
        each = [*(before if isinstance(before, list) and len(before) == earlier else []), record.get(f"eps_{count}")]
        # The last ones, since nothing is told of those before a record had such fields.
        for path, told in zip(ledgers[-len(each) :], each, strict=False):
            _check_told(path, math.inf if told == "inf" else told, count)


def _check_told(ledger: Path, told: Any, count: str) -> None:
    """Raises UserError where a ledger shows less than a record of its run told, or was charged more."""
    if not isinstance(told, int | float):
        return
    if told > (shown := spent(ledger).costs[count]) * (1 + 1e-6):
        raise UserError(
            f"{ledger} shows epsilon {up(shown)} ({count}), {RECORD} beside it {up(told)}: it was cut or replaced;"
            f" {_LOST}"
        )
    # What was only reserved counts after a restart of the machine, and not before it.
    if told < (shown := spent(ledger, reserved=False).costs[count]) * (1 - 1e-6):
        raise UserError(
            f"{ledger.parent / RECORD} tells of epsilon {up(told)} ({count}), and {ledger.name} beside it shows"
            f" {up(shown)}: the record was changed. Remove it, and the same call puts back the one in"
            f" {end(ledger.parent)}, if that is kept; else restore it"
        )


def _ledgers(folder: Path) -> list[Path]:
    """Returns the ledgers of all finished runs in order; after a kill in `_keep` the last has its new name already."""
    published = [folder / LEDGER] if (folder / LEDGER).exists() else []
    kept = kept_ledgers(folder)
    return [*(kept[number] for number in sorted(kept)), *published]


def _of(plan: Plan) -> Spent:
    # Counted anew, since a plan's file may say anything.
    costs = {count: epsilon(plan.releases, plan.budget.delta, count) if plan.costs else math.inf for count in COUNTS}
    return Spent(costs, plan.budget.delta)


def _total(each: Sequence[Spent]) -> Spent:
    first, *rest = each
    return sum(rest, first)


def _noise(secret: bool) -> str:
    if secret:
        return "its noise is drawn anew"
    return "a reproducible run's noise repeats with plan, seed and records: if the queries changed, no such sum holds"


def _json_number(value: float) -> float | str:
    return "inf" if value == math.inf else value
