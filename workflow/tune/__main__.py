"""`python -m workflow.tune VERB`: trials of every row for the same time, and the best of them into the preset."""

from __future__ import annotations

import sys

from workflow.common import verbs
from workflow.common.errors import command

VERBS = {
    "search": verbs.Verb("try settings of every row, for the same time each; resumes", "workflow.tune.search"),
    "choose": verbs.Verb("write the best settings that were tried into the preset", "workflow.tune.choose"),
}


@command
def main(argv: list[str] | None = None) -> int | None:
    return verbs.run("python -m workflow.tune", __doc__, VERBS, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    raise SystemExit(main())
