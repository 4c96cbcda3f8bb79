"""`python -m methods VERB`: what methods there are and what they cost, and every step of a run."""

from __future__ import annotations

import sys

from workflow.common import verbs
from workflow.common.errors import command

# Each verb is a file of methods/commands.
VERBS = {
    "list": "one line for each method",
    "describe": "everything about one method: settings with their ranges, published settings, sources",
    "new": "write the file of a new method, which already trains: then change it",
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


def table() -> dict[str, verbs.Verb]:
    """Returns the verbs with the modules that do them."""
    return {
        verb: verbs.Verb(summary, f"methods.commands.{verb.replace('-', '_')}") for verb, summary in VERBS.items()
    }


@command
def main(argv: list[str] | None = None) -> int | None:
    return verbs.run("python -m methods", __doc__, table(), sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    raise SystemExit(main())
