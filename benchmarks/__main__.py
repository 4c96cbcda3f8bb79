"""`python -m benchmarks`: measures the speed of this machine's build and writes speed.csv, provenance.json, speed.png.

Four parts: throughput (the project's iterations and warm start against a plain loop of the same algorithm), choices
(the same work with one arrangement for speed turned off), roofline (the rate of an iteration against the machine's best
convolution) and scaling (time and memory against each size). Run it on an idle machine. Where a processor has no
instructions for bfloat16, what compares it with single precision is left out.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks import choices, plot, roofline, scaling, throughput
from benchmarks.machine import RESULTS, add_options, machine_name
from benchmarks.sizes import Sizes, full
from benchmarks.table import Row, to_csv
from methods.commands.arguments import use_machine
from methods.core.speed.precision import is_widened, tell_if_widened
from workflow.common.errors import UserError, command, unknown
from workflow.common.files import write_json, write_text
from workflow.common.options import Parser
from workflow.common.provenance import provenance

PARTS = {module.PART: module for module in (throughput, choices, roofline, scaling)}


def measure(parts: list[str], repeats: int, device: torch.device, out: Path, sizes: Sizes) -> list[Row]:
    """Measures some parts, writes their files into `out` and returns the rows."""
    rows: list[Row] = []
    total = sum(PARTS[part].count(sizes, device) for part in parts)
    # Time and commit of the start: what runs is the code as it was then.
    record = {**provenance(), "device": machine_name(device), "threads": torch.get_num_threads(), "repeats": repeats}
    # Else cases in bfloat16 were computed in single precision.
    record["bfloat16"] = not is_widened(device, "bf16")
    with tqdm(total=total, desc="benchmarks", unit="case", disable=None) as progress:
        for part in parts:
            for of_case in PARTS[part].measure(sizes, repeats, device):
                rows += of_case
                progress.update()
    write_text(out / "speed.csv", to_csv(rows))
    write_json(out / "provenance.json", {**record, "parts": parts, "sizes": asdict(sizes)})
    plot.write(rows, out / "speed.png")
    return rows


def _chosen(text: str) -> list[str]:
    asked = [name.strip() for name in text.split(",")]
    for name in asked:
        if name not in PARTS:
            raise unknown("part", name, PARTS)
    return [part for part in PARTS if part in asked]


@command
def main(argv: list[str] | None = None) -> None:
    parser = Parser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, of {','.join(PARTS)} (default: all)")
    add_options(parser)
    arguments = parser.parse_args(argv)
    parts = _chosen(arguments.only)
    if arguments.repeats < 1:
        raise UserError(f"--repeats must be at least 1, got {arguments.repeats}")
    device = use_machine(arguments)
    out = arguments.out or RESULTS / machine_name(device)
    tell_if_widened(device, {"precision": "bf16"})
    for row in measure(parts, arguments.repeats, device, out, full()):
        if row.part == throughput.PART and row.quantity == "speedup":
            print(f"{row.case}: {row.value:.2f} times as fast as the textbook loop ({row.low:.2f} to {row.high:.2f})")
    print(f"wrote {out}/speed.csv, provenance.json and speed.png", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
