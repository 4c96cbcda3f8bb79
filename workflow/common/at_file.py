"""Options of many values: `@FILE` among them stands for the lines of a file, since a command line has a limit."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from workflow.common.errors import UserError
from workflow.common.readers.guard import read_text


class AtFile(argparse.Action):
    """Argparse's action of an argument of several texts, where `@FILE` stands for the lines of FILE without blank ones.

    Linux gives one argument 128 KiB and a shell's command is one: some thousand paths. A value that begins with @
    itself is written ./@value.
    """

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Raises UserError for a file that cannot be read or lists nothing."""
        setattr(namespace, self.dest, expanded(values or []))


def expanded(values: Iterable[str]) -> list[str]:
    """Returns the texts with the lines of FILE in the place of each `@FILE`. Raises UserError as `AtFile`."""
    return [one for value in values for one in (_lines(value[1:]) if value.startswith("@") else [value])]


def _lines(path: str) -> list[str]:
    if not path:
        raise UserError("@ names no file; write @FILE, a text file of one path a line")
    lines = read_text(path, "is no list", "give a text file of one path a line").splitlines()
    if not (found := [line.strip() for line in lines if line.strip()]):
        raise UserError(f"{path} lists nothing; give a text file of one path a line")
    return found
