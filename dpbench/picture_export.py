"""`dpbench export`: the images of a run or an npz as PNG files, which every other program reads."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workflow.common.class_names import check_distinct
from workflow.common.contracts import load_images
from workflow.common.errors import UserError
from workflow.common.files import read_object

PROTECTS_NOBODY = (
    "these images protect nobody unless they are of `dpbench release`: the noise of a benchmark run follows from public"
    " numbers and the records"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("source", type=Path, metavar="SAMPLES", help="a run's folder, or an .npz of images and labels")
    parser.add_argument("--card", type=Path, help="card.json with the names of the classes (default: their numbers)")
    parser.add_argument("--out", type=Path, required=True, help="folder to make: a sub-folder per class, of PNG files")


def run(arguments: argparse.Namespace) -> None:
    """Writes the files. Raises UserError for a source without samples, a card of other classes, or a folder in use."""
    source = arguments.source / "samples.npz" if arguments.source.is_dir() else arguments.source
    if not source.is_file():
        raise UserError(f"no such file: {source}; give a run's folder, or an .npz of images and labels")
    if arguments.out.exists() and (not arguments.out.is_dir() or any(arguments.out.iterdir())):
        raise UserError(f"--out {arguments.out} is there already; name a folder that does not exist yet")
    data = load_images(source)
    if not len(data) or data.image_shape[0] not in (1, 3) or not all(data.image_shape):
        raise UserError(
            f"{source} has {len(data)} images {list(data.image_shape)}; PNG needs one at least, of 1 or 3 channels"
        )
    # Here: it imports the methods' own libraries.
    from methods.core.released import image_files

    # Those that there are: a label may be any number.
    classes, places = np.unique(data.labels, return_inverse=True)
    names = image_files.paths(_names(arguments.card, classes.tolist()), places)
    image_files.write_images(arguments.out, names, data.images)
    print(f"{len(data)} images in {arguments.out}")
    print(f"notice: {PROTECTS_NOBODY}", file=sys.stderr)


def _names(card: Path | None, labels: Sequence[int]) -> list[str]:
    if card is None:
        return [str(label) for label in labels]
    names: Any = read_object(card, "a data set card").get("class_names")
    classes = 1 + labels[-1]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(names) < classes:
        raise UserError(f"{card} has no names for {classes} classes; give the card of the set that the images imitate")
    check_distinct(names, str(card))
    return [names[label] for label in labels]
