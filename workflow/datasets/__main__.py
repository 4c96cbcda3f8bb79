"""`python -m workflow.datasets NAME --out DIR`: makes DIR/{train,test}.npz and DIR/card.json.

For pictures of your own: NAME of your choice, with --folder and the settings below it, or --own with them as JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import get_type_hints

from workflow.common.errors import UserError, command
from workflow.common.files import json_or_path
from workflow.common.options import Parser
from workflow.common.own_set import OwnSet, check_own_name
from workflow.common.settings import range_of
from workflow.datasets import sources
from workflow.datasets.store import Dataset, save

ALIAS = "image_folder"


def load(name: str, given: list[Path], cache: Path, test_split: str) -> Dataset:
    """Returns data set `name`. Raises UserError for an unknown name or where its files are missing or wrong."""
    if name == "digits":
        from workflow.datasets import digits

        return digits.load()
    if name in sources.CELEBA_SIZES:
        from workflow.datasets import celeba

        return celeba.load(name, given, cache, test_split)
    from workflow.datasets import mnist

    return mnist.load(name, given, cache)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("name", metavar="NAME", help=f"{', '.join(sources.NAMES)}, or one of your own")
    parser.add_argument("--out", type=Path, help="folder for train.npz, test.npz and card.json")
    parser.add_argument("--source", type=Path, action="append", default=[], help="a folder with raw files; repeatable")
    parser.add_argument("--cache", type=Path, help="folder for downloads (default: the user's cache folder)")
    parser.add_argument("--check", action="store_true", help="only say whether the data are at hand: exit 0 or 1")
    own = parser.add_argument_group("pictures of your own")
    own.add_argument("--own", metavar="JSON", help="these settings as JSON in braces, or the path of a file of it")
    hints = get_type_hints(OwnSet)
    for field in dataclasses.fields(OwnSet):
        texts = [field.metadata["help"], range_of(field), "" if field.default in ("", False) else str(field.default)]
        texts[2] = texts[2] and f"default {texts[2]}"
        if field.name == "test_split":
            texts[0] += "; of CelebA: test or valid, as DP-GAN-DPAC"
        if field.name == "window":
            texts[0] += "; write --window=LOW,HIGH where LOW is below 0"
        kind = {"metavar": hints[field.name].__name__.upper()}
        if hints[field.name] is bool:
            kind = {"action": "store_true"}
        text = "; ".join(filter(None, texts)).replace("%", "%%")
        own.add_argument(f"--{field.name.replace('_', '-')}", default=argparse.SUPPRESS, help=text, **kind)


def _number(kind: type, text: str) -> int | float | str:
    """Returns the number, or the text as it is for the settings' own check to refuse."""
    try:
        return kind(text)
    except ValueError:
        return text


def own_settings(arguments: argparse.Namespace) -> OwnSet | None:
    """Returns what --own and the options of a user's own set say, or None if they name no folder.

    Raises UserError for unknown or impossible settings, and for settings that no folder goes with.
    """
    hints = get_type_hints(OwnSet)
    given = json_or_path(arguments.own, "--own") if arguments.own else {}
    for key, value in vars(arguments).items():
        if key in hints:
            given[key] = _number(hints[key], value) if hints[key] in (int, float) else value
    if arguments.name == ALIAS and "folder" not in given:
        if len(arguments.source) != 1:
            raise UserError(f"{ALIAS} needs one existing folder as --folder, got {list(map(str, arguments.source))}")
        given["folder"] = str(arguments.source[0])
    if "folder" in given or arguments.own:
        return OwnSet.parse(arguments.name, given)
    if set(given) - {"test_split"}:
        option = min(set(given) - {"test_split"}).replace("_", "-")
        raise UserError(f"--{option} describes pictures of your own; it needs --folder")
    return None


def make_own(name: str, own: OwnSet, out: Path) -> None:
    """Makes the set and prints one line on it. Raises UserError before anything is written."""
    if name != ALIAS:
        check_own_name(name, sources.NAMES)
    from workflow.datasets import own as own_sets

    folder, target = Path(os.path.expanduser(own.folder)).resolve(), out.resolve()
    if folder == target or folder in target.parents:
        raise UserError(f"--out {out} lies in {own.folder}, where it would become pictures to read; choose another")
    # Another tool's file of the same name is the owner's only copy, perhaps.
    given = {Path(os.path.expanduser(path)).resolve() for path in (own.folder, own.test, own.labels, own.test_labels)}
    if written := given & {target / "train.npz", target / "test.npz", target / "card.json"}:
        raise UserError(f"--out {out} would write over {written.pop()}, which is to be read; choose another")
    dataset = own_sets.load(name, own)
    save(dataset, out, private=not own.public)
    print(own_sets.summary(dataset))
    if not own.public and (notice := own_sets.warning(dataset)):
        print(notice, file=sys.stderr)


def _at_hand(arguments: argparse.Namespace) -> bool:
    if arguments.own or hasattr(arguments, "folder"):
        return os.path.exists(os.path.expanduser(own_settings(arguments).folder))
    return sources.available(arguments.name, arguments.source)


def run(arguments: argparse.Namespace) -> int:
    """Makes the data. Raises UserError for an unknown name, impossible settings, or files that are missing or wrong."""
    if arguments.check:
        available = _at_hand(arguments)
        print("available" if available else "missing")
        return 0 if available else 1
    own = own_settings(arguments)
    if own is None:
        sources.check_name(arguments.name)
    if arguments.out is None:
        raise UserError("--out DIR is required")
    if own is not None:
        make_own(arguments.name, own, arguments.out)
        return 0
    # Imported late: --check must stay cheap, and downloads is the only user of the torchvision guard.
    from workflow.datasets.downloads import default_cache

    test_split = getattr(arguments, "test_split", "test")
    dataset = load(arguments.name, arguments.source, arguments.cache or default_cache(), test_split)
    save(dataset, arguments.out)
    print(f"{arguments.name}: {len(dataset.train)} train, {len(dataset.test)} test, from {dataset.source}")
    return 0


@command
def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m workflow.datasets", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())
