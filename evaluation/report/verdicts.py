"""Table 9: what is claimed of rows against rows, judged by the seeds that both have, from scores.csv."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.intervals import CONFIDENCE, Effect, holm, paired
from evaluation.report import render
from evaluation.report.layout import ClaimSpec, ClaimsSpec, Layout, add_layout, layout_of
from evaluation.report.render import Grid
from evaluation.report.scores_tables import SHARE
from evaluation.scores import Score, format_value, read_scores
from workflow.common.contracts import format_epsilon
from workflow.common.errors import command
from workflow.common.files import csv_text
from workflow.common.metrics import ENDED_SHORT, METRICS, ended_short_note
from workflow.common.options import Parser

SUPPORTED, CONTRADICTED, OPEN = "supported", "contradicted", "open at this size"
NOT_RUN, ONE_SEED, NO_SHARED = "open: not run", "open: one seed", "open: no seed in common"
NO_SPREAD, AMBIGUOUS = "open: seeds show no spread", "open: under two counts or presets"
TWO_NETWORKS = "open: scored by two networks"
# What keeps a comparison from being judged, of one and of several.
_LACKING = {
    ("lacks a second seed", "lack a second seed"): (NOT_RUN, ONE_SEED, NO_SHARED),
    ("shows no spread between seeds", "show no spread between seeds"): (NO_SPREAD,),
    ("is under two counts or presets", "are under two counts or presets"): (AMBIGUOUS,),
    ("was scored by two networks", "were scored by two networks"): (TWO_NETWORKS,),
}
COLUMNS = (
    *("claim", "says", "by", "dataset", "epsilon", "metric", "better", "than", "difference", "low", "high", "seeds"),
    *("p", "p_holm", "published_difference", "verdict"),
)
HEADS = ("Claim", "Data set", "ε", "Metric", "Better", "than", "Difference", f"{CONFIDENCE:.0%} interval", "Seeds",
         "p (Holm)", "Paper", "Verdict")  # fmt: skip
_RIGHT = [False, False, True, False, False, False, True, True, True, True, True, False]
HOW_TO_READ = (
    "Difference: the row under Better less the row under than, the mean over the seeds that both have; an arrow says "
    "where a metric is better. Paper: the same difference of the paper's numbers.",
    f"Interval: Student's t, {CONFIDENCE:.0%}, of the differences seed by seed; it covers what another seed would "
    "move, not other test images, nor how well settings were chosen. Nor does it cover, in real2gen and FID "
    "(classifier), the network that scores: one, trained once, scores all rows and seeds.",
    f"A comparison is {SUPPORTED} or {CONTRADICTED} where the difference is told from 0 at 5% after Holm's correction "
    "for all comparisons of its claim that have two seeds or more (p below 0.05), so an interval that leaves 0 out may "
    "still be open. With one seed it is always open. Where neither row was run there is no line.",
)

Place = tuple[str, str, float, str]  # data set, run, epsilon, metric
Seeds = dict[int, float]
Kinds = dict[Place, set[tuple[str, str]]]


@dataclass(frozen=True)
class Comparison:
    """One line: two rows by one metric. `difference` is the better's less the other's; what is not known is None.

    `p_holm` is the p of `effect` corrected for all comparisons of its claim; `seeds` are those that both rows have;
    `shares` has, of a row that ended short, the smallest share of its steps that a seed did.
    """

    claim: str
    dataset: str
    epsilon: float
    metric: str
    better: str
    than: str
    difference: float | None
    seeds: int
    effect: Effect | None
    published: float | None
    p_holm: float | None = None
    verdict: str = ""
    shares: Mapping[str, float] = field(default_factory=dict)


def judge(
    spec: ClaimsSpec,
    scores: Iterable[Score],
    published: Iterable[Score] = (),
    by_two_networks: Callable[[Comparison], bool] = lambda line: False,
) -> list[Comparison]:
    """Returns each comparison of each claim, in the order of the claims.

    Args:
        scores: of all runs.
        published: the paper's numbers.
        by_two_networks: whether another network scored each row of a comparison, as it may where scores of several
            runs are set beside each other: nothing pairs these.
    """
    measured, kinds = _indexed(scores)
    paper = {(s.dataset, s.method, s.epsilon, s.metric): s.value for s in published if s.source == "published"}
    found = []
    for name, claim in spec.claims.items():
        lines = [_compared(name, *setting, measured, paper) for setting in _settings(claim, spec.only, measured)]
        found += _corrected([_unpaired(line, kinds, by_two_networks) for line in lines])
    return found


def _indexed(scores: Iterable[Score]) -> tuple[dict[Place, Seeds], Kinds]:
    """Returns the values by seed, and under which presets and accountings each place was measured."""
    measured: dict[Place, Seeds] = {}
    kinds: Kinds = {}
    for s in scores:
        if s.source == "measured" and s.seed is not None:
            place = (s.dataset, s.method, s.epsilon, s.metric)
            measured.setdefault(place, {})[s.seed] = s.value
            kinds.setdefault(place, set()).add((s.preset, s.accounting))
    return measured, kinds


def _settings(
    claim: ClaimSpec, only: Sequence[str] | None, measured: Mapping[Place, Seeds]
) -> Iterator[tuple[str, str, str, float, str]]:
    """Yields (better, than, data set, epsilon, metric): where the claim is made, then where else both were measured.

    Where neither was measured there is nothing to say.
    """
    known = {dataset for dataset, *_ in measured if only is None or dataset in only}
    made = [(dataset, float(epsilon)) for dataset in claim.datasets if dataset in known for epsilon in claim.epsilons]
    for better, than in claim.pairs:
        one, other = (
            {(d, e) for d, run, e, metric in measured if run == name and metric in claim.metrics and d in known}
            for name in (better, than)
        )
        further = sorted((one & other) - set(made), key=lambda at: (at[0], -at[1]))
        for dataset, epsilon in [*(at for at in made if at in one | other), *further]:
            for metric in claim.metrics:
                yield better, than, dataset, epsilon, metric


def _compared(
    claim: str, better: str, than: str, dataset: str, epsilon: float, metric: str,
    measured: Mapping[Place, Seeds], paper: Mapping[Place, float],
) -> Comparison:  # fmt: skip
    places = [(dataset, run, epsilon, metric) for run in (better, than)]
    one, other = (measured.get(place, {}) for place in places)
    shared = sorted(one.keys() & other.keys())
    difference = statistics.fmean(one[seed] - other[seed] for seed in shared) if shared else None
    told = paper[places[0]] - paper[places[1]] if all(place in paper for place in places) else None
    verdict = NOT_RUN if not one or not other else NO_SHARED if not shared else ONE_SEED if len(shared) == 1 else ""
    where = (claim, dataset, epsilon, metric, better, than, difference, len(shared))
    done = {run: measured.get((dataset, run, epsilon, SHARE)) for run in (better, than)}
    shares = {run: min(of_seeds.values()) for run, of_seeds in done.items() if of_seeds}
    return Comparison(*where, paired(one, other), told, verdict=verdict, shares=shares)


def _ambiguous(line: Comparison, kinds: Kinds) -> bool:
    """Returns whether a row has two values of a seed, or the rows are of two presets: nothing pairs them."""
    found = [kinds.get((line.dataset, run, line.epsilon, line.metric), set()) for run in (line.better, line.than)]
    return max(map(len, found)) > 1 or (all(found) and len({preset for kind in found for preset, _ in kind}) > 1)


def _unpaired(line: Comparison, kinds: Kinds, by_two_networks: Callable[[Comparison], bool]) -> Comparison:
    """Returns a comparison without its difference, where that would be of more than the two rows."""
    why = AMBIGUOUS if _ambiguous(line, kinds) else TWO_NETWORKS if line.seeds and by_two_networks(line) else ""
    return dataclasses.replace(line, difference=None, effect=None, verdict=why) if why else line


def _corrected(lines: Sequence[Comparison]) -> list[Comparison]:
    """Returns the comparisons of one claim with their p values corrected, and their verdicts."""
    corrected = iter(holm([line.effect.p for line in lines if line.effect]))
    pairs = [(line, next(corrected) if line.effect else None) for line in lines]
    return [dataclasses.replace(line, p_holm=p, verdict=line.verdict or _verdict(line, p)) for line, p in pairs]


def _verdict(line: Comparison, p_holm: float | None) -> str:
    if p_holm is None:
        return NO_SPREAD
    if p_holm > 1 - CONFIDENCE:
        return OPEN
    return SUPPORTED if (line.effect.mean > 0) == METRICS[line.metric].higher_is_better else CONTRADICTED


def sentence(claim: ClaimSpec, lines: Sequence[Comparison]) -> str:
    """Returns what the comparisons of a claim say of it, in a sentence."""
    return f"{claim.says} ({claim.by}): {counted(lines)}."


def counted(lines: Sequence[Comparison]) -> str:
    """Returns how many comparisons of a claim have which verdict, in words."""
    if not lines:
        return "not run here"
    found = [line.verdict for line in lines]
    told = [f"{verdict} in {found.count(verdict)}" for verdict in (SUPPORTED, CONTRADICTED, OPEN) if verdict in found]
    judged = sum(map(found.count, (SUPPORTED, CONTRADICTED, OPEN)))
    words = [f"{', '.join(told)} of {_count(judged)}"] if told else []
    for lacking, verdicts in _LACKING.items():
        if number := sum(map(found.count, verdicts)):
            counted_ = f"{number} more" if words else f"open, {_count(number)}"
            words.append(f"{counted_} {lacking[number != 1]}")
    return "; ".join(words)


def _count(comparisons: int) -> str:
    return f"{comparisons} comparison" + "s" * (comparisons != 1)


def summary(spec: ClaimsSpec, lines: Sequence[Comparison]) -> list[str]:
    """Returns the sentence of each claim that has a comparison, and one that names the others."""
    of = {name: [line for line in lines if line.claim == name] for name in spec.claims}
    missing = "; ".join(claim.says for name, claim in spec.claims.items() if not of[name])
    told = [sentence(claim, of[name]) for name, claim in spec.claims.items() if of[name]]
    return [*told, f"Not run here: {missing}."] if missing else told


def build_grid(spec: ClaimsSpec, layout: Layout, lines: Sequence[Comparison]) -> Grid:
    """Returns the table of comparisons, with the claims' sentences and how to read it below."""
    rows = [_row(spec.claims[line.claim], layout, line) for line in lines]
    shares = [share for line in lines for share in line.shares.values()]
    short = [ended_short_note(min(shares))] if shares else []
    return Grid(spec.title, list(HEADS), list(_RIGHT), rows, [*summary(spec, lines), *HOW_TO_READ, *short, *spec.notes])


