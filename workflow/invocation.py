"""What Snakemake's own command line says of a configuration: its --configfile, --config and --workflow-profile.

What is malformed is told in one line. Snakemake itself takes the last of two values without a word, ends in a traceback
where there is no mapping, and goes on without a workflow profile that it does not find.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from workflow.common.errors import UserError, short, shown
from workflow.common.files import read_object
from workflow.common.readers.yaml_text import read_yaml, repeated_key

CONFIG = ("--config", "-C")
FILES = ("--configfile", "--configfiles")
PROFILE = ("--workflow-profile",)
_PROFILES = Path(__file__).resolve().parents[1] / "profiles"
_KEY = re.compile(r"[a-zA-Z_][\w-]*\w")


def check(arguments: Sequence[str]) -> None:
    """Raises UserError as `config_file`, `check_entries` and `check_profile` do."""
    for path in _values(arguments, FILES):
        config_file(Path(path))
    check_entries(arguments)
    check_profile(arguments)


def check_profile(arguments: Sequence[str]) -> None:
    """Raises UserError for a --workflow-profile that is nowhere: Snakemake would run everything on this machine."""
    for name in _values(arguments, PROFILE):
        places = Path(name), Path("profiles", name), _PROFILES / name
        if name != "none" and not any(place.exists() for place in places):
            valid = ", ".join(sorted(f"profiles/{path.name}" for path in _PROFILES.iterdir() if path.is_dir()))
            says = f"--workflow-profile: no such profile {shown(name)}"
            raise UserError(f"{says}; valid: {valid}, none, or a folder's path")


def check_entries(arguments: Sequence[str]) -> None:
    """Raises UserError for an entry of --config that is no KEY=VALUE, has no value, or whose key stands twice."""
    seen: dict[str, str] = {}
    for entry in _values(arguments, CONFIG):
        key, separator, value = entry.partition("=")
        if not separator or not _KEY.fullmatch(key):
            such = "such as preset=smoke seeds=0,1, and ends at the next option: targets stand before it"
            raise UserError(f"--config takes KEY=VALUE, {such}; got {shown(entry)}")
        if not value.strip():
            raise UserError(f"--config: {key}= has no value; give one, or leave {key} out")
        if key in seen:
            raise UserError(f"--config gives {key} twice, {shown(seen[key])} and {shown(value)}; keep one")
        if value[0] in "{[" and (twice := repeated_key(value)) is not None:
            raise UserError(f"--config: key {twice!r} stands twice in {key}={short(value)}; keep one")
        seen[key] = value


def config_file(path: Path) -> dict[str, Any]:
    """Returns the keys that a config file holds: YAML, or JSON where it is named .json.

    Raises UserError if it is missing, malformed, empty or no mapping, or a key stands twice.
    """
    if path.suffix == ".json":
        return read_object(path, "a configuration")
    content = read_yaml(path)
    if isinstance(content, dict):
        return content
    found = "nothing" if content is None else "a list" if isinstance(content, list) else shown(content)
    raise UserError(f"{path} must hold a mapping of keys, such as a line `extends: quick`; it holds {found}")


def _values(arguments: Iterable[str], options: Sequence[str]) -> Iterator[str]:
    """Yields what stands behind the options, written `--option A B` or `--option=A`, up to the next option."""
    inside = False
    for argument in arguments:
        name, separator, value = argument.partition("=")
        if argument.startswith("-"):
            inside = argument in options
            if separator and name in options:
                yield value
        elif inside:
            yield argument
