"""One self-contained report.html: tables, figures, provenance and limits; it opens anywhere and loads nothing."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Iterable
from html import escape
from pathlib import Path
from typing import Any

from workflow.common import chosen_on
from workflow.common.contracts import RunFolder, format_epsilon, run_folders
from workflow.common.errors import UserError, command
from workflow.common.files import read_object, write_text
from workflow.common.options import Parser
from workflow.common.readers.guard import read_bytes, read_text, reading

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
h3 { font-size: 1rem; margin-top: 1.8rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th { border-bottom: 2px solid #444; font-weight: 600; line-height: 1.25; vertical-align: bottom; }
th, td { padding: 3px 9px; text-align: left; white-space: nowrap; }
td.right, th.right { text-align: right; }
tbody tr:nth-child(even) { background: #f5f5f5; }
p.note { color: #555; font-size: 13px; margin: .3rem 0; max-width: 60rem; }
figure { margin: 1.5rem 0; } img { max-width: 100%; }
summary { cursor: pointer; } pre { font-size: 12px; overflow-x: auto; }
@media (prefers-color-scheme: dark) {
  body { background: #16181c; color: #e4e4e4; } tbody tr:nth-child(even) { background: #202329; }
  p.note { color: #a9a9a9; } img { background: #fff; } th { border-color: #aaa; }
}
"""

RANKING = "rank"  # the table that has a part of its own
CODE = re.compile("`([^`]+)`")  # Markdown's names

LIMITS = (
    "Scores of one preset compare methods with each other at that preset's size. The paper trained longer and with "
    "larger networks, so its column shows the distance, not a reproduction, unless the preset is the paper's.",
    "The privacy spent is computed by an accountant from the run's ledger, not measured. An epsilon under the count "
    "published is what the method's authors claim; where the count sound is larger, that claim is not proved.",
    "These runs protect nobody: their noise follows from public numbers and the records, so that they can be repeated. "
    "Pictures that need protection take python -m methods release.",
    "The privacy cost of choosing settings is not counted.",
    "Each run shows its last model; within a run, no model, classifier or image was selected by its score on the real "
    "test data.",
    "FID on classifier features depends on the classifier trained here; it must not be compared with Inception FID.",
    "FWD, the Frechet wavelet distance, has no network and is the same on every machine; it compares with FWD of this "
    "suite alone.",
)


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def _row(tag: str, cells: list[str], right: list[bool]) -> str:
    classes = [' class="right"' if is_right else "" for is_right in right]
    # Only <br> has a meaning in our table headers; everything else is text.
    texts = [escape(cell).replace("&lt;br&gt;", "<br>") for cell in cells]
    return "<tr>" + "".join(f"<{tag}{c}>{t}</{tag}>" for c, t in zip(classes, texts, strict=True)) + "</tr>"


def markdown_to_html(text: str) -> str:
    """Returns the HTML of a table page: its `###` title, its pipe table and its paragraphs of notes.

    Raises ValueError for a table whose rows differ in length.
    """
    blocks = [block.strip() for block in text.split("\n\n") if block.strip()]
    parts = []
    for block in blocks:
        if block.startswith("### "):
            parts.append(f"<h3>{escape(block[4:])}</h3>")
        elif block.startswith("|"):
            head, rule, *body = map(_cells, block.splitlines())
            if {len(row) for row in (rule, *body)} != {len(head)}:
                raise ValueError(f"a row of the table that begins {head[:3]} has other cells than its head")
            right = [cell.endswith(":") for cell in rule]
            rows = "".join(_row("td", cells, right) for cells in body)
            table = f"<table><thead>{_row('th', head, right)}</thead><tbody>{rows}</tbody></table>"
            parts.append(f'<div class="wide">{table}</div>')
        else:
            parts.append(f'<p class="note">{escape(block)}</p>')
    return "\n".join(parts)


def _page(path: Path) -> str:
    """Returns the HTML of a table page's file. Raises UserError naming one that is damaged."""
    problem, maker = "is no table", "remove it, or make it again with `python -m evaluation.report.scores_tables`"
    text = read_text(path, problem, maker)
    with reading(path, problem, maker):
        return markdown_to_html(text)


def _figure(path: Path) -> str:
    data = base64.b64encode(read_bytes(path, "is no figure", "remove it")).decode()
    return f'<figure><img alt="{escape(path.stem)}" src="data:image/png;base64,{data}"></figure>'


def _simple_table(head: list[str], rows: Iterable[list[str]]) -> str:
    right = [False] * len(head)
    body = "".join(_row("td", row, right) for row in rows)
    return f'<div class="wide"><table><thead>{_row("th", head, right)}</thead><tbody>{body}</tbody></table></div>'


def _number(value: Any, pattern: str) -> str:
    return format(value, pattern) if isinstance(value, int | float) else ""


