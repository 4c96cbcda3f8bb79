"""What choosing settings would have cost in privacy, if the images that trials were trained on were private."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from methods.core.accounting.calibration import epsilon
from methods.core.release import Budget, PublicSpec
from methods.core.runs.plan import Plan
from workflow.common.errors import UserError
from workflow.common.files import read_object
from workflow.grid import Config
from workflow.tune.trials import REFUSED, Result

COLUMNS = ("run", "dataset", "runs", "delta", "eps_sum", "eps_together")


def of(config: Config, results: Sequence[Result], data: Path) -> list[dict[str, str]]:
    """Returns for each row and data set what the runs of its trials spent on the same records, by the sound count.

    eps_sum adds up what each run spent (basic composition, whose deltas add up as well); eps_together is the
    accountant's epsilon at one delta of all their releases. Trials without privacy are left out, and so are those that
    were refused: these read no records. One that was ended for its time counts whole.

    Args:
        data: the folder with a folder of each data set, which holds its card.json.

    Raises:
        UserError: a card is missing, or a plan cannot be made again.
    """
    found = []
    for name, dataset in dict.fromkeys((one.run, one.dataset) for one in results):
        plans = list(_plans(config, [one for one in results if (one.run, one.dataset) == (name, dataset)], data))
        if plans:
            print(f"counting what {len(plans)} runs of {name} on {dataset} spent", file=sys.stderr, flush=True)
            releases = tuple(release for plan in plans for release in plan.releases)
            found.append({
                "run": name,
                "dataset": dataset,
                "runs": str(len(plans)),
                "delta": f"{config.delta:g}",
                "eps_sum": f"{sum(plan.costs['sound'] for plan in plans):.6g}",
                "eps_together": f"{epsilon(releases, config.delta, 'sound'):.6g}",
            })  # fmt: skip
    return found


def _plans(config: Config, results: Sequence[Result], data: Path) -> Iterator[Plan]:
    for one in results:
        accounting = config.runs[one.run].accounting
        if accounting == "none" or one.outcome == REFUSED:
            continue
        card = data / one.dataset / "card.json"
        try:
            public = PublicSpec.from_card(read_object(card, "a data set card"))
        except UserError as error:
            raise UserError(f"{error}; give the folder of the trials' data sets by --data") from None
        budget = Budget(one.epsilon, config.delta, accounting)
        yield Plan.make(one.method, one.run, one.settings, public, budget, one.seed)
