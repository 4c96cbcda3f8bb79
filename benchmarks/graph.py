"""`python -m benchmarks.graph`: what a dry run of the benchmark takes against the number of runs, as graph.csv.

The grid is 31 runs of preset quick on two data sets, times 1, 4, 16 and 40: at four epsilons and up to ten seeds. Each
size is a `python -m workflow.snakemake -n` of its own in an empty folder: reading the configuration, importing what it
needs, the graph, and the text of every command. No data are read. Seconds are of one processor core, user and system,
so that a busy machine's queue does not count; on idle cores they are what one waits.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import median

from workflow.common.errors import UserError, command
from workflow.common.files import write_csv, write_json
from workflow.common.options import Parser, whole
from workflow.common.provenance import provenance

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/graph"
DATASETS = "mnist,fashion_mnist"
# Thirteen of these take part on both data sets, five on one.
RUNS = (
    "dp_merf,dp_ntk,dp_cgan,dp_sinkhorn,dpgan,pate_gan,g_pate,datalens,gs_wgan,dpac,gs_wgan_sound,dpac_sound,"
    "dpac_scatter,dpac_wo_g2r,dpac_wo_r2g,dpac_wo_seq,dpac_wo_seq_mixed,dpac_wo_init"
)
# Times -> epsilons and number of seeds.
SIZES = {1: ("10", 1), 4: ("1,3,5,10", 1), 16: ("1,3,5,10", 4), 40: ("1,3,5,10", 10)}


@dataclass(frozen=True)
class Size:
    """A dry run: runs (trainings) and jobs that it planned, core seconds, seconds waited, and peak memory in MiB."""

    times: int
    runs: int
    jobs: int
    seconds: float
    waited: float
    peak_memory_mib: float


def arguments(times: int, folder: str) -> list[str]:
    """Returns the command of a dry run in `folder`."""
    epsilons, seeds = SIZES[times]
    chosen = {"datasets": DATASETS, "runs": RUNS, "epsilons": epsilons, "seeds": ",".join(map(str, range(seeds)))}
    return [
        *(sys.executable, "-m", "workflow.snakemake", "-n", "-d", folder),
        *("--config", *(f"{key}={value}" for key, value in chosen.items())),
    ]


def planned(output: str) -> tuple[int, int]:
    """Returns the trainings and all jobs of a dry run. Raises UserError for another text than that of one."""
    counts = dict(re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE))
    if not {"train", "total"} <= set(counts):
        raise UserError(f"the dry run planned nothing: {output.strip().splitlines()[-1:]}")
    return int(counts["train"]), int(counts["total"])


def measure(times: int) -> Size:
    """Returns what one dry run takes. Raises UserError where it fails."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        begun = time.monotonic()
        child = subprocess.Popen(arguments(times, folder), cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode, waited = os.waitstatus_to_exitcode(status), time.monotonic() - begun
        output.seek(0)
        text = output.read()
    if child.returncode:
        raise UserError(f"the dry run of {times} times the runs failed: {text.strip().splitlines()[-1:]}")
    # Bytes on macOS, KiB elsewhere.
    peak = used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return Size(times, *planned(text), used.ru_utime + used.ru_stime, waited, peak)


def middle(sizes: Sequence[Size]) -> Size:
    """Returns the medians of several measurements of one size."""
    return Size(*(median(values) for values in zip(*map(astuple, sizes), strict=True)))


@command
def main(argv: list[str] | None = None) -> None:
    parser = Parser(prog="python -m benchmarks.graph", description=__doc__)
    parser.add_argument("--repeats", type=whole("--repeats", 1, 100), default=3, help="dry runs of a size (default 3)")
    parser.add_argument("--times", type=int, nargs="+", choices=SIZES, default=list(SIZES), help="default: all")
    parser.add_argument("--out", type=Path, default=RESULTS / "graph.csv", help="csv to write, with a provenance.json")
    options = parser.parse_args(argv)
    # Time and commit of the start: what runs is the code as it was then.
    record, rows = provenance(), []
    for times in options.times:
        size = middle([measure(times) for _ in range(options.repeats)])
        rows.append([f"{value:.4g}" if isinstance(value, float) else value for value in astuple(size)])
        print(f"{size.runs} runs, {size.jobs} jobs: {size.seconds:.1f} s, {size.peak_memory_mib:.0f} MiB", flush=True)
    write_csv(options.out, [field.name for field in fields(Size)], rows)
    write_json(options.out.with_name("provenance.json"), {**record, "repeats": options.repeats})
    print(f"wrote {options.out} and provenance.json", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
