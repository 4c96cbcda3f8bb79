"""What a reviewer wants to know of a comparison: counts, the worst regressions by run, the rest summed up."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.comparison.changes import KINDS, REGRESSIONS, Change, Row, Run
from workflow.common.contracts import format_epsilon

LINES = 20
MOVES = 3  # of one run, named on its line
NO_LONGER = "no longer there"
WORSE = ("different", "regression")
NAMES = 6  # of methods, data sets, seeds or metrics that a line lists


@dataclass(frozen=True)
class Report:
    """A comparison: what is compared, the values of each side, what changed, and what a reader should know of it.

    `exact` says that nothing was allowed to move.
    """

    a: str
    b: str
    old: Mapping[Row, float]
    new: Mapping[Row, float]
    changes: Sequence[Change]
    notes: Sequence[str] = field(default_factory=tuple)
    exact: bool = False

    def count(self, *kinds: str) -> int:
        """Returns how many changes are of these kinds."""
        return sum(change.kind in kinds for change in self.changes)

    @property
    def regressions(self) -> int:
        return self.count(*REGRESSIONS)

    @property
    def compared(self) -> int:
        """How many scores both sides have."""
        return len(self.old.keys() & self.new.keys())

    @property
    def gone(self) -> set[Run]:
        """The runs of which B has nothing, but what belongs to the machine is not all that A had."""
        there = {row.run for row in self.new}
        return {change.row.run for change in self.changes if change.kind == "missing"} - there

    @property
    def noun(self) -> str:
        return "difference" if self.exact else "regression"

    @property
    def how(self) -> str:
        """What a score is that both sides have and that counts against B."""
        return "different" if self.exact else "worse"

    @property
    def headline(self) -> str:
        """The counts in one line; of a kind without changes nothing is said, but for regressions and new scores."""
        worse, missing = self.count(*WORSE), self.count("missing")
        told = counted(self.regressions, self.noun) if self.regressions else f"no {self.noun}"
        if missing:
            told += f" ({f'{worse} {self.how}, ' if worse else ''}{missing} missing)"
        others = {
            "new": self.count("new"), "better": self.count("improvement"), "unclear": self.count("unclear"),
            "moved": self.count("moved"), NO_LONGER: self.count("no longer"),
        }  # fmt: skip
        counts = [f"{number} {what}" for what, number in others.items() if number or what == "new"]
        if self.count("no longer"):
            metrics = listed(sorted({change.row.metric for change in self.changes if change.kind == "no longer"}))
            counts[-1] += f" ({metrics}: no regression)"
        return f"{told}; {', '.join([f'{self.compared} scores compared', *counts])}"


@dataclass(frozen=True)
class Finding:
    """One line: what kind of change, whose scores (a run, or several summed up) and what moved."""

    kind: str
    who: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind:<12} {self.who}: {self.what}"


def findings(report: Report, lines: int) -> list[Finding]:
    """Returns at most `lines` lines, at least eight: regressions take what the other kinds, one line each, leave."""
    told = {kind: [change for change in report.changes if change.kind == kind] for kind in KINDS}
    gone = report.gone
    # A run that is missing as a whole is told as such, with what belongs to the machine.
    told["no longer"] = [change for change in told["no longer"] if change.row.run not in gone]
    others = [kind for kind in KINDS if kind not in REGRESSIONS and told[kind]]
    found = _regressions(report, gone, lines - len(others))
    for kind in others:
        one_sided = kind in ("new", "no longer")
        found.append(_one_sided(report, kind, told[kind]) if one_sided else _summed(kind, told[kind]))
    return found


def counted(number: int, noun: str) -> str:
    """Returns "1 run" or "2 runs"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listed(names: Iterable[object], most: int = NAMES) -> str:
    """Returns the distinct names in their order, the first few of them and how many more there are."""
    texts = list(dict.fromkeys(map(str, names)))
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def _by_run(changes: Iterable[Change]) -> dict[Run, list[Change]]:
    runs: dict[Run, list[Change]] = {}
    for change in changes:
        runs.setdefault(change.row.run, []).append(change)
    return runs


