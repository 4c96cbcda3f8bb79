"""How far a score may move before `evaluation.compare` reports it: one tolerance a metric, an amount or a share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from workflow.common.errors import UserError, shown, unknown
from workflow.common.metrics import METRICS
from workflow.common.readers.numbers import parse_number


@dataclass(frozen=True)
class Tolerance:
    """How far a value may move: an absolute amount, or a share of the reference value."""

    amount: float
    relative: bool = False

    @classmethod
    def parse(cls, text: str) -> Tolerance:
        """Reads "0.02" (absolute) or "5%" (of the reference value). Raises UserError for anything else."""
        relative = text.endswith("%")
        try:
            amount = parse_number(text.removesuffix("%")) / (100 if relative else 1)
        except ValueError:
            amount = math.nan
        if not 0 <= amount < math.inf:
            raise UserError(f"a tolerance must be a number of at least 0, or a percentage such as 5%; got {text!r}")
        return cls(amount, relative)

    def of(self, value: float) -> float:
        """Returns the allowed move from a reference value, in the metric's unit."""
        # A share of infinity would allow every move.
        return self.amount * abs(value) if self.relative and math.isfinite(value) else self.amount

    def __str__(self) -> str:
        return f"{self.amount * 100:g}%" if self.relative else f"{self.amount:g}"


DEFAULT_TOLERANCES = {name: Tolerance.parse(metric.tolerance) for name, metric in METRICS.items()}


def setting(text: str) -> tuple[str, Tolerance]:
    """Reads "g2r_cnn=0.03" or "is=5%". Raises UserError for another form, metric or value."""
    metric, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--tolerance takes metric=value, such as g2r_cnn=0.03 or is=5%, got {shown(text)}")
    if metric not in METRICS:
        raise unknown("metric in --tolerance", metric, METRICS)
    return metric, Tolerance.parse(value)


def given(settings: Iterable[tuple[str, Tolerance]]) -> dict[str, Tolerance]:
    """Returns the tolerances of a command line by metric. Raises UserError for a metric given twice."""
    found: dict[str, Tolerance] = {}
    for metric, tolerance in settings:
        if metric in found:
            second = f"{metric}={tolerance}"
            raise UserError(f"--tolerance gives {metric} twice, the second time as {second!r}; remove one")
        found[metric] = tolerance
    return found
