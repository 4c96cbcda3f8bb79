"""`dpbench presets [NAME]`: the presets and their files, the rows of one, and how to write one's own."""

from __future__ import annotations

import argparse
import itertools
import re
from pathlib import Path

from workflow import merging
from workflow.common.errors import unknown
from workflow.overrides import own_rows

_SENTENCE = re.compile(r"[.!?](?=\s|$)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the name."""
    parser.add_argument("preset", nargs="?", metavar="NAME", help="list this preset's rows (default: the presets)")


def run(arguments: argparse.Namespace) -> None:
    """Prints the list. Raises UserError for an unknown preset."""
    names = merging.names()
    if arguments.preset is None:
        for name in names:
            print(", ".join(filter(None, [f"{name}: {_file(name)}", about(_text(name))])))
    elif arguments.preset in names:
        content = merging.shipped_content(arguments.preset)
        for run, entry in content["runs"].items():
            print(f"{run}: method {(entry or {}).get('method', run)}")
    else:
        raise unknown("preset", arguments.preset, names)
    print(f"\n{own_rows(arguments.preset or 'quick')}")


def _file(name: str) -> Path:
    """Returns the preset's file as seen from here where it lies below, for a person to open."""
    path = merging.FOLDER / f"{name}.yaml"
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def about(text: str) -> str:
    """Returns the sentences of the first line of a file's comment, and of further lines up to the first one's end."""
    comment = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    words = ""
    for line in comment:
        words = f"{words} {line.removeprefix('#').strip()}".strip()
        if ends := [*_SENTENCE.finditer(words)]:
            return words[: ends[-1].end()]
    return words


def _text(name: str) -> str:
    return (merging.FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
