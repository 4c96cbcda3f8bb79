"""`python -m methods list`: one line for each method."""

from __future__ import annotations

import argparse
import ast
from importlib.util import find_spec
from pathlib import Path

from methods.core import registry
from workflow.common.errors import UserError, print_error

_PLAIN = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.FunctionDef, ast.ClassDef)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the option."""
    parser.add_argument("--names", action="store_true", help="the names alone, one a line")


def run(arguments: argparse.Namespace) -> int:
    """Prints the methods; for a file that cannot be loaded, one line on stderr, and returns 2."""
    if arguments.names:
        print("\n".join(registry.names()))
        return 0
    status = 0
    for name in registry.names():
        try:
            print(f"{name}: {summary(name)}")
        except UserError as error:
            print_error(error)
            status = 2
    return status


def summary(name: str) -> str:
    """Returns the first line of a method's file, which says what it is.

    Raises UserError for a file that cannot be loaded. One that plainly can is only read: torch alone takes seconds.
    """
    path = registry.FOLDER / f"{name}.py"
    if not _is_plain(path):
        registry.load(name)
    return (ast.get_docstring(ast.parse(path.read_bytes())) or name).splitlines()[0]


def _is_plain(path: Path) -> bool:
    """Whether a file does nothing but import what is there and define things, a public class among them."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError):
        return False
    first = body[:1] if ast.get_docstring(ast.Module(body, [])) is not None else []
    rest = body[len(first) :]
    defines = any(isinstance(one, ast.ClassDef) and not one.name.startswith("_") for one in rest)
    return defines and all(isinstance(one, _PLAIN) and _is_there(one) for one in rest)


def _is_there(statement: ast.stmt) -> bool:
    """Whether the packages that a statement imports are installed."""
    names = [alias.name for alias in statement.names] if isinstance(statement, ast.Import) else []
    names += [statement.module or ""] if isinstance(statement, ast.ImportFrom) else []
    return all(name and find_spec(name.split(".")[0]) is not None for name in names)
