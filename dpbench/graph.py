"""`dpbench graph ...`: `python -m workflow.snakemake ...`, from the folder that holds the Snakefile."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from workflow.common.errors import UserError

PASSES_ON = True
HELP = """usage: dpbench graph [OPTIONS OF SNAKEMAKE]

dpbench graph --cores 2                                  preset quick: every table, every figure, report.html
dpbench graph --cores 2 --config preset=smoke            another preset; `dpbench presets` lists them
dpbench graph --cores 2 --configfile mine.yaml           a configuration of your own
dpbench graph --cores 2 --config datasets=mnist runs=dpac,gs_wgan epsilons=1,10 seeds=0,1
dpbench graph --cores 1 print_config                     what a configuration is set to, and why
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none but Snakemake's."""


def run(argv: Sequence[str]) -> None:
    """Runs Snakemake, which ends the process. Raises UserError where there is no Snakefile."""
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP, end="")
        raise SystemExit(0)
    if not Path("Snakefile").is_file():
        raise UserError(f"{Path.cwd()} holds no Snakefile: run `dpbench graph` in the suite's own folder")
    from workflow import snakemake

    sys.argv = ["snakemake", *argv]
    snakemake.main()
