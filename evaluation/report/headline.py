"""What a reader wants to know first: the best private method, and which published epsilons do not hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.rank import DEFAULT_METRICS, cell_text, metric_head
from evaluation.report.layout import Layout
from evaluation.report.page_tables import Links
from evaluation.report.published_costs import BOUND, CONDITIONAL, NONE_KNOWN, NONE_PROVED, TIGHT
from evaluation.scores import Score
from evaluation.standings import BEST, FIRST, ONE_SEED, OVER_BUDGET, Group, Standing, groups, standings
from workflow.common.contracts import format_epsilon
from workflow.common.metrics import METRICS

REFUTED, NOT_PROVED = "published ε refuted", "published ε not proved"
# Printed numbers are rounded.
_ROUNDING = 1.01


@dataclass(frozen=True)
class Best:
    """The best of one data set and budget: its name, numbers, card and sound epsilon, who cannot be told from it, who
    spent more, and what its seeds do not tell.
    """

    dataset: str
    epsilon: str
    metric: str
    name: str
    card: str
    value: str
    spent: str = ""
    alike: str = ""
    over: str = ""
    untold: str = ""


@dataclass(frozen=True)
class Finding:
    """What is wrong with a published epsilon: REFUTED or NOT_PROVED, where, and why."""

    verdict: str
    method: str
    datasets: str
    epsilon: str
    why: str
    card: str


def best(scores: Sequence[Score], layout: Layout, links: Links) -> list[Best]:
    """Returns the best private run of each data set and finite budget whose sound epsilon is within it."""
    budgets = [group for group in layout.ordered(groups(scores)) if math.isfinite(group.epsilon)]
    return [_best(group, layout, links) for group in budgets]


def _best(group: Group, layout: Layout, links: Links) -> Best:
    dataset, epsilon = layout.dataset_label(group.dataset), format_epsilon(group.epsilon)
    tables = ((metric, standings(group, metric)) for metric in DEFAULT_METRICS)
    metric, table = next(((m, t) for m, t in tables if any(s.place for s in t)), ("", []))
    if not metric:
        return Best(dataset, epsilon, "", "", "", "")
    first = next(standing for standing in table if standing.place == 1)
    one = first.contender
    card = links.of(group.dataset, one.method, one.epsilon, one.accounting)
    alike = [layout.run_label(s.contender.method) for s in table if s is not first and _alike(s)]
    number = cell_text(first, metric).removeprefix("1. ").removesuffix(" best").removesuffix(" first")
    return Best(
        dataset, epsilon, metric_head(metric), layout.run_label(one.method), card, number.removesuffix(" only one"),
        f"{max(one.values['eps_sound']):.2f}", ", ".join(alike), _over(table, metric, layout),
        _untold(table, metric, layout),
    )  # fmt: skip


def _alike(standing: Standing) -> bool:
    return standing.verdict == BEST or standing.place == 1


def _untold(table: Sequence[Standing], metric: str, layout: Layout) -> str:
    """Returns in words what a ranking does not tell for want of seeds; nothing where all in it have several."""
    first = next(standing for standing in table if standing.place == 1)
    if first.verdict == FIRST:
        single = all(s.contender.seeds(metric) == 1 for s in table if s.place)
        known = "From one seed each" if single else "Without several seeds of two methods that differ"
        return f"{known}: another may put another first."
    names = ", ".join(layout.run_label(s.contender.method) for s in table if s.verdict == ONE_SEED)
    return names and f"Not compared, of one seed: {names}."


def _over(table: Sequence[Standing], metric: str, layout: Layout) -> str:
    """Returns the run over its budget that scores higher than the best within it, in words; nothing where none does."""
    first = next(standing for standing in table if standing.place == 1)
    better = 1 if METRICS[metric].higher_is_better else -1
    ahead = [
        s for s in table
        if s.verdict == OVER_BUDGET and better * (s.contender.mean(metric) - first.contender.mean(metric)) > 0
    ]  # fmt: skip
    if not ahead:
        return ""
    one = ahead[0].contender
    name, spent = layout.run_label(one.method), max(one.values["eps_sound"])
    return f"{name} {cell_text(ahead[0], metric)}, which spends ε {spent:.2f} by the sound count"


def proofs(costs: Sequence[Mapping[str, str]]) -> dict[tuple[str, str, float], str]:
    """Returns (data set, method, epsilon) -> REFUTED or NOT_PROVED, of the settings of published_costs.csv alone."""
    found = {(row["dataset"], row["method"], float(row["epsilon"])): _judged(row)[0] for row in costs}
    return {key: verdict for key, verdict in found.items() if verdict}


def _judged(row: Mapping[str, str]) -> tuple[str, str]:
    """Returns REFUTED, NOT_PROVED or nothing for a published setting, and why."""
    printed, kind = row.get("eps_printed") or row.get("eps_counted"), row.get("eps_released_sound_is", "")
    if kind == NONE_PROVED:
        return NOT_PROVED, "no ε is proved for the mechanism"
    if not printed:
        return "", ""
    counted, sound = (float(row.get(name) or "nan") for name in ("eps_released_counted", "eps_released_sound"))
    most = float(printed) * _ROUNDING
    if kind == TIGHT and sound > most:
        return REFUTED, f"the released code spends {sound:.2f}"
    own = f"the authors' own count of the released code gives {counted:.2f}" if counted > most else ""
    if kind == BOUND and sound > most:
        return NOT_PROVED, "; ".join(filter(None, [own, f"of the released code only ε ≤ {sound:.0f} is proved"]))
    if kind == CONDITIONAL and sound > most:
        return NOT_PROVED, "; ".join(filter(None, [own, f"{sound:.2f} even under a premise that nothing shows"]))
    if kind == NONE_KNOWN:
        return NOT_PROVED, "; ".join(filter(None, [own, "no useful ε is known for the released code as a whole"]))
    return (NOT_PROVED, own) if own else ("", "")


def findings(
    costs: Sequence[Mapping[str, str]], audit: Sequence[Mapping[str, str]], layout: Layout, links: Links
) -> list[Finding]:
    """Returns what does not hold: counts that an attack exceeds, then published settings; equal ones are one."""
    found: dict[tuple, list[str]] = {}
    for row in audit:
        lower, counted = float(row["epsilon_lower"]), float(row["eps_published"])
        if math.isfinite(counted) and lower > counted:
            why = f"an attack on this run proves ε ≥ {lower:.2f}, its authors count {counted:.2f} for as many uses"
            card = links.of(row["dataset"], row["run"], float(row["epsilon"]), row["accounting"])
            key = (REFUTED, layout.run_label(row["run"]), row["epsilon"], why, card)
            found.setdefault(key, []).append(layout.dataset_label(row["dataset"]))
    for row in costs:
        verdict, why = _judged(row)
        if verdict:
            card = links.published_setting(row["dataset"], row["method"], float(row["epsilon"]))
            key = (verdict, layout.run_label(row["method"]), row.get("eps_printed") or row["epsilon"], why, card)
            found.setdefault(key, []).append(layout.dataset_label(row["dataset"]))
    ordered = sorted(found.items(), key=lambda item: item[0][0] != REFUTED)
    return [
        Finding(verdict, method, ", ".join(dict.fromkeys(where)), f"{float(epsilon):g}", why, card)
        for (verdict, method, epsilon, why, card), where in ordered
    ]
