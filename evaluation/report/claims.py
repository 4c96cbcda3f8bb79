"""What a run's epsilon is worth, in the few words that a figure has room for: nothing unproved stands unmarked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from evaluation.standings import exceeds
from workflow.common.contracts import CLAIMED, RunFolder, format_epsilon
from workflow.common.files import read_object

MARK = "▲"


@dataclass(frozen=True)
class Claim:
    """An epsilon in words; `marked` where it is not within its budget by a sound count. `bound`: the sound epsilon."""

    words: str
    marked: bool = False
    bound: float = 0.0


def of_folder(folder: RunFolder) -> Claim:
    """Returns the claim of a run, from its run.json. Raises UserError for a file that cannot be read."""
    path = Path(folder.path, "run.json")
    record = read_object(path, "a run's record") if path.is_file() else {}
    if record.get("accounting") == CLAIMED:
        # Whatever else its maker wrote there: no count of the suite has seen the run.
        return claim(folder.epsilon, None, None)
    return claim(folder.epsilon, _number(record.get("eps_published")), _number(record.get("eps_sound")))


def claim(epsilon: float, counted: float | None, sound: float | None) -> Claim:
    """Returns what to say of a budget, what its authors' count gives and what the sound one does; None: not recorded.

    Bounds are rounded up.
    """
    if math.isinf(epsilon):
        return Claim("no privacy")
    budget = format_epsilon(epsilon)
    if sound is None or math.isinf(sound):
        return Claim(f"{MARK} ε = {budget} claimed, no sound ε known", True, math.inf)
    if not exceeds(sound, epsilon):
        return Claim(f"ε = {budget}, sound", False, sound)
    told = budget if counted is None or not exceeds(counted, epsilon) else _up(counted)
    return Claim(f"{MARK} ε = {told} as its authors count,\nsound count: ε ≤ {_up(sound)}", True, sound)


def worst(claims: list[Claim]) -> Claim:
    """Returns the claim that holds for all of several runs."""
    return max(claims, key=lambda one: (one.marked, one.bound))


def _number(value: object) -> float | None:
    if value == "inf":
        return math.inf
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _up(value: float) -> str:
    if math.isinf(value):
        return "∞"
    return f"{math.ceil(value * 10 - 1e-6) / 10:.1f}" if value < 100 else f"{math.ceil(value - 1e-6)}"
