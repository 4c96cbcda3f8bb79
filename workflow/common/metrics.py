"""The metrics of scores.csv: their order, which way is better, how far they may move, and how they are printed."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A column of the tables and a value of scores.csv's column `metric`.

    Attributes:
        label: the printed name; `ε` stands for epsilon.
        higher_is_better: False where a rise is a regression.
        tolerance: how far a value may move unnoticed: "0.02" absolute, or "5%" of the reference value.
        decimals, published_decimals: of a printed value measured here, and of the paper's.
        arrow: whether tables mark which way is better; what a run spent is neither good nor bad by itself.
        regresses: False for a value that belongs to the machine, not to the method.
        low, high: smallest and largest value that can be; an FID may fall below 0 by rounding.
        network: which network scores it for all runs, trained once on a data set's real images; empty for none.
    """

    name: str
    label: str
    higher_is_better: bool
    tolerance: str
    decimals: int
    published_decimals: int = 2
    arrow: bool = True
    regresses: bool = True
    low: float = 0.0
    high: float = 1.0
    network: str = ""


FEATURES = "feature network"
# Default tolerances leave room for another processor's rounding, not for another result.
METRICS = {
    metric.name: metric
    for metric in (
        Metric("is", "IS", True, "5%", 2, high=1e4, network=FEATURES),
        Metric("fid_inception", "FID (Inception)", False, "5%", 2, low=-0.01, high=1e9),
        Metric("fid_classifier", "FID (classifier)", False, "5%", 2, low=-0.01, high=1e9, network=FEATURES),
        Metric("precision", "precision", True, "0.03", 3, network=FEATURES),
        Metric("recall", "recall", True, "0.03", 3, network=FEATURES),
        Metric("g2r_mlp", "gen2real MLP", True, "0.02", 3),
        Metric("g2r_cnn", "gen2real CNN", True, "0.02", 3),
        Metric("r2g_mlp", "real2gen MLP", True, "0.02", 3, network="real2gen MLP"),
        Metric("r2g_cnn", "real2gen CNN", True, "0.02", 3, network="real2gen CNN"),
        Metric("distinct_fraction", "distinct images", True, "0.01", 3),
        Metric("eps_published", "ε published", False, "0.001", 2, arrow=False, high=math.inf),
        Metric("eps_sound", "ε sound", False, "0.001", 2, arrow=False, high=math.inf),
        Metric(
            "train_seconds", "training (s)", False, "25%", 0,
            published_decimals=0, arrow=False, regresses=False, high=1e9,
        ),
        # Of the planned ones; only of a run that ended short.
        Metric("steps_share", "share of steps", True, "0.01", 3, arrow=False, regresses=False),
        # In no file of before: last, so that their order stays.
        Metric("fwd", "FWD", False, "5%", 3, low=-0.01, high=1e9),
        Metric("g2r_cnn_best_on_test", "gen2real CNN, best epoch on test", True, "0.02", 3),
    )
}
ORDER = tuple(METRICS)

# What tables call the row of a run that has a `steps_share`, and say of it.
ENDED_SHORT = "ended short"


# What stands under a table with such a column.
BEST_ON_TEST = "g2r_cnn_best_on_test"
BEST_ON_TEST_NOTE = (
    "gen2real CNN, best epoch on test: the highest accuracy on the test split after any epoch, as the authors of"
    " DataLens and G-PATE report theirs. It picks on the images that it is scored on, so it is too high, and compares"
    " with no other column."
)


def ended_short_note(share: float) -> str:
    """Returns the sentence under a table with such rows, of which the shortest did `share` of its steps."""
    return (
        f"{ENDED_SHORT.capitalize()}: killed processes had spent what was left of the run's privacy budget, so it"
        f" stopped before its last planned step, at {share:.1%} of them or more. It spent no more than its budget;"
        " another run, in a folder of its own, would tell what all steps give."
    )
