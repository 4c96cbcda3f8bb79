"""The parser of every command line and types of options that several share; a bad value is one line, exit code 2."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from workflow.common.errors import UserError

_EMPTY = re.compile(r"--[a-z0-9-]+=\s*")


class Parser(argparse.ArgumentParser):
    """A parser whose refusals are a UserError, one line without the usage, and that takes no option abbreviated."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, **named})
        self._lists: dict[str, str] = {}

    def takes_several(self, option: str, value: str) -> None:
        """Lets `--x a b` stand for `--x a --x b`, as `one_each` does with `option` and `value`."""
        self._lists[option] = value

    def error(self, message: str) -> NoReturn:
        """Raises UserError with argparse's words and where the options are explained."""
        raise UserError(f"{message}; see {self.prog} --help")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses as argparse does.

        Raises UserError for an empty argument, which as a path would be the working folder, and for one with a null
        character, which no path may hold.
        """
        given = sys.argv[1:] if args is None else list(args)
        for before, argument in zip(["", *given], given, strict=False):
            if "\0" in argument:
                raise UserError(f"an argument holds a null character: {argument!r}")
            if not argument.strip() or _EMPTY.fullmatch(argument):
                option = before if before.startswith("--") else argument.strip().rstrip("=") or "an argument"
                raise UserError(f"{option} is empty; give a value, or leave it out")
        for option, value in self._lists.items():
            given = one_each(option, value, given)
        return super().parse_known_args(given, namespace)


def whole(option: str, low: int = 1, high: int = 2**31 - 1) -> Callable[[str], int]:
    """Returns argparse's `type` for a whole number from `low` to `high`; it raises UserError naming `option`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]+", text):
            raise UserError(f"{option} must be a whole number, got {text[:80]!r}; write {_digits(text, low)}")
        value = int(text) if len(text) <= 20 else high + 1
        if value < low:
            raise UserError(f"{option} must be at least {low}, got {value}")
        if value > high:
            raise UserError(f"{option} must be at most {high}, got {text[:80]}")
        return value

    return parse


def _digits(text: str, low: int) -> str:
    """Returns how a number such as 1e3 is to be written; an example where the text is none."""
    with contextlib.suppress(ValueError, OverflowError):
        if float(text).is_integer() and abs(float(text)) < 2**53:
            return str(int(float(text)))
    return f"it in digits, such as {max(low, 10)}"


def number(option: str, low: float, high: float, open_low: bool = False) -> Callable[[str], float]:
    """Returns argparse's `type` for a number from `low` to `high`, `low` left out if `open_low`; it raises as `whole`.

    Neither limit may be infinite where infinity is not a value.
    """
    wanted = f"a number {f'above {low:g} and at most' if open_low else f'from {low:g} to'} {high:g}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise UserError(f"{option} must be {wanted}, got {text[:80]!r}") from None
        # Written so that NaN fails as well.
        if not low <= value <= high or (open_low and value == low):
            raise UserError(f"{option} must be {wanted}, got {text[:80]}")
        return value

    return parse


def one_each(option: str, value: str, arguments: Sequence[str]) -> list[str]:
    """Returns a command line with `--x a b` written as `--x a --x b`: no file name that follows can be a value.

    Args:
        option: it is added to the parser with action "append".
        value: regular expression of the values after the first; what does not match ends them.

    Raises:
        UserError: such a value is the name of a file as well.
    """
    found: list[str] = []
    inside = False
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if argument.startswith("-"):
            inside = argument == option
        elif before != option and inside:
            inside = re.fullmatch(value, argument, re.ASCII) is not None
            if inside:
                _refuse_file(option, argument)
                found.append(option)
        found.append(argument)
    return found


def _refuse_file(option: str, argument: str) -> None:
    if Path(argument).exists():
        raise UserError(
            f"{argument!r} after {option} may be a value or the file of that name; write {option} {argument} or "
            f".{os.sep}{argument}"
        )