def _row(claim: ClaimSpec, layout: Layout, line: Comparison) -> list[str]:
    known, effect = METRICS[line.metric], line.effect
    arrow = "↑" if known.higher_is_better else "↓"
    return [
        f"{claim.says} ({claim.by})", layout.dataset_label(line.dataset), _budget(line.epsilon),
        f"{known.label} {arrow}", *(_name(layout, line, run) for run in (line.better, line.than)),
        render.NOT_MEASURED if line.difference is None else _signed(line.difference, known.decimals),
        f"{_signed(effect.low, known.decimals)} to {_signed(effect.high, known.decimals)}" if effect else "",
        str(line.seeds), _chance(line.p_holm),
        render.NOT_REPORTED if line.published is None else _signed(line.published, known.published_decimals),
        line.verdict,
    ]  # fmt: skip


def _name(layout: Layout, line: Comparison, run: str) -> str:
    return layout.run_label(run) + (f" ({ENDED_SHORT})" if run in line.shares else "")


def _chance(p: float | None) -> str:
    return "" if p is None else f"{p:.3f}" if p >= 0.0005 else "< 0.001"


def _budget(epsilon: float) -> str:
    return "∞" if math.isinf(epsilon) else format_epsilon(epsilon)


def _signed(value: float, decimals: int) -> str:
    """Returns a difference with its sign; one that rounds to 0 has none."""
    text = f"{value:+.{decimals}f}".replace("-", "−")
    return text if float(f"{value:.{decimals}f}") else text[1:]


