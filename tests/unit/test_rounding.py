"""Upper bounds are shown rounded up, wherever a person reads one."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from methods.core.runs import finished, spent
from workflow.common.live import Live
from workflow.common.rounding import up

ROOT = Path(__file__).resolve().parents[2]
# A cost in the braces of a message.
_NEAREST = re.compile(r"\{(?:cost|shown|told|(?:self\.)?epsilon|plan\.costs\[[^]]*\]|row\[f'eps_[^]]*\]):\.?\d*[fg]\}")
# Where an epsilon is a name that was given.
_NAMES = {"workflow/grid_values.py", "workflow/common/contracts.py"}


@pytest.mark.parametrize(("value", "spec", "shown"), [
    (8.4881, ".4g", "8.489"), (8.48, ".4g", "8.48"), (9.9996, ".4g", "10"), (10.003, ".4g", "10.01"),
    (0.1 + 0.2, ".4g", "0.3"), (3e-5, ".3g", "3e-05"), (1.2341e-5, ".3g", "1.24e-05"), (1e4 + 7, ".4g", "1.001e+04"),
    (9.99981, ".4f", "9.9999"), (9.99999, ".4f", "10.0000"), (10.0, ".4f", "10.0000"), (1234567.0, "g", "1.23457e+06"),
    (0.0, ".4g", "0"), (math.inf, ".4g", "inf"), (5e-324, ".4g", "4.941e-324"),
])  # fmt: skip
def test_a_bound_is_rounded_up_and_a_whole_one_stays(value: float, spec: str, shown: str) -> None:
    assert up(value, spec) == shown


@pytest.mark.parametrize("told", [
    spent.total([{"epsilon": 8.4801, "delta": 1.2301e-5, "adjacency": ["replace_one"]}]),
    str(finished.Spent({"sound": 8.4801}, 1.2301e-5)),
    Live(1, 2, epsilon=8.4801).line(10.0, "sound"),
], ids=["releases", "runs", "a run in progress"])  # fmt: skip
def test_what_is_told_of_a_cost_is_no_less_than_it(told: str) -> None:
    assert all(float(number) >= 8.4801 for number in re.findall(r"epsilon (8[\d.]+)", told)) and "epsilon 8" in told
    assert all(float(number) >= 1.2301e-5 for number in re.findall(r"delta (\S+e-05)", told))


def test_no_message_shows_a_cost_rounded_to_the_nearest_number() -> None:
    files = [path for folder in ("methods", "workflow", "dpbench") for path in (ROOT / folder).rglob("*.py")]
    found = {path.relative_to(ROOT).as_posix(): _NEAREST.findall(path.read_text(encoding="utf-8")) for path in files}
    assert {name: shown for name, shown in found.items() if shown and name not in _NAMES} == {}
