"""The two sides of a comparison, read from files or folders: `scores.csv`, or several presets' matched by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.comparison.changes import Row, Run
from evaluation.scores import Score, read_scores
from workflow.common.errors import UserError

FILE = "scores.csv"


@dataclass(frozen=True)
class Sides:
    """The scores of both sides by what they are of, and what a reader should know of them."""

    old: Mapping[Row, float]
    new: Mapping[Row, float]
    notes: list[str] = field(default_factory=list)


def read_both(a: Path, b: Path) -> Sides:
    """Reads both sides: each a scores CSV, a folder that holds scores.csv, or one whose sub-folders do.

    Sub-folders are matched by name; one that only A has is missing, one that only B has is new.

    Raises:
        UserError: a side that is not there, holds no scores or is malformed, or sides that cannot be matched.
    """
    old, new = score_files(a), score_files(b)
    if ("" in old) != ("" in new):
        (several, one), names = ((b, a), new) if "" in old else ((a, b), old)
        raise UserError(
            f"{several} holds several presets ({', '.join(names)}), but {one} is one preset's; "
            f"name one of them, such as {several / next(iter(names))}"
        )
    if not old.keys() & new.keys():
        raise UserError(f"no preset of {a} ({', '.join(old)}) is one of {b} ({', '.join(new)}); name two of them")
    pairs = [_pair(name, old.get(name), new.get(name)) for name in {**old, **new}]
    return Sides(
        {row: value for pair in pairs for row, value in pair.old.items()},
        {row: value for pair in pairs for row, value in pair.new.items()},
        [note for pair in pairs for note in pair.notes],
    )


def score_files(side: Path) -> dict[str, Path]:
    """Returns the files of a side by their preset's folder; one alone has no name.

    Raises UserError for a folder in which there are none.
    """
    if not side.is_dir():
        return {"": side}
    if (side / FILE).exists():
        return {"": side / FILE}
    found = {path.parent.name: path for path in sorted(side.glob(f"*/{FILE}"))}
    if not found:
        raise UserError(f"neither {side} nor a folder in it holds a {FILE}; name the file or its folder")
    return found


def _pair(name: str, a: Path | None, b: Path | None) -> Sides:
    old, new = (_scores(path) if path else [] for path in (a, b))
    presets = [{score.preset for score in scores if score.source == "measured"} for scores in (old, new)]
    several = any(len(names) > 1 for names in presets)
    notes = []
    if not several and all(presets) and presets[0] != presets[1]:
        notes.append(f"preset {min(presets[0])} is compared with preset {min(presets[1])}")
    return Sides(_table(name, old, several), _table(name, new, several), notes)


def _scores(path: Path) -> list[Score]:
    scores = read_scores(path)
    if not scores:
        raise UserError(f"{path} holds no scores: there is nothing to compare; did what writes it finish?")
    return scores


def _table(folder: str, scores: Iterable[Score], several: bool) -> dict[Row, float]:
    """Returns the values by row. A file that holds several presets has them in its rows, a lone one goes unnamed."""
    return {
        Row(
            Run(
                "/".join(filter(None, [folder, s.preset if several else ""])),
                s.dataset, s.method, s.epsilon, s.accounting, s.seed, s.source,
            ),
            s.metric,
        ): s.value
        for s in scores
    }  # fmt: skip


def has_several(rows: Iterable[Row]) -> bool:
    """Returns whether any run among the rows has more than one seed."""
    runs = {row.run for row in rows}
    return len({run._replace(seed=None) for run in runs}) < len(runs)


def in_common(old: Mapping[Row, object], new: Mapping[Row, object]) -> tuple[dict, dict, str]:
    """Returns both tables with the rows that both have, and how many were passed over in words.

    Raises UserError if the sides have no row in common.
    """
    both = old.keys() & new.keys()
    if not both:
        raise UserError(
            "no score is in both A and B, so that --common leaves nothing to compare; without it, what differs is told"
        )
    passed = f"{len(old) - len(both)} scores that only A has and {len(new) - len(both)} that only B has are passed over"
    return {row: old[row] for row in both}, {row: new[row] for row in both}, passed
