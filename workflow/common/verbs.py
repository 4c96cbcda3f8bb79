"""One command of many verbs: a verb is a module of its own, which loads when it is called."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from workflow.common import process
from workflow.common.errors import unknown
from workflow.common.options import Parser

HELP = ("-h", "--help")


@dataclass(frozen=True)
class Verb:
    """A sub-command: one line on it, and the module that has its `add_arguments(parser)` and `run(arguments)`.

    The module may have `epilog(argv)`, which returns what `VERB ... --help` says below the options, and `PASSES_ON`,
    true where `run` takes the words behind the verb as they are.
    """

    summary: str
    module: str

    def load(self) -> ModuleType:
        """Imports the module, which may take seconds."""
        with process.importing():
            return import_module(self.module)


def parser_of(prog: str, description: str, verbs: Mapping[str, Verb], loaded: Sequence[str] = ()) -> Parser:
    """Returns the parser of all verbs, with the options of those that are `loaded`."""
    parser = Parser(prog=prog, description=description)
    added = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in verbs.items():
        options = added.add_parser(name, help=verb.summary, description=verb.summary)
        if name in loaded:
            verb.load().add_arguments(options)
    return parser


def run(prog: str, description: str, verbs: Mapping[str, Verb], argv: Sequence[str], version: str = "") -> int | None:
    """Runs the verb that `argv` names and returns its exit code. Raises UserError for an unknown one."""
    chosen = [name for name in argv[:1] if name in verbs]
    if argv and not argv[0].startswith("-") and not chosen:
        raise unknown("command", argv[0], verbs)
    module = verbs[chosen[0]].load() if chosen else None
    if getattr(module, "PASSES_ON", False):
        return module.run(list(argv[1:]))
    parser = parser_of(prog, description, verbs, chosen)
    if version:
        parser.add_argument("--version", action="version", version=version)
    if set(HELP) & set(argv) and hasattr(module, "epilog"):
        _say_below(parser, chosen[0], module.epilog(argv[1:]))
    return module.run(parser.parse_args(argv)) if module else parser.parse_args(argv)


def _say_below(parser: Parser, verb: str, text: str) -> None:
    added = next(action for action in parser._actions if action.dest == "verb")
    added.choices[verb].epilog, added.choices[verb].formatter_class = text, RawDescriptionHelpFormatter
