"""A comparison as text, JSON, Markdown, or for GitHub Actions."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from evaluation.comparison.changes import KINDS, REGRESSIONS, Change
from evaluation.comparison.summary import LINES, Finding, Report, findings

ANNOTATIONS = 3


def text(report: Report) -> str:
    """Returns at most 20 lines: the counts, what a reader should know, then what changed."""
    notes = [f"note: {'; '.join(report.notes)}"] if report.notes else []
    head = [report.headline, *notes]
    return _lines([*head, *map(str, findings(report, LINES - len(head)))])


def markdown(report: Report, lines: int = LINES) -> str:
    """Returns at most `lines` lines: the counts as a heading, a table of what changed, what was compared."""
    sides = f"A: {_code(report.a)}, B: {_code(report.b)}"
    foot = ". ".join([sides, *(_escaped(note) for note in report.notes)]) + "."
    head = [f"### {_escaped(report.headline)}", ""]
    found = findings(report, lines - len(head) - 4)
    table = ["| | run | A -> B |", "| --- | --- | --- |", *map(_table_row, found), ""] if found else []
    return _lines([*head, *table, foot])


def github(report: Report, to_summary: Callable[[str], None] | None = None) -> str:
    """Returns annotations of the worst regressions as workflow commands, and the Markdown, in at most 20 lines.

    Args:
        to_summary: takes the Markdown, such as into the job's summary; the annotations alone are returned then.
    """
    regressed = [finding for finding in findings(report, LINES) if finding.kind in REGRESSIONS]
    shown = [_annotation("error", "compare", report.headline)] if regressed else []
    shown += [_annotation("error", finding.who, finding.what) for finding in regressed[: ANNOTATIONS - 1]]
    shown = shown or [_annotation("notice", "compare", report.headline)]
    if to_summary:
        to_summary(markdown(report))
        return _lines(shown)
    return _lines(shown) + markdown(report, LINES - len(shown))


def as_json(report: Report) -> str:
    """Returns all of it as one line of JSON.

    Keys: `a`, `b`, `exact`, `regressions`, `compared`, `counts` by kind, `notes` and `changes`, of which each has
    `kind`, `preset`, `dataset`, `method`, `epsilon`, `accounting`, `seed`, `source`, `metric`, `old`, `new` (null where
    that side lacks it), `tolerance` (a number in the metric's unit) and `tolerance_from` in words. Infinity is "inf".
    """
    value = {
        "a": report.a,
        "b": report.b,
        "exact": report.exact,
        "regressions": report.regressions,
        "compared": report.compared,
        "counts": {kind: report.count(kind) for kind in KINDS},
        "notes": list(report.notes),
        "changes": [_fields(change) for change in report.changes],
    }
    return json.dumps(value, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Report], str]] = {"text": text, "json": as_json, "md": markdown, "github": github}


def _lines(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def _fields(change: Change) -> dict[str, Any]:
    limit = change.limit
    row = change.row.run._asdict() | {"metric": change.row.metric, "old": change.old, "new": change.new}
    row |= {"tolerance": limit and limit.amount, "tolerance_from": limit and limit.words}
    return {"kind": change.kind} | {key: "inf" if value == math.inf else value for key, value in row.items()}


def _table_row(finding: Finding) -> str:
    return f"| {finding.kind} | {_escaped(finding.who)} | {_escaped(finding.what)} |"


def _escaped(text: str) -> str:
    """Returns text that Markdown shows as it is: names may hold any printable character."""
    return re.sub(r"([\\`*<\[\]|#~])", r"\\\1", text)


def _code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}"


def _annotation(level: str, title: str, message: str) -> str:
    """Returns a workflow command, with the characters that end one escaped."""
    plain = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    name = title.replace("%", "%25").replace(":", "%3A").replace(",", "%2C").replace("\r", "%0D").replace("\n", "%0A")
    return f"::{level} title={name}::{plain}"