def _entries(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else []


def _run_row(folder: RunFolder, run: dict[str, Any]) -> list[str]:
    steps = f"{run.get('steps_done', '')} of {run.get('steps_planned', '')}" if "steps_done" in run else ""
    hyper = ", ".join(f"{key}={json.dumps(value)}" for key, value in sorted(_entries(run.get("hyper"))))
    who = [folder.dataset, folder.run, str(run.get("method", "")), format_epsilon(folder.epsilon), str(folder.seed)]
    cost = [_number(run.get("train_seconds"), ".0f"), _number(run.get("peak_memory_mib"), ".0f")]
    return [*who, steps, *cost, hyper]


def _origin(provenance: dict[str, Any]) -> str:
    """Returns one line for where a run was made, without the time, so that equal origins fall together."""
    packages = ", ".join(f"{name} {version}" for name, version in sorted(_entries(provenance.get("packages"))))
    state = " with uncommitted changes" if provenance.get("modified") else ""
    machine = f"{provenance.get('processor', 'unknown processor')}, {provenance.get('cores', '?')} cores"
    python = f"Python {provenance.get('python', 'unknown')}"
    return f"commit {provenance.get('commit') or 'unknown'}{state}; {machine}; {python}; {packages}"


def _provenance(runs: list[tuple[RunFolder, dict[str, Any]]]) -> str:
    if not runs:
        return "<p>There is no run.json.</p>"
    records = [run["provenance"] if isinstance(run.get("provenance"), dict) else {} for _, run in runs]
    times = sorted(str(record["time"]) for record in records if record.get("time"))
    origins: dict[str, int] = {}
    for record in records:
        origins[_origin(record)] = origins.get(_origin(record), 0) + 1
    lines = "".join(f"<li>{count} of {len(runs)} runs: {escape(line)}</li>" for line, count in sorted(origins.items()))
    span = f"<p>Runs finished between {escape(times[0])} and {escape(times[-1])}.</p>" if times else ""
    head = ["Data set", "Run", "Method", "ε", "Seed", "Steps", "Seconds", "Peak MiB", "Settings"]
    table = _simple_table(head, (_run_row(*item) for item in runs))
    return f"<ul>{lines}</ul>{span}<details><summary>All {len(runs)} runs and their settings</summary>{table}</details>"


def _choices(root: Path) -> list[str]:
    """Returns the part on how settings were chosen, from the settings in provenance.json; empty where none says it."""
    path = root / "provenance.json"
    if not path.is_file():
        return []
    record = read_object(path, "provenance.json")
    with reading(path, "holds no settings of a preset", "write it again with `python -m workflow.record`"):
        sentences = chosen_on.sentences(record.get("settings", {}))
    lines = (f"<li>{CODE.sub(_code, escape(text))}</li>" for text in sentences)
    return ["<h2>How settings were chosen</h2>", f"<ul>{''.join(lines)}</ul>"] if sentences else []


def _which_method(root: Path) -> list[str]:
    """Returns the part that ranks the methods, written by `python -m evaluation.rank`; empty where none was."""
    path = root / f"tables/{RANKING}.md"
    return ["<h2>Which method?</h2>", _page(path)] if path.is_file() else []


def _code(match: re.Match[str]) -> str:
    return f"<code>{match[1]}</code>"


def build_report(root: Path, folders: Iterable[RunFolder], leave_out: Collection[str] = ()) -> str:
    """Returns the report of `results/<preset>` as one HTML page; `folders` are the runs whose origin is shown.

    Tables and figures named in `leave_out` are not shown, though an earlier configuration may have made them.

    Raises:
        UserError: there are no tables under `root`.
    """
    tables, figures = (
        [path for path in sorted(root.glob(pattern)) if path.stem not in leave_out]
        for pattern in ("tables/*.md", "figures/*.png")
    )
    if not tables:
        raise UserError(f"no tables under {root}/tables; make them with `python -m evaluation.report.scores_tables`")
    trained = [folder for folder in folders if (folder.path / "run.json").is_file()]
    runs = [(folder, read_object(folder.path / "run.json", "run.json")) for folder in trained]
    title = f"DP image generation benchmark: preset {escape(root.resolve().name)}"
    parts = [
        f"<h1>{title}</h1>",
        "<h2>Tables</h2>",
        *(_page(path) for path in tables if path.stem != RANKING),
        "<h2>Figures</h2>",
        *map(_figure, figures),
        *_which_method(root),
        "<h2>Limits</h2>",
        "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in LIMITS) + "</ul>",
        *_choices(root),
        "<h2>Provenance</h2>",
        _provenance(runs),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    page = ["<!doctype html>", '<html lang="en">', f"<head>{head}<style>{STYLE}</style></head>", "<body>", *parts]
    return "\n".join([*page, "</body>", "</html>", ""])


@command
def main(argv: list[str] | None = None) -> None:
    """Runs `python -m evaluation.report.page`."""
    parser = Parser(prog="python -m evaluation.report.page", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="results/<preset> with tables/, figures/ and runs/")
    parser.add_argument("--runs", nargs="+", metavar="RUNDIR", help="run folders; default: all under ROOT/runs")
    parser.add_argument("--out", type=Path, required=True, help="report.html to write")
    parser.add_argument("--leave-out", nargs="+", default=[], metavar="NAME", help="tables and figures not to show")
    options = parser.parse_args(argv)
    folders = run_folders(options.root, options.runs)
    write_text(options.out, build_report(options.root, folders, options.leave_out))


if __name__ == "__main__":
    raise SystemExit(main())
