"""`python -m workflow.snakemake ARGUMENTS`: Snakemake, ended by Ctrl-C in one line and started in any home.

Its imports take a second, for which this package has readied the process.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from workflow import invocation
from workflow.common.errors import UserError, print_error


def own_cache() -> None:
    """Gives Snakemake and its steps a cache below the working folder where the user's cannot be written."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=cache).close()
    except OSError:
        os.environ["XDG_CACHE_HOME"] = str(Path(".snakemake/cache").absolute())


def main() -> None:
    """Runs Snakemake, which ends the process; a configuration that it could not read ends it in one line."""
    try:
        invocation.check(sys.argv[1:])
    except UserError as error:
        print_error(error)
        raise SystemExit(2) from None
    own_cache()
    from snakemake.cli import main as snakemake

    snakemake(sys.argv[1:])


if __name__ == "__main__":
    main()
