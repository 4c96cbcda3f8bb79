"""`python -m benchmarks.peers`: this suite beside what people would take instead, at the same work.

The clipped sum of a DP-SGD step, of dpgan's and dp_cgan's discriminators and batches at preset quick, beside Opacus
with hooks, Opacus' ghost clipping and torch.func; the scores of a sample set beside torch-fidelity's call. All take
turns in one process. A peer takes all rows at once, as it comes, and besides, where that is faster, chunks of the size
that suits it best. Writes peers.csv and peers.json: medians, how many times as fast this suite is, and how far the
peer's result is from this suite's. Run it on an idle machine.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch.nn import functional
from tqdm import tqdm

from benchmarks import clipped_sums, peer_fidelity
from benchmarks.clipped_sums import PEERS, Sum, Task
from benchmarks.clock import Comparison, in_turn, seconds
from benchmarks.contestants import CLASSES, SEED, records
from benchmarks.machine import RESULTS, add_options, machine_name
from benchmarks.sizes import Case, quick
from benchmarks.table import Row, to_csv
from methods import dp_cgan, dpgan
from methods.commands.arguments import use_machine
from methods.core import registry
from methods.core.method import Context, Method
from methods.core.release import PublicSpec
from methods.core.speed.layout import laid_out
from methods.core.speed.precision import is_widened, tell_if_widened
from workflow.common.errors import command
from workflow.common.files import write_json, write_text
from workflow.common.options import Parser
from workflow.common.provenance import provenance

PART = "peers"
# Rows of a peer at once that are tried; 0: all.
CHUNKS = (0, 256, 64)
_RECORDS = 60_000


@dataclass(frozen=True)
class Sizes:
    """What is measured: widths of both discriminators, precisions, images a side of the scores, seconds of a block."""

    widths: tuple[int, ...] = (16, 32, 64)
    hidden: tuple[int, ...] = (128,)
    precisions: tuple[str, ...] = ("fp32", "bf16")
    images: int = 5_000
    seconds: float = 0.5


def of_dpgan(width: int, precision: str, device: torch.device) -> Task:
    """Returns the discriminator step of quick's dpgan: its expected records and its fakes, at another width."""
    case = quick("dpgan", dim=width, precision=precision, steps=1)
    hp, gan = case.hp, _method(case, device)
    weights = gan._discriminator.state_dict()
    rows = _rows(hp.batch_size, hp.fakes, hp.label_scale, device)

    def network() -> torch.nn.Module:
        made = dpgan._Discriminator(CLASSES, width, (1, 28, 28)).to(device)
        made.load_state_dict(weights)
        return laid_out(made)

    return Task(network, gan._losses, rows, hp.clip, gan._private._chunk)


def of_dp_cgan(hidden: int, device: torch.device) -> Task:
    """Returns the discriminator step of quick's dp_cgan: its expected records and as many fakes."""
    case = quick("dp_cgan", hidden=hidden, steps=1)
    hp, gan = case.hp, _method(case, device)
    weights = gan._discriminator.state_dict()
    rows = _rows(hp.batch_size, hp.batch_size, hp.label_scale, device)

    def network() -> torch.nn.Module:
        made = dp_cgan._network(rows.shape[1] - 1, hidden, 1, hp.leak).to(device)
        made.load_state_dict(weights)
        return made

    return Task(network, dp_cgan._losses, rows, hp.clip, 0)


def _method(case: Case, device: torch.device) -> Method:
    method, public = registry.load(case.method), PublicSpec("synthetic", (1, 28, 28), CLASSES, _RECORDS)
    # Any noise would do: it comes after the sum.
    return method(case.hp, Context(public, method.releases(case.hp, public, 1.0), SEED, device))


def _rows(reals: int, fakes: int, label_scale: float, device: torch.device) -> torch.Tensor:
    """Returns random examples [reals + fakes, pixels + classes + 1], as the methods' losses take them."""
    images, labels = records(reals + fakes)
    hot = label_scale * functional.one_hot(labels, CLASSES).float()
    target = (torch.arange(len(labels)) < reals).float()[:, None]
    return torch.cat([images.flatten(1) / 255, hot, target], dim=1).to(device)


def tasks(sizes: Sizes, device: torch.device) -> Iterator[tuple[str, int, Callable[[], Task]]]:
    """Yields a name, a width and a call that makes the task.

    None in bfloat16 for a processor without its instructions, where a method's losses are in single precision.
    """
    for precision in (one for one in sizes.precisions if not is_widened(device, one)):
        for width in sizes.widths:
            yield f"dpgan {precision}", width, partial(of_dpgan, width, precision, device)
    for hidden in sizes.hidden:
        yield "dp_cgan fp32", hidden, partial(of_dp_cgan, hidden, device)