def to_csv(spec: ClaimsSpec, lines: Iterable[Comparison]) -> str:
    """Returns the comparisons as csv; what is not known is empty."""
    return csv_text(COLUMNS, [_cells(spec.claims[line.claim], line) for line in lines])


def _cells(claim: ClaimSpec, line: Comparison) -> list[str]:
    effect = line.effect
    numbers = (line.difference, effect and effect.low, effect and effect.high)
    chances = (effect and effect.p, line.p_holm, line.published)
    known, judged = (["" if value is None else format_value(value) for value in part] for part in (numbers, chances))
    where = [line.claim, claim.says, claim.by, line.dataset, format_epsilon(line.epsilon), line.metric]
    return [*where, line.better, line.than, *known, str(line.seeds), *judged, line.verdict]


@command
def main(argv: list[str] | None = None) -> None:
    """Runs `python -m evaluation.report.verdicts`."""
    parser = Parser(prog="python -m evaluation.report.verdicts", description=__doc__)
    parser.add_argument("--scores", type=Path, required=True, help="measured scores.csv")
    parser.add_argument("--published", type=Path, required=True, help="the paper's scores.csv")
    add_layout(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables' .csv, .md and .tex")
    options = parser.parse_args(argv)
    layout, scores, published = layout_of(options), read_scores(options.scores), read_scores(options.published)
    for name, spec in layout.claims.items():
        lines = judge(spec, scores, published)
        render.write_grid(options.out, name, build_grid(spec, layout, lines), to_csv(spec, lines))


if __name__ == "__main__":
    raise SystemExit(main())
