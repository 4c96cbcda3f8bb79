"""What a grid may hold: names that are good folders everywhere, and epsilons and seeds that stand once each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from workflow.common.contracts import format_epsilon, parse_epsilon
from workflow.common.errors import UserError, shown
from workflow.common.run_name import check_run_name
from workflow.common.seeds import MOST_SEED

# The origin of a key: takes its path, such as ("runs", "dpac", "seeds"), and returns the file or --config.
Origin = Callable[..., str]


def check_keys(values: Any, source: str, where: str = "") -> None:
    """Raises UserError for a key, at any depth, that is no text: YAML reads 1, null, on and 2024-01-01 as such."""
    for key, value in values.items() if isinstance(values, Mapping) else enumerate(values or ()):
        if isinstance(values, Mapping) and not isinstance(key, str):
            at = f" under {where}" if where else ""
            raise UserError(f"{source}: the key {key!r}{at} is no text ({type(key).__name__}); rename it or quote it")
        if isinstance(value, Mapping | list):
            check_keys(value, source, f"{where}.{key}" if where else str(key))


def settled(content: Mapping[str, Any], origin: Origin) -> dict[str, Any]:
    """Returns a preset's content with seeds as whole numbers, also those written 1e3.

    Raises UserError, naming file and key, for an impossible run name, epsilon or seed, or one that stands twice.
    """
    runs = content.get("runs")
    if isinstance(runs, Mapping):
        for name in runs:
            check_run_name(name, origin("runs", name), "under runs")
        runs = {name: _lists(entry, lambda *path, name=name: origin("runs", name, *path), f"runs.{name}.")
                for name, entry in runs.items()}  # fmt: skip
    tuning = content.get("tuning")
    if isinstance(tuning, Mapping) and isinstance(tuning.get("epsilons"), list):
        _check_epsilons(tuning["epsilons"], f"{origin('tuning', 'epsilons')}: tuning.epsilons")
    return _lists(content, origin, "") | ({"runs": runs} if "runs" in content else {})


def _lists(entry: Any, origin: Origin, prefix: str) -> Any:
    if not isinstance(entry, Mapping):
        return entry
    found = dict(entry)
    if isinstance(found.get("epsilons"), list):
        _check_epsilons(found["epsilons"], f"{origin('epsilons')}: {prefix}epsilons")
    if isinstance(found.get("seeds"), list):
        found["seeds"] = _seeds(found["seeds"], f"{origin('seeds')}: {prefix}seeds")
    return found


def _check_epsilons(values: list[Any], where: str) -> None:
    shown: dict[str, Any] = {}
    for value in values:
        try:
            epsilon = parse_epsilon(value if not isinstance(value, bool) else str(value))
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        # Six digits: no two budgets that anybody compares are closer.
        other = shown.setdefault(f"{epsilon:g}", epsilon)
        if other is not epsilon:
            raise UserError(
                f"{where}: {format_epsilon(other)} and {format_epsilon(epsilon)} are one budget to six digits; keep one"
            )


def _seeds(values: list[Any], where: str) -> list[int]:
    seeds: list[int] = []
    for value in values:
        # 1e3 is a number of YAML; a float beyond 2^53 may be another number than the one that was written.
        exact = isinstance(value, float) and abs(value) <= 2**53 and value.is_integer()
        seed = int(value) if exact else value
        if type(seed) is not int or not 0 <= seed <= MOST_SEED:
            raise UserError(f"{where}: {shown(value)} is no seed; {_SEEDS}")
        if seed in seeds:
            raise UserError(f"{where}: {seed} stands twice; keep one: two runs of one seed are the same run")
        seeds.append(seed)
    return seeds


_SEEDS = f"give whole numbers from 0 to {MOST_SEED} (2^63 - 1), such as seeds: [0, 1]"
