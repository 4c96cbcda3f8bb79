"""Snakemake for many calls: this process imports it once, which takes most of a short call, and forks for each.

Reads requests from stdin, one JSON object a line, and answers each with its exit code on a line.
"""

from __future__ import annotations

import json
import os
import sys
import traceback

import jsonschema  # noqa: F401 - what the Snakefile imports besides the project's own modules
import numpy as np  # noqa: F401
import requests  # noqa: F401
import snakemake.cli
import snakemake.executors.dryrun
import snakemake.executors.local

# Finds and imports all plugins.
snakemake.cli.get_argument_parser()


def call(request: dict) -> int:
    """Returns the exit code of one call in this process, whose output goes to the request's file."""
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    # As `python -m snakemake` has them.
    sys.path[0], sys.argv = request["folder"], ["snakemake", *request["arguments"]]
    try:
        snakemake.cli.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else bool(end.code)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    """Answers requests until stdin ends."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            code = call(json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
