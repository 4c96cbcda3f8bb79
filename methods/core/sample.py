"""`python -m methods.core.sample`: draws a synthetic set with balanced labels from a trained run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from methods.core import checkpoint
from methods.core.arguments import add_machine, json_argument, use_machine
from methods.core.train import build
from workflow.common.errors import UserError, command
from workflow.common.files import write_npz
from workflow.common.seeds import derive


def balanced_labels(count: int, num_classes: int) -> torch.Tensor:
    """Returns labels int64 [N], cycling through the classes: class counts differ by at most one."""
    return torch.arange(count) % num_classes


def draw(
    plan: dict[str, Any], state: dict[str, torch.Tensor], count: int, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8 [N, C, H, W] and labels int64 [N] of the generator `state` that a plan's run released."""
    method = build(plan, device)
    method.load({name: value.to(device) for name, value in state.items()}, None)
    labels = balanced_labels(count, plan["public"]["num_classes"])
    stream = torch.Generator().manual_seed(derive(plan["seed"], plan["dataset"], plan["run"], "samples"))
    return method.sample(labels, stream).numpy(), labels.numpy()


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m methods.core.sample", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the run's folder")
    parser.add_argument("--num", type=int, required=True, help="images to draw")
    parser.add_argument("--out", required=True, help="samples.npz")
    add_machine(parser)
    arguments = parser.parse_args(argv)
    if arguments.num < 1:
        raise UserError(f"--num must be at least 1, got {arguments.num}")
    device = use_machine(arguments)
    plan = json_argument(str(arguments.run / "plan.json"))
    images, labels = draw(plan, checkpoint.load_generator(arguments.run), arguments.num, device)
    write_npz(arguments.out, images=images, labels=labels)


if __name__ == "__main__":
    raise SystemExit(main())
