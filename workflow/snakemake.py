"""`python -m workflow.snakemake ARGUMENTS`: Snakemake, which Ctrl-C ends in one line from its first import on."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs Snakemake, which ends the process."""
    # Its imports take a second; the package has readied the process for that.
    from snakemake.cli import main as snakemake

    snakemake(sys.argv[1:])


if __name__ == "__main__":
    main()
