"""Equal tuning: trials of every row for the same time, and the best of them into the preset; VERB --help says more."""

from __future__ import annotations

import argparse
import sys

from workflow.common import verbs
from workflow.common.errors import command

VERBS = {
    "search": verbs.Verb("try settings of every row, for the same time each; resumes", "workflow.tune.search"),
    "choose": verbs.Verb("write the best settings that were tried into the preset", "workflow.tune.choose"),
}


# For `dpbench tune`, which leaves the words behind it to the verbs here.
PASSES_ON = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none but the verbs' own."""


def run(argv: list[str], prog: str = "dpbench tune") -> int | None:
    """Runs one verb; `prog` is how the command was called."""
    return verbs.run(prog, __doc__, VERBS, argv)


@command
def main(argv: list[str] | None = None) -> int | None:
    return run(sys.argv[1:] if argv is None else argv, "python -m workflow.tune")


if __name__ == "__main__":
    raise SystemExit(main())
