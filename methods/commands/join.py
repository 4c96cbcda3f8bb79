"""`python -m methods join`: samples.npz from the parts that `run` leaves in a run's folder."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from workflow.common.contracts import load_images
from workflow.common.errors import UserError
from workflow.common.files import write_npz


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("folder", type=Path, help="the run's folder")
    parser.add_argument("--out", type=Path, required=True, help="samples.npz to write")


def run(arguments: argparse.Namespace) -> None:
    """Joins the parts of the folder. Raises UserError if there are none."""
    join(arguments.folder, arguments.out)


def join(folder: Path, out: Path) -> None:
    """Writes samples.npz from the parts samples-*.npz of `folder`. Raises UserError if there are none."""
    paths = sorted(folder.glob("samples-*.npz"))
    if not paths:
        raise UserError(f"no samples-*.npz in {folder}; make them with python -m methods run")
    parts = [load_images(path) for path in paths]
    images, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "labels"))
    write_npz(out, images=images, labels=labels)
