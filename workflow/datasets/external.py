"""`python -m workflow.datasets.external`: samples of a method trained elsewhere, as a run of the graph.

It stands in the place of plan, training and sampling: nothing of the run is known but its images and the epsilon that
its makers claim. No accountant of the suite has seen it, so its accounting is `claimed`.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from workflow.common.contracts import CLAIMED, LabelledImages, RunFolder, format_epsilon, parse_epsilon
from workflow.common.errors import UserError, command
from workflow.common.files import read_object, write_json, write_npz
from workflow.common.options import Parser
from workflow.common.provenance import provenance
from workflow.datasets.foreign_samples import Wanted, read_samples


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("--samples", type=Path, required=True, help=".npz of images and labels, or a folder")
    parser.add_argument("--card", type=Path, required=True, help="card.json of the real data set")
    parser.add_argument("--claimed-epsilon", required=True, help="as its makers state it, or inf for no privacy")
    parser.add_argument("--out", type=Path, required=True, help=".../runs/<data set>/<run>/eps<e>/seed<s>")


def run(arguments: argparse.Namespace) -> None:
    """Writes samples.npz and run.json. Raises UserError as `read_samples`, or where --out is no folder of this run."""
    folder, epsilon = RunFolder.parse(arguments.out), parse_epsilon(arguments.claimed_epsilon)
    if folder.epsilon != epsilon:
        raise UserError(f"--out says eps{format_epsilon(folder.epsilon)}, the claim is {format_epsilon(epsilon)}")
    wanted = Wanted.from_card(read_object(arguments.card, "a data set card"), arguments.card)
    samples = read_samples(arguments.samples, wanted)
    write_npz(arguments.out / "samples.npz", images=samples.images, labels=samples.labels)
    write_json(arguments.out / "run.json", record(folder, samples, arguments.samples))
    print(f"{folder.run}: {len(samples)} samples from {arguments.samples}, epsilon claimed, not checked")


def record(folder: RunFolder, samples: LabelledImages, source: Path) -> dict[str, Any]:
    """Returns the run.json of an external run: who it is, and the hash of its samples."""
    return {
        "dataset": folder.dataset,
        "run": folder.run,
        "method": "external",
        "epsilon": format_epsilon(folder.epsilon),
        "seed": folder.seed,
        "accounting": "none" if math.isinf(folder.epsilon) else CLAIMED,
        "external": {"file": source.name, "samples": len(samples), "sha256": samples.digest()},
        "provenance": provenance(),
    }


@command
def main(argv: list[str] | None = None) -> None:
    parser = Parser(prog="python -m workflow.datasets.external", description=__doc__)
    add_arguments(parser)
    run(parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())
