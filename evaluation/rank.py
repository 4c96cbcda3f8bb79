"""Which method? Ranks the methods of a scores.csv by each metric, and says what comparing them spent.

Exit code 0: ranked; 2: bad input.

The table of a data set and an epsilon has a row per method and a column per metric: place, mean over the seeds with its
interval. Methods whom a two-sided 95 % t interval of their difference, seed by seed, does not tell apart share a place,
and all in the first are marked `best`. A run that spends more than its epsilon by the sound count stands in the list
without a place.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from evaluation import price
from evaluation.intervals import CONFIDENCE
from evaluation.scores import Score, format_value, measured
from evaluation.standings import (
    BEHIND,
    BEST,
    FIRST,
    ONE_SEED,
    ONLY,
    RANKABLE,
    Contender,
    Group,
    Standing,
    groups,
    standings,
)
from workflow.common.contracts import format_epsilon
from workflow.common.errors import UserError, command, unknown
from workflow.common.files import csv_text, write_text
from workflow.common.metrics import BEST_ON_TEST, ENDED_SHORT, METRICS, ended_short_note
from workflow.common.options import Parser

DEFAULT_METRICS = ("g2r_cnn", "g2r_mlp", "r2g_cnn", "fid_classifier", "fid_inception", "precision", "recall")
COLUMNS = (
    *("preset", "dataset", "epsilon", "metric", "place", "method", "accounting", "mean", "std", "seeds", "verdict"),
    *("eps_sound", "train_seconds"),
)
MISSING = "n/m"
MARKS = {BEST: " best", FIRST: " first", ONLY: " only one"}

HOW_TO_READ = (
    "### How to read it",
    f"Each cell: the place by that metric, the mean, ± half the width of its {CONFIDENCE:.0%} t interval over the "
    "seeds, (seeds). Rows follow the first metric. ε sound: the largest that a run spent by the sound count; training: "
    f"mean seconds. {MISSING}: not measured.",
    "A place is one more than the number of methods that are better beyond noise, so methods that the seeds do not "
    "tell apart share one, and one whose seeds move much shares it with many; best: no method is better beyond noise. "
    f"Two are told apart where the two-sided {CONFIDENCE:.0%} t interval of their differences, seed by seed, leaves 0 "
    "out. Each pair is judged alone; the interval is not widened for the number of methods, and does not cover how "
    "well the settings were chosen.",
    "Where two methods share fewer than two seeds, or their differences show no spread, the interval is Welch's, of "
    "the difference of two means, each with its own spread; two that do not spread at all are not told apart. A method "
    "with one seed has no place where others have several: nobody knows how far it scatters. Either interval covers "
    "the seeds alone, not which test images there are: with 100 of them an accuracy has a standard "
    "error of up to 0.05 by itself. Nor does it cover the networks behind IS, FID (classifier), precision, recall and "
    "real2gen: each is trained once, and scores all methods and seeds.",
    "gen2real: accuracy on real images of a network trained on the generated ones, which is what they are worth as "
    "training data; real2gen: the other way round. FID: distance between the features of generated and real images. "
    "precision: share of generated images that lie near real ones; recall: share of real images near generated ones. "
    "Precision alone is no quality: a few images, or blurred ones, can reach it with a recall near 0.",
)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], words: int) -> str:
    """Returns a pipe table that is also aligned as plain text; all columns but the first `words` are set right."""
    texts = [[cell.replace("|", "\\|") for cell in row] for row in [heads, *rows]]
    widths = [max(3, *map(len, column)) for column in zip(*texts, strict=True)]
    sides = [str.ljust if place < words else str.rjust for place in range(len(widths))]
    rule = ["-" * width if place < words else "-" * (width - 1) + ":" for place, width in enumerate(widths)]
    padded = [[side(*pair) for side, *pair in zip(sides, row, widths, strict=True)] for row in texts]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [padded[0], rule, *padded[1:]])


def _paragraphs(*texts: str) -> str:
    return "\n\n".join(text for text in texts if text) + "\n"


def _number(one: Contender, metric: str, decimals: int) -> str:
    mean, reach = one.mean(metric), one.half_width(metric)
    if mean is None:
        return MISSING
    text = "∞" if math.isinf(mean) else f"{mean:.{decimals}f}"
    return f"{text} ± {reach:.{decimals}f} ({one.seeds(metric)})" if reach is not None else text


def cell_text(standing: Standing, metric: str) -> str:
    """Returns place, mean, interval, seeds and mark of a contender by one metric."""
    place = f"{standing.place}. " if standing.place else ""
    return f"{place}{_number(standing.contender, metric, METRICS[metric].decimals)}{MARKS.get(standing.verdict, '')}"


def _costs(one: Contender) -> list[str]:
    eps, seconds = one.values.get("eps_sound"), one.mean("train_seconds")
    epsilon = "∞" if math.isinf(one.epsilon) else f"{max(eps):.2f}" if eps else MISSING
    return [epsilon, MISSING if seconds is None else f"{seconds:.0f}"]


def _name(one: Contender) -> str:
    words = [one.bar] * bool(one.bar) + [ENDED_SHORT] * bool(one.values.get("steps_share"))
    return f"{one.method} ({', '.join(words)})" if words else one.method


def metric_head(metric: str) -> str:
    """Returns a metric's label with the arrow to where it is better."""
    return f"{METRICS[metric].label} {'↑' if METRICS[metric].higher_is_better else '↓'}"


