"""Writes docs/methods/: a card for each method that docs/make/methods.yaml has words for, and their list.

`python -m docs.make.method_cards` writes them; a test holds the committed ones to what it would write.
"""

from __future__ import annotations

import re
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

from docs.make import card_numbers
from evaluation.report.layout import Layout, load_layout
from methods.core import registry
from workflow.common.errors import UserError, command
from workflow.common.files import write_text
from workflow.common.options import Parser
from workflow.common.readers.yaml_text import read_yaml

ROOT = Path(__file__).resolve().parents[2]
WORDS = ROOT / "docs/make/methods.yaml"
CARDS = ROOT / "docs/methods"
WIDTH = 118
MADE_BY = "<!-- Written by `python -m docs.make.method_cards`: change docs/make/methods.yaml or the code instead. -->"
FROM_SOURCE = (
    "In training, from the source above. `python -m methods describe` prints the same, and what the evaluation does "
    "otherwise for every method alike."
)
_DEPARTURE = re.compile(r"^(departure|option|kept)\b")
_MARKED = {"*": r"\*", "<": "&lt;", ">": "&gt;"}


@dataclass(frozen=True)
class Words:
    """The prose of a card: what the method does, and when one takes it."""

    idea: str
    use: str


def words(path: Path = WORDS) -> dict[str, Words]:
    """Returns the prose by method. Raises UserError for a method that is not there, or a text that is missing."""
    found = read_yaml(path)
    if not isinstance(found, dict):
        raise UserError(f"{path} must hold a mapping of methods; see the committed one")
    for name, texts in found.items():
        registry.load(name)
        if not isinstance(texts, dict) or set(texts) != {"idea", "use"} or not all(map(_is_text, texts.values())):
            raise UserError(f"{path}: {name} must have the texts `idea` and `use`, and nothing else")
    return {name: Words(**texts) for name, texts in found.items()}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def pages() -> dict[str, str]:
    """Returns the Markdown of each page by its file's name; index.md lists the cards."""
    layout, prose, numbers = load_layout(str(ROOT / "workflow/config/report.yaml")), words(), card_numbers.read(ROOT)
    found = {f"{name}.md": _card(name, text, numbers, layout) for name, text in prose.items()}
    return {"index.md": _index(prose, layout), **found}


def _index(prose: dict[str, Words], layout: Layout) -> str:
    lines = ["| method | what it is |", "| --- | --- |"]
    lines += [f"| [`{name}`]({name}.md) | {_plain(_summary(name))} |" for name in sorted(prose)]
    text = (
        "A card for each: its idea, its source, our numbers beside published ones, when to use it, and every known "
        "departure from its authors' code. `python -m methods list` prints the same list, "
        "`python -m methods describe NAME` a method's settings with their ranges."
    )
    return _page(["# Methods", _filled(text), "\n".join(lines)])


def _card(name: str, prose: Words, numbers: card_numbers.Numbers, layout: Layout) -> str:
    cls = registry.load(name)
    sources = [text for text in cls.SOURCES if not _DEPARTURE.match(text)]
    departures = [text for text in cls.SOURCES if _DEPARTURE.match(text)]
    parts = [f"# {_plain(_summary(name).split(': ')[0].rstrip('.'))}", _filled(f"`{name}`: {_plain(_summary(name))}")]
    parts += ["## Idea", _filled(prose.idea), "## When to use it", _filled(prose.use)]
    parts += ["## Source", _bullets(sources)]
    parts += ["## Numbers", *(_filled(part) if "|" not in part else part for part in numbers.of(name, layout))]
    if departures:
        parts += ["## Departures, and what was kept", _filled(FROM_SOURCE), _bullets(departures)]
    return _page(parts)


def _summary(name: str) -> str:
    return (sys.modules[registry.load(name).__module__].__doc__ or "").strip().splitlines()[0]


def _page(parts: list[str]) -> str:
    return "\n\n".join([MADE_BY, *parts]) + "\n"


def _plain(text: str) -> str:
    """Returns text whose marks are no Markdown."""
    return "".join(_MARKED.get(letter, letter) for letter in text)


def _filled(text: str, first: str = "", others: str = "") -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )


def _bullets(texts: list[str]) -> str:
    return "\n".join(_filled(_plain(text), "- ", "  ") for text in texts)


@command
def main(argv: list[str] | None = None) -> None:
    """Writes the cards, and removes those of methods that have no words; a page of somebody's own stays."""
    parser = Parser(prog="python -m docs.make.method_cards", description=__doc__)
    parser.add_argument("--out", type=Path, default=CARDS, help="folder of the cards (default: docs/methods)")
    out = parser.parse_args(argv).out
    made = pages()
    for name, text in made.items():
        write_text(out / name, text)
    for path in out.glob("*.md"):
        if path.name not in made and path.read_text(encoding="utf-8", errors="replace").startswith(MADE_BY):
            path.unlink()


if __name__ == "__main__":
    raise SystemExit(main())
