"""`python -m methods sample`: draws a synthetic set with balanced labels from a trained run."""

from __future__ import annotations

import argparse
from pathlib import Path

from methods.commands.arguments import add_machine, add_num, read_plan, use_machine
from methods.core.runs import generator, outputs, parts
from methods.core.runs.sample import draw
from workflow.common.files import write_npz


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("--run", type=Path, required=True, help="the run's folder")
    add_num(parser, "images to draw", required=True)
    parser.add_argument("--out", required=True, help="samples.npz to write")
    add_machine(parser)


def run(arguments: argparse.Namespace) -> None:
    """Writes the samples. Raises UserError for a run that is not trained."""
    device = use_machine(arguments)
    parts.check_output(Path(arguments.out))
    plan = read_plan(arguments.run / "plan.json")
    outputs.restore(arguments.run, plan)
    images, labels = draw(plan, generator.load(arguments.run), arguments.num, device)
    write_npz(arguments.out, images=images, labels=labels)