def _rows(group: Group, tables: dict[str, list[Standing]]) -> list[list[str]]:
    """Returns a row per contender, by the first metric; those that lack it follow in the next metric's order."""
    order = list(dict.fromkeys((s.contender.method, s.contender.accounting, s.contender.epsilon)
                               for table in tables.values() for s in table))  # fmt: skip
    order.sort(key=lambda key: math.isinf(key[2]))
    rows = []
    for key in order:
        one = next(c for c in group.contenders if (c.method, c.accounting, c.epsilon) == key)
        found = [next((s for s in table if s.contender is one), None) for table in tables.values()]
        cells = [cell_text(s, metric) if s else MISSING for s, metric in zip(found, tables, strict=True)]
        rows.append([_name(one), one.accounting, *cells, *_costs(one)])
    return rows


def finding(table: list[Standing]) -> str:
    """Returns who is best by a metric, and how far that can be told."""
    ranked = [s for s in table if s.place]
    if not ranked:
        return "no run within its budget"
    names = ", ".join(s.contender.method for s in ranked if s.verdict != BEHIND)
    if ranked[0].verdict == ONLY:
        return f"{names}, the only one within its budget"
    if ranked[0].verdict == FIRST:
        return f"not known without several seeds of two methods; first: {names}"
    others = "all others with several seeds" if any(s.verdict == ONE_SEED for s in table) else "all others"
    return names + (", which cannot be told apart" if "," in names else f", ahead of {others} beyond noise")


def one_seed(tables: dict[str, list[Standing]]) -> str:
    """Returns the note on single seeds; empty where the noise of all ranked methods is known."""
    verdicts = {METRICS[metric].label: {s.verdict for s in table} for metric, table in tables.items()}
    unknown = [label for label, found in verdicts.items() if FIRST in found]
    known = any(BEST in found for found in verdicts.values())
    single = ", ".join(dict.fromkeys(s.contender.method for t in tables.values() for s in t if s.verdict == ONE_SEED))
    where = f"By {', '.join(unknown)}, no" if known else "No"
    texts = [
        f"{where} two methods have several seeds that differ: nothing can be told about noise, and no method can be "
        "called the best. The first is marked first; another seed may put another there. Run several, such as "
        "seeds: [0, 1, 2]."
    ] * bool(unknown)
    texts += [f"Without a place, since they have one seed where others have several: {single}."] * bool(single)
    return " ".join(texts)


def _group_text(group: Group, metrics: Sequence[str], with_preset: bool) -> str:
    tables = {metric: table for metric in metrics if (table := standings(group, metric))}
    preset = f"preset {group.preset}, " if with_preset else ""
    budget = "references alone" if math.isinf(group.epsilon) else f"ε {format_epsilon(group.epsilon)}"
    heads = ["Method", "Accounting", *map(metric_head, tables), "ε sound", "training (s)"]
    rows = _rows(group, tables)
    if not rows:
        return _paragraphs(f"### {preset}{group.dataset}, {budget}", "None of the metrics asked for has a value here.")
    found = [[metric_head(metric), finding(table)] for metric, table in tables.items()]
    return _paragraphs(
        f"### {preset}{group.dataset}, {budget}",
        _table(heads, rows, words=2),
        "" if math.isinf(group.epsilon) else _table(["Metric", "Best within noise"], found, words=2),
        one_seed(tables),
        barred(group),
        _short(group),
    )


def _short(group: Group) -> str:
    shares = [share for one in group.contenders for share in one.values.get("steps_share", ())]
    return ended_short_note(min(shares)) if shares else ""


