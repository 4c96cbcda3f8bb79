"""`python -m methods join`: samples.npz from the parts that `run` leaves in a run's folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from methods.core.runs import parts
from workflow.common.errors import UserError
from workflow.common.files import write_npz


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("folder", type=Path, help="the run's folder")
    parser.add_argument("--out", type=Path, required=True, help="samples.npz to write")


def run(arguments: argparse.Namespace) -> None:
    """Joins the parts of the folder. Raises UserError, and writes nothing, unless they are one whole set."""
    join(arguments.folder, arguments.out)


def join(folder: Path, out: Path) -> None:
    """Writes samples.npz from the parts that samples.json lists. Raises UserError as `parts` does."""
    parts.check_output(out)
    try:
        samples = parts.join(folder)
    except UserError as error:
        # A reader of files knows what is wrong with one and not which command makes it.
        again = "" if parts.AGAIN in str(error) else f"; {parts.AGAIN}"
        raise UserError(f"{error}{again}") from None
    write_npz(out, images=samples.images, labels=samples.labels)
    print(f"{out}: {len(samples.images)} images")