def sum_rows(case: str, width: int, task: Task, device: torch.device, repeats: int, least: float) -> list[Row]:
    """Returns the rows of one task: this suite's sum and each peer's, timed in turn."""
    runs: dict[str, Sum] = {"ours": clipped_sums.ours(task)}
    chunks = {}
    for name, make in PEERS.items():
        in_chunks, found = _best(make, task, device)
        if found:
            runs[name] = make(task, 0)
            runs[f"{name}_in_chunks"] = in_chunks
            chunks[f"{name}_in_chunks"] = found
        else:
            runs[name] = in_chunks
    expected = runs["ours"]()
    apart = {name: float((run() - expected).norm() / expected.norm()) for name, run in runs.items() if name != "ours"}
    times = dict(zip(runs, in_turn(list(runs.values()), device, repeats, least), strict=True))
    rows = _times(case, width, times)
    rows += [Row(PART, case, width, f"{name}_size", size, "rows") for name, size in chunks.items()]
    return rows + [Row(PART, case, width, f"{name}_difference", share, "share") for name, share in apart.items()]


def fidelity_rows(images: int, device: torch.device, repeats: int) -> list[Row]:
    """Returns the rows of the scores of one sample set."""
    pair = peer_fidelity.pair(images)
    runs = {"ours": peer_fidelity.ours(pair), "torch_fidelity": peer_fidelity.by_torch_fidelity(pair)}
    expected, found = (run() for run in runs.values())
    apart = max(abs(found[name] - value) / max(abs(value), 1e-3) for name, value in expected.items())
    times = dict(zip(runs, in_turn(list(runs.values()), device, repeats, 0.0), strict=True))
    return [
        *_times("fidelity", images, times),
        Row(PART, "fidelity", images, "torch_fidelity_difference", apart, "share"),
    ]


def _best(make: Callable[[Task, int], Sum], task: Task, device: torch.device) -> tuple[Sum, int]:
    """Returns a peer's sum with the chunk in which it is fastest."""
    found = []
    for chunk in (size for size in CHUNKS if size < len(task.rows)):
        run = make(task, chunk)
        # The first call of a shape chooses and prepares its kernels.
        run()
        found.append((seconds(run, device), chunk, run))
    _, chunk, run = min(found, key=lambda entry: entry[0])
    return run, chunk


def _times(case: str, at: int, times: dict[str, Sequence[float]]) -> list[Row]:
    mine = times["ours"]
    rows = [Row(PART, case, at, name, median(taken), "s", min(taken), max(taken)) for name, taken in times.items()]
    for name, taken in times.items():
        if name != "ours":
            comparison = Comparison(tuple(mine), tuple(taken))
            rows.append(Row(PART, case, at, f"speedup_over_{name}", comparison.speedup, "x", *comparison.spread))
    return rows


def measure(sizes: Sizes, repeats: int, device: torch.device, out: Path) -> list[Row]:
    """Measures everything, writes peers.csv and peers.json into `out` and returns the rows."""
    record = {**provenance(), "device": machine_name(device), "threads": torch.get_num_threads(), "repeats": repeats}
    rows: list[Row] = []
    planned = list(tasks(sizes, device))
    with warnings.catch_warnings(), tqdm(total=len(planned) + 1, desc="peers", unit="case", disable=None) as progress:
        # Opacus' hooks fire on modules whose inputs need no gradient.
        warnings.simplefilter("ignore")
        for case, width, make in planned:
            rows += sum_rows(case, width, make(), device, repeats, sizes.seconds)
            progress.update()
        rows += fidelity_rows(sizes.images, device, repeats)
        progress.update()
    write_text(out / "peers.csv", to_csv(rows))
    write_json(out / "peers.json", {**record, "sizes": asdict(sizes)})
    return rows


def lines(rows: list[Row]) -> Iterator[str]:
    """Yields one line for each case and peer: how many times as fast this suite is, with the spread."""
    for row in rows:
        if row.unit == "x":
            peer = row.quantity.removeprefix("speedup_over_")
            yield f"{row.case} {row.at}: {row.value:.2f} times as fast as {peer} ({row.low:.2f} to {row.high:.2f})"


@command
def main(argv: list[str] | None = None) -> None:
    parser = Parser(prog="python -m benchmarks.peers", description=__doc__)
    add_options(parser)
    arguments = parser.parse_args(argv)
    device = use_machine(arguments)
    out = arguments.out or RESULTS / machine_name(device)
    tell_if_widened(device, {"precision": "bf16"})
    for line in lines(measure(Sizes(), arguments.repeats, device, out)):
        print(line)
    print(f"wrote {out}/peers.csv and peers.json", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
