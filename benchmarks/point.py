"""`python -m benchmarks.point`: measures one point of the scaling part in a process of its own, and prints it as JSON.

A process reports its largest memory so far, which never falls: only a new process gives each point its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.clock import seconds
from benchmarks.contestants import our_steps, our_warm_start, records
from benchmarks.sizes import Case
from methods.commands.arguments import add_machine, use_machine
from methods.core.runs.peak_memory import peak_memory_mib
from workflow.common.errors import UserError, command, shown
from workflow.common.files import json_or_path
from workflow.common.options import Parser
from workflow.common.readers.fields import fields, is_object, is_whole

ROOT = Path(__file__).resolve().parents[1]
METHOD = "gs_wgan"
# Untimed steps or shards before the timed ones: the first call of a shape chooses and prepares its kernels.
WARM_UP_STEPS, WARM_UP_SHARDS = 3, 2


@dataclass(frozen=True)
class Point:
    """What one process measures: `steps` iterations, or the warm start of all shards where `steps` is 0."""

    hyper: dict[str, Any]
    image_size: int
    shard_size: int
    steps: int


def in_own_process(point: Point, threads: int, device: torch.device) -> tuple[list[float], float]:
    """Returns the seconds of each timed run and the peak memory in MiB, of the process or of its GPU.

    Raises UserError with the last line that a failed process wrote.
    """
    machine = ["--threads", str(threads), "--device", str(device)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.point", json.dumps(asdict(point)), *machine],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise UserError(f"measuring {point.hyper} ended with {done.returncode}: {last}")
    measured = json.loads(done.stdout)
    return measured["seconds"], measured["peak_memory_mib"]


def run(point: Point, device: torch.device) -> list[float]:
    """Returns the seconds of each step, or of the one warm start."""
    case = Case(METHOD, point.hyper if not point.steps else {**point.hyper, "warm_start_steps": 0})
    shards = case.hp.num_shards
    if not point.steps:
        few = min(WARM_UP_SHARDS, shards)
        our_warm_start(
            Case(METHOD, {**point.hyper, "num_shards": few}), *records(few * point.shard_size, point.image_size), device
        )
        data = records(shards * point.shard_size, point.image_size)
        return [seconds(lambda: our_warm_start(case, *data, device), device)]
    data = records(shards * point.shard_size, point.image_size)
    with our_steps(case, *data, device) as step:
        for _ in range(WARM_UP_STEPS):
            step()
        return [seconds(step, device) for _ in range(point.steps)]


def _point(text: str) -> Point:
    """Returns the point of JSON text. Raises UserError for a field that is missing, unknown or out of its range."""
    kinds = {"hyper": is_object, "image_size": is_whole(1, 4096), "shard_size": is_whole(1), "steps": is_whole()}
    try:
        found = fields(json_or_path(text, "point"), kinds)
    except ValueError as error:
        raise UserError(f"the point {shown(text)} cannot be measured: {error}; `python -m benchmarks` asks") from None
    return Point(**{name: found[name] for name in kinds})


@command
def main(argv: list[str] | None = None) -> None:
    parser = Parser(prog="python -m benchmarks.point", description=__doc__)
    parser.add_argument("point", help="the fields of Point as JSON")
    add_machine(parser)
    arguments = parser.parse_args(argv)
    device = use_machine(arguments)
    times = run(_point(arguments.point), device)
    print(json.dumps({"seconds": times, "peak_memory_mib": peak_memory_mib(device)}))


if __name__ == "__main__":
    raise SystemExit(main())
