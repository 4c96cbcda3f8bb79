"""On which machine a benchmark runs, with what, and where its results go."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

import torch

from workflow.common.options import whole

RESULTS = Path(__file__).resolve().parent / "results"


def machine_name(device: torch.device) -> str:
    """Returns the folder name of a machine's results: its kind, such as cpu-2-cores, never its host name."""
    if device.type == "cpu":
        return f"cpu-{torch.get_num_threads()}-cores"
    return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(device).lower()).strip("-")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a benchmark of this machine: --repeats, --threads, --device and --out."""
    parser.add_argument(
        "--repeats", type=whole("--repeats", 1, 10_000), default=5, help="timed repeats of everything (default 5)"
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument(
        "--threads", type=whole("--threads"), default=cores, help=f"CPU threads (default: all cores, here {cores})"
    )
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:N")
    parser.add_argument("--out", type=Path, help="folder of the results (default benchmarks/results/<machine>)")
