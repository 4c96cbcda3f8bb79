"""Which runs of a comparison are one and the same on both sides: equal in all digits, the time they took too.

A training takes another time whenever it is made again, even where all that it computes comes out equal. So a run that
is as before in its time and in all its scores was not made again: a copy of it proves nothing further.
"""

from __future__ import annotations

from collections.abc import Mapping

from evaluation.comparison.changes import Row, Run
from evaluation.scores import format_value
from workflow.common.metrics import METRICS

TIME = "train_seconds"


def told(old: Mapping[Row, float], new: Mapping[Row, float]) -> list[str]:
    """Returns in words how many of the runs that both sides have are the same ones, if any; the rows are of seeds."""
    shared: dict[Run, dict[str, bool]] = {}
    for row in old.keys() & new.keys():
        shared.setdefault(row.run, {})[row.metric] = format_value(old[row]) == format_value(new[row])
    trained = [equal for equal in shared.values() if TIME in equal]
    same = sum(all(equal.values()) and any(METRICS[name].arrow for name in equal) for equal in trained)
    what = f"{same} of {len(trained)} runs that both have are equal in all digits, the time they took too"
    return [f"{what}: the same runs, which are no further evidence"] if same else []
