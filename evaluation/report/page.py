"""One self-contained report.html: headline, tables, plots, a card for each run; it opens anywhere and loads nothing.

It needs scores.csv alone, so it can be made of committed results too, without any training:
`python -m evaluation.report.page --root results/reference/quick --out report.html`
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from evaluation.report.contents import Contents, gather
from evaluation.report.layout import Layout, load_layout
from workflow.common import chosen_on
from workflow.common.at_file import AtFile
from workflow.common.contracts import RunFolder, run_folders
from workflow.common.errors import command
from workflow.common.files import json_or_path, write_text
from workflow.common.options import Parser
from workflow.common.readers.guard import read_bytes, read_text, reading

HERE = Path(__file__).resolve().parent
LAYOUT = HERE.parents[1] / "workflow/config/report.yaml"
PUBLISHED = HERE.parents[1] / "results/published"
SCRIPTS = ("vega.min.js", "vega-lite.min.js", "sortable.min.js")
_CODE = re.compile("`([^`]+)`")
_MAP = re.compile(r"^//# sourceMappingURL=.*$", re.MULTILINE)
# By `computed_in` of a run's run.json, what follows where its settings allow bfloat16.
_WIDENED = {"fp32": "", "bf16 and fp32": " for a part of the steps"}

LIMITS = (
    "Scores of one preset compare methods with each other at that preset's size. The paper trained longer and with "
    "larger networks, so the difference to its numbers shows the distance, not a reproduction, unless the preset is "
    "the paper's.",
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


def _code(text: str) -> Markup:
    """Returns text as HTML, with Markdown's names set as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


def _json(value: Any) -> Markup:
    """Returns JSON that may stand in a script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def _minute(time: Any) -> str:
    """Returns a time such as 2026-01-31T12:34:56+00:00 to the minute."""
    return f"{str(time)[:16].replace('T', ' ')} UTC"


def _script(name: str) -> Markup:
    text = (HERE / "vendor" / name).read_text(encoding="utf-8")
    return Markup(_MAP.sub("", text))


def _origin(provenance: Mapping[str, Any]) -> str:
    """Returns one line for where a run was made, without the time, so that equal origins fall together."""
    packages = provenance.get("packages")
    named = ", ".join(f"{name} {version}" for name, version in sorted(packages.items())) if packages else ""
    state = " with uncommitted changes" if provenance.get("modified") else ""
    machine = f"{provenance.get('processor', 'unknown processor')}, {provenance.get('cores', '?')} cores"
    python = f"Python {provenance.get('python', 'unknown')}"
    return f"commit {provenance.get('commit') or 'unknown'}{state}; {machine}; {python}; {named}"


def _origins(runs: Sequence[Mapping[str, Any]]) -> tuple[list[tuple[int, str]], list[str]]:
    """Returns how many runs were made in which way, and the times at which runs ended."""
    records = [run["provenance"] if isinstance(run.get("provenance"), dict) else {} for run in runs]
    lines = [_origin(record) + _widened(run) for record, run in zip(records, runs, strict=True)]
    return [(lines.count(line), line) for line in sorted(set(lines))], sorted(
        str(record["time"]) for record in records if record.get("time")
    )


def _widened(run: Mapping[str, Any]) -> str:
    allowed = run["hyper"].get("precision") if isinstance(run.get("hyper"), dict) else None
    part = _WIDENED.get(str(run.get("computed_in"))) if allowed == "bf16" else None
    return f"; bfloat16 of the settings computed in single precision{part}" if part is not None else ""


def _choices(root: Path, provenance: Mapping[str, Any]) -> list[str]:
    path = root / "provenance.json"
    if not path.is_file():
        return []
    with reading(path, "holds no settings of a preset", "write it again with `python -m workflow.record`"):
        return chosen_on.sentences(provenance.get("settings", {}))


def _figures(root: Path, layout: Layout, leave_out: Collection[str]) -> list[tuple[str, str]]:
    """Returns the title and the data URI of each figure of images; the plots stand in the page as charts."""
    passed = {*leave_out, *layout.plots}
    paths = [path for path in sorted(root.glob("figures/*.png")) if path.stem not in passed]
    pixels = [base64.b64encode(read_bytes(path, "is no figure", "remove it")).decode() for path in paths]
    titles = {name: spec.title for name, spec in layout.figures.items()}
    named = [titles.get(path.stem, path.stem) for path in paths]
    return [(title, f"data:image/png;base64,{text}") for title, text in zip(named, pixels, strict=True)]


def render(contents: Contents, figures: Sequence[tuple[str, str]], choices: Sequence[str]) -> str:
    """Returns the page."""
    loader = jinja2.FileSystemLoader(HERE / "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"code": _code, "as_json": _json, "minute": _minute}
    made_by, times = _origins(contents.runs)
    return environment.get_template("page.html").render(
        page=contents, figures=figures, choices=choices, limits=LIMITS, made_by=made_by, times=times,
        scripts=[_script(name) for name in SCRIPTS],
        style=Markup(read_text(HERE / "templates/page.css", "is no style sheet")),
        script=Markup(read_text(HERE / "templates/page.js", "is no script")),
    )  # fmt: skip


def build_report(
    root: Path, layout: Layout, folders: Sequence[RunFolder], leave_out: Collection[str] = (),
    origins: Mapping[str, Any] | None = None, published: Path = PUBLISHED,
) -> str:  # fmt: skip
    """Returns the report of `results/<preset>` as one HTML page; the arguments are those of `contents.gather`.

    Figures named in `leave_out` are not shown either, though an earlier configuration may have made them.

    Raises:
        UserError: no scores.csv under `root`, or a file there is damaged.
    """
    contents = gather(root, published, layout, folders, leave_out, origins or {})
    return render(contents, _figures(root, layout, leave_out), _choices(root, contents.provenance))


@command
def main(argv: list[str] | None = None) -> None:
    """Runs `python -m evaluation.report.page`."""
    parser = Parser(prog="python -m evaluation.report.page", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="results/<preset> with scores.csv, figures/ and runs/")
    parser.add_argument("--runs", nargs="+", metavar="RUNDIR", action=AtFile,
                        help="run folders, or @FILE that lists them; default: all under ROOT/runs")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="report.html to write")
    parser.add_argument("--leave-out", nargs="+", default=[], metavar="NAME", help="tables and figures not to show")
    parser.add_argument("--layout", default=str(LAYOUT), help="of the tables; default: workflow/config/report.yaml")
    parser.add_argument("--datasets", nargs="+", metavar="NAME", help="show these alone (default: as the layout says)")
    parser.add_argument("--published", type=Path, default=PUBLISHED, help="folder of published numbers")
    parser.add_argument("--origins", default="{}", help="JSON: run -> data set -> setting -> where it came from")
    options = parser.parse_args(argv)
    layout = load_layout(options.layout)
    shown = layout.only(options.datasets) if options.datasets else layout
    folders, origins = run_folders(options.root, options.runs), json_or_path(options.origins, "--origins")
    text = build_report(options.root, shown, folders, options.leave_out, origins, options.published)
    write_text(options.out, text)


if __name__ == "__main__":
    raise SystemExit(main())