def barred(group: Group) -> str:
    """Returns the note on runs that have no place; empty where all have one."""
    names = [one.method for one in group.contenders if one.bar and math.isfinite(one.epsilon)]
    if not names:
        return ""
    return (
        f"Not ranked, since no sound count shows that ε {format_epsilon(group.epsilon)} is kept: {', '.join(names)}. "
        "Their scores cannot be compared with those of runs that keep it."
    )


def markdown(scores: Sequence[Score], metrics: Sequence[str] = DEFAULT_METRICS, delta: float | None = None) -> str:
    """Returns the ranking as Markdown: per data set and epsilon a table and notes, then what comparing spent.

    Args:
        metrics: the first orders the rows; those without a value are left out.
        delta: of each run; None where it is not known.
    """
    found = groups(scores)
    several = len({group.preset for group in found}) > 1
    parts = [_group_text(group, metrics, several) for group in found]
    costs = {group.dataset: price.spent(scores, group.dataset) for group in found}
    return "\n".join([*parts, _paragraphs(*HOW_TO_READ, *price.paragraphs(costs, delta))])


def as_csv(scores: Sequence[Score], metrics: Sequence[str] = DEFAULT_METRICS) -> str:
    """Returns the ranking as CSV, a line per data set, epsilon, metric and method, in the order of the ranking."""
    rows = [
        _csv_row(group, metric, standing)
        for group in groups(scores)
        for metric in metrics
        for standing in standings(group, metric)
    ]
    return csv_text(COLUMNS, rows)


def _csv_row(group: Group, metric: str, standing: Standing) -> list[str]:
    one, eps = standing.contender, standing.contender.values.get("eps_sound")
    numbers = (one.mean(metric), one.spread(metric))
    costs = (max(eps) if eps else None, one.mean("train_seconds"))
    shown, spent_ = (["" if value is None else format_value(value) for value in pair] for pair in (numbers, costs))
    place = str(standing.place or "")
    key = [group.preset, group.dataset, format_epsilon(group.epsilon), metric, place, one.method, one.accounting]
    return [*key, *shown, str(one.seeds(metric)), standing.verdict, *spent_]


def _chosen(path: Path, dataset: str | None) -> list[Score]:
    scores = measured(path, "rank")
    datasets = {score.dataset for score in scores}
    if dataset and dataset not in datasets:
        raise unknown("data set", dataset, datasets, where=f"in {path}")
    return [score for score in scores if dataset in (None, score.dataset)]


def _metrics(asked: Sequence[str], scores: Sequence[Score], path: Path) -> list[str]:
    there = {score.metric for score in scores} & set(RANKABLE)
    for name in asked:
        if name == BEST_ON_TEST:
            raise UserError(f"{name} picks on the images that it is scored on, so it ranks nothing; rank by g2r_cnn")
        if name not in RANKABLE:
            raise unknown("metric to rank by", name, RANKABLE)
        if name not in there:
            raise UserError(f"{path} has no {name} of these runs; there are: {', '.join(sorted(there)) or 'none'}")
    chosen = list(dict.fromkeys(asked)) or [name for name in DEFAULT_METRICS if name in there]
    if not chosen:
        raise UserError(f"{path} holds none of the metrics {', '.join(DEFAULT_METRICS)}; name others with --metric")
    return chosen


def add_arguments(parser: Parser) -> None:
    """Adds the options of the command."""
    parser.description = "Rank the methods of a scores.csv by each metric, and say what comparing them spent."
    parser.epilog = (
        f"Metrics: {', '.join(RANKABLE)}. Default: those of {', '.join(DEFAULT_METRICS)} that the file holds."
    )
    parser.takes_several("--metric", r"\w+")
    parser.add_argument("scores", type=Path, metavar="SCORES.csv", help="such as results/quick/scores.csv")
    parser.add_argument("--dataset", metavar="NAME", help="this data set alone; default: all in the file")
    repeated = "the first orders the rows; may be repeated"
    parser.add_argument("--metric", action="append", default=[], metavar="NAME", help=repeated)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write rank.md and rank.csv there; default: print")


def run(options: argparse.Namespace) -> None:
    """Prints or writes the ranking. Raises UserError for an unknown metric or data set, or a file without scores."""
    scores = _chosen(options.scores, options.dataset)
    metrics = _metrics(options.metric, scores, options.scores)
    text = markdown(scores, metrics, price.delta_beside(options.scores))
    if options.out is None:
        print(text, end="")
        return
    write_text(options.out / "rank.md", text)
    write_text(options.out / "rank.csv", as_csv(scores, metrics))


@command
def main(argv: list[str] | None = None) -> None:
    """Runs `python -m evaluation.rank`."""
    parser = Parser(prog="python -m evaluation.rank")
    add_arguments(parser)
    run(parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())
