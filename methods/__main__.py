"""`python -m methods VERB`: what methods there are and what they cost, and every step of a run."""

from __future__ import annotations

import sys
from importlib import import_module

from workflow.common import process
from workflow.common.errors import command, unknown
from workflow.common.options import Parser

# Each verb is a file of methods/commands; its modules load when it is called, as they take seconds.
VERBS = {
    "list": "one line for each method",
    "describe": "everything about one method: settings with their ranges, published settings, sources",
    "account": "epsilon of a setting and noise for a budget; reads no data",
    "spending": "what runs spend over their course, by both counts, from their plans; reads no data",
    "published-costs": "what every published setting spends, as csv; reads no data",
    "audit": "a lower bound on epsilon from attacks, next to the accountants' upper ones",
    "audit-coverage": "how often the audit's lower bounds lie above an epsilon that is known; half a minute",
    "plan": "everything a run will release and what that costs, before any data is read",
    "warm-start": "a private artifact that several runs start from; continues after a kill",
    "train": "train one run under its ledger; continues where a killed run stopped",
    "sample": "draw a synthetic set with balanced labels from a trained run",
    "watch": "how far all runs of a graph are: planned, training, sampled, scored, failed; until Ctrl-C on a terminal",
    "release": "a private synthetic set in one folder that may be given away; its noise cannot be repeated",
    "run": "plan, warm start, training and samples of one run, in slots of time if need be",
    "join": "samples.npz from the parts that `run` leaves",
}


@command
def main(argv: list[str] | None = None) -> int | None:
    argv = sys.argv[1:] if argv is None else argv
    parser = Parser(prog="python -m methods", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, summary in VERBS.items():
        options = verbs.add_parser(verb, help=summary, description=summary)
        if argv[:1] == [verb]:
            with process.importing():
                module = import_module(f"methods.commands.{verb.replace('-', '_')}")
            module.add_arguments(options)
    if argv and not argv[0].startswith("-") and argv[0] not in VERBS:
        raise unknown("command", argv[0], VERBS)
    arguments = parser.parse_args(argv)
    return module.run(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
