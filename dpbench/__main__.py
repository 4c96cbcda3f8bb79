"""dpbench VERB: every command of the suite. `dpbench VERB --help` says more of one."""

from __future__ import annotations

import sys

from dpbench.verbs import all_verbs
from dpbench.version import version
from workflow.common import process, verbs
from workflow.common.errors import command
from workflow.common.pins import pin


@command
def main(argv: list[str] | None = None) -> int | None:
    """Runs one verb: the same functions, with the same options, as the `python -m` form of each."""
    return verbs.run("dpbench", __doc__, all_verbs(), sys.argv[1:] if argv is None else argv, version())


def entry() -> int:
    """Runs `main` as an installed script does, whose process is readied here."""
    process.ready()
    # Before a verb imports any library.
    pin()
    return main()


if __name__ == "__main__":
    raise SystemExit(main())
