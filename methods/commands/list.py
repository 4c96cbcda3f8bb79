"""`python -m methods list`: one line for each method."""

from __future__ import annotations

import argparse
import sys

from methods.core import registry
from workflow.common.errors import UserError, print_error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are no options."""


def run(arguments: argparse.Namespace) -> int:
    """Prints the methods; for a file that cannot be loaded, one line on stderr, and returns 2."""
    status = 0
    for name in registry.names():
        try:
            print(f"{name}: {summary(name)}")
        except UserError as error:
            print_error(error)
            status = 2
    return status


def summary(name: str) -> str:
    """Returns the first line of a method's file, which says what it is."""
    return (sys.modules[registry.load(name).__module__].__doc__ or "").strip().splitlines()[0]