def _regressions(report: Report, gone: set[Run], lines: int) -> list[Finding]:
    """Returns a line per run, the worst first, one that sums up the runs beyond `lines`, and one of missing runs."""
    missing = [_whole(report, gone)] if gone else []
    changes = [change for change in report.changes if change.is_regression and change.row.run not in gone]
    runs = list(_by_run(changes).items())
    room = lines - len(missing)
    shown = runs if len(runs) <= room else runs[: room - 1]
    found = [_of_run(run, changes) for run, changes in shown]
    rest = runs[len(shown) :]
    if rest:
        kinds = [change.kind for _, changes in rest for change in changes]
        what = f"{sum(kind in WORSE for kind in kinds)} {report.how}, {kinds.count('missing')} missing"
        who = told_runs(counted(len(rest), "more run"), [run for run, _ in rest])
        found.append(Finding(next((kind for kind in kinds if kind in WORSE), "missing"), who, what))
    return found + missing


def _whole(report: Report, gone: set[Run]) -> Finding:
    kinds = [change.kind for change in report.changes if change.row.run in gone]
    scores = counted(len(kinds), "score")
    if "no longer" in kinds:
        # As the first line counts them.
        scores += f": {kinds.count('missing')} missing, {kinds.count('no longer')} {NO_LONGER}"
    if len(gone) == 1:
        return Finding("missing", str(*gone), f"the whole run ({scores})")
    return Finding("missing", told_runs(f"{len(gone)} whole runs", gone), scores)


def _of_run(run: Run, changes: Sequence[Change]) -> Finding:
    more = [f"{len(changes) - MOVES} more"] if len(changes) > MOVES else []
    return Finding(changes[0].kind, str(run), "; ".join([change.move for change in changes[:MOVES]] + more))


def _summed(kind: str, changes: Sequence[Change]) -> Finding:
    """Returns the change that goes farthest beyond its limit, and how many others there are."""
    first, others = changes[0], changes[1:]
    runs = len(_by_run(others))
    more = [f"{counted(len(others), 'more score')} in {counted(runs, 'run')}"] if others else []
    return Finding(kind, str(first.row.run), "; ".join([first.move, *more]))


def _one_sided(report: Report, kind: str, changes: Sequence[Change]) -> Finding:
    """Returns what only one side has: in runs that only it has, and in runs that both have."""
    if len(changes) == 1:
        return Finding(kind, str(changes[0].row.run), changes[0].move)
    other = {row.run for row in (report.old if kind == "new" else report.new)}
    alone = [run for run in _by_run(changes) if run not in other]
    what = []
    if alone:
        again = {_seedless(run) for run in alone} <= {_seedless(run) for run in other}
        number = counted(len(alone), "run" if again else "whole run")
        what.append(told_runs(f"{number}{' with a further seed' if again else ''}", alone))
    metrics = [change.row.metric for change in changes if change.row.run in other]
    if metrics:
        what.append(f"{len(metrics)} in runs that both have: {listed(metrics)}")
    return Finding(kind, counted(len(changes), "score"), "; ".join(what))


def told_runs(number: str, runs: Collection[Run]) -> str:
    """Returns how many runs, in words, with their seeds, and by data set their methods, epsilons and accountings.

    What all of them share, of seeds, epsilons and accountings, is said once.
    """
    seeds = listed(sorted({run.seed for run in runs if run.seed is not None}))
    settings = {_setting(run) for run in runs}
    common = ", ".join([f"seed {seeds}"] * bool(seeds) + ([*settings] if len(settings) == 1 else []))
    by_dataset: dict[str, list[str]] = {}
    for run in sorted(runs, key=str):
        name = run.method if len(settings) == 1 else f"{run.method} {_setting(run)}"
        by_dataset.setdefault(" ".join(filter(None, [run.preset, run.dataset])), []).append(name)
    names = [f"{dataset} ({listed(methods)})" for dataset, methods in by_dataset.items()]
    return f"{number}{common and f' ({common})'} of {listed(names)}"


def _setting(run: Run) -> str:
    source = "" if run.source == "measured" else f" {run.source}"
    return f"eps {format_epsilon(run.epsilon)} {run.accounting}{source}"


def _seedless(run: Run) -> Run:
    return run._replace(seed=None)
