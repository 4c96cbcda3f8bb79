"""`dpbench completion SHELL`: prints what makes a shell complete verbs, options, methods, presets and files.

The printed script holds the verbs and options of today; methods it asks for each time. Make it again after an update.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import shtab

from dpbench.verbs import all_verbs
from workflow import presets
from workflow.common import verbs
from workflow.common.errors import UserError
from workflow.common.options import Parser

SHELLS = ("bash", "zsh")
METHODS = {"bash": "_dpbench_methods", "zsh": "_dpbench_methods"}
# Asked for each time, for a method is a file that anybody adds; without torch, at once.
PREAMBLE = {
    "bash": '_dpbench_methods() { compgen -W "$(dpbench list --names 2>/dev/null)" -- "$1"; }\n',
    "zsh": '_dpbench_methods() { compadd -- ${(f)"$(dpbench list --names 2>/dev/null)"} }\n',
}
INSTALL = """\
to use it, once and again after an update:
  bash: dpbench completion bash > ~/.local/share/bash-completion/completions/dpbench
  zsh:  dpbench completion zsh > ~/.zfunc/_dpbench    (with ~/.zfunc in fpath before compinit)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the shell."""
    parser.add_argument("shell", choices=SHELLS, help="bash or zsh")


def epilog(argv: list[str]) -> str:
    """Returns where the script goes."""
    return INSTALL


def run(arguments: argparse.Namespace) -> None:
    """Prints the script."""
    print(script(arguments.shell))


def script(shell: str) -> str:
    """Returns the script for a shell. Raises UserError where a verb cannot be loaded, and so not be completed."""
    table = all_verbs()
    try:
        parser = verbs.parser_of("dpbench", "every command of the suite", table, list(table))
    except ImportError as error:
        raise UserError(f"completion needs all that the suite needs: {error}; run make setup") from None
    for action in parser._actions:
        for options in (action.choices or {}).values() if action.dest == "verb" else ():
            _mark(options)
    return shtab.complete(parser, shell=shell, preamble=PREAMBLE)


def _mark(parser: Parser) -> None:
    """Says of each argument what it may be, where its own choices do not."""
    for action in parser._actions:
        if action.choices or action.nargs == 0:
            continue
        if action.dest in ("name", "method") and "`python -m methods list`" in (action.help or ""):
            action.complete = METHODS
        elif action.dest == "preset":
            action.choices = presets.names()
        elif action.type is Path or any(word in (action.help or "") for word in (".json", ".npz", ".csv", "folder")):
            action.complete = shtab.FILE
