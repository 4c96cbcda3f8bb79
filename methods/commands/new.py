"""`python -m methods new NAME`: writes the file of a new method: a whole one, of a few lines, to be changed."""

from __future__ import annotations

import argparse
import keyword
import re
from pathlib import Path
from string import Template

from methods.core import registry
from workflow.common.errors import UserError
from workflow.common.files import write_text
from workflow.common.run_name import check_run_name

TEMPLATE = Path(__file__).with_name("template.txt")
# What stands beside the methods or means something else where a method is named.
TAKEN = ("core", "commands", "external")
NEXT = """\
{path} is a whole method: it takes noisy class means, at a sound epsilon. Next:
  look at it         dpbench describe {name}
  change it          what it gives out: releases; how: prepare and step; what it draws: sample
  test it            python -m pytest -q -n 0 tests/contract -k {name}
  compare it         add one line under runs: in workflow/config/smoke.yaml (or another preset: dpbench presets):
                       {name}: {{}}
                     and dpbench graph --cores 2 --config preset=smoke
docs/add-a-method.md does this with a real one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the method's name."""
    parser.add_argument("name", help="of the method and its file: a-z, 0-9 and _, a letter first")


def run(arguments: argparse.Namespace) -> None:
    """Writes the file and prints what to do next. Raises UserError, and writes nothing, for a name that cannot be."""
    path = write(arguments.name)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    print(NEXT.format(path=shown, name=arguments.name))


def write(name: str) -> Path:
    """Writes methods/NAME.py and returns its path. Raises UserError for an impossible name or one that exists."""
    path = registry.FOLDER / f"{check_run_name(name, 'new')}.py"
    if keyword.iskeyword(name) or name in TAKEN:
        raise UserError(f"new: {name!r} is taken by Python or the suite; choose another, such as {name}_gan")
    if path.exists():
        raise UserError(f"new: there is a method {name!r} already, {path}, which stays as it is; choose another name")
    title = name.replace("_", " ").capitalize()
    text = Template(TEMPLATE.read_text(encoding="utf-8"))
    write_text(path, text.substitute(title=title, cls=_class_name(name, text.template)))
    return path


def _class_name(name: str, template: str) -> str:
    """Returns a class's name as Python has them, words together, each with a capital, that means nothing else there."""
    cls = "".join(part.capitalize() for part in name.split("_"))
    return f"{cls}Method" if keyword.iskeyword(cls) or re.search(rf"\b{cls}\b", template) else cls
