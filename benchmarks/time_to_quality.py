"""`python -m benchmarks.time_to_quality`: seconds of training until a run's samples are good enough.

Each run of --runs, folders of a results folder that hold a plan.json, is trained once more; at steps that grow by a
constant factor the clock stops, and a balanced sample set is drawn and scored by gen2real. The first set at the wanted
accuracy gives the steps and the seconds, those of a warm start included; a run that never gets there ends without. Sets
and scores are kept in --work: a call that was stopped goes on with the first run that is not done. The runs read their
records again, at the noise of their plans, for these numbers alone: do it on public data.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from evaluation.protocol import Protocol
from evaluation.utility import score
from methods.commands.arguments import add_machine, read_plan, read_private, use_machine
from methods.core.privacy.ledger import BudgetExhausted, Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.rng import named_rng
from methods.core.runs import noise_key, warm_start
from methods.core.runs.plan import Plan
from methods.core.runs.sample import balanced_labels
from workflow.common.contracts import LabelledImages, load_images
from workflow.common.errors import UserError, command
from workflow.common.files import write_csv, write_json, write_npz
from workflow.common.options import Parser, number, whole
from workflow.common.provenance import provenance
from workflow.common.readers.json_text import read_json

COLUMNS = ("run", "dataset", "epsilon", "seed", "metric", "wanted", "steps", "seconds", "reached", "best")
METRICS = ("g2r_cnn", "g2r_mlp")


@dataclass(frozen=True)
class Wanted:
    """What counts as good enough, and how finely it is looked for: `looks` sample sets of `count` images at most."""

    metric: str
    accuracy: float
    looks: int
    count: int


def look_steps(total: int, looks: int) -> list[int]:
    """Returns at most `looks` step counts from 1 % of `total`, at least 1, to `total`, spread by a constant factor."""
    if looks == 1:
        return [total]
    return sorted({max(1, round(total * 100 ** (i / (looks - 1) - 1))) for i in range(looks)})


def trained(plan: Plan, data: PrivateData, device: torch.device, steps: list[int]) -> Iterator[tuple[int, float, Any]]:
    """Yields steps done, seconds of training so far, and the method, at each of `steps`; the clock stands still there.

    A run whose budget ends before its last step ends there.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, taken, begun = Path(name), 0.0, time.monotonic()
        start = warm_start.prepared(plan, data, device, folder, None)
        key = noise_key.of_records(plan, data)
        with Ledger.open(folder / "ledger.jsonl", plan.releases, plan.budget, noise_key=key) as ledger:
            method = plan.build(device)
            method.prepare(data, ledger, start)
            for step in range(method.num_steps):
                try:
                    method.step(step, data, ledger)
                except BudgetExhausted:
                    return
                if step + 1 in steps:
                    taken += time.monotonic() - begun
                    yield step + 1, taken, method
                    begun = time.monotonic()


def looks(
    plan: Plan, data: PrivateData, test: LabelledImages, protocol: Protocol, wanted: Wanted, device: torch.device,
    work: Path, threads: int,
) -> list[dict[str, float]]:  # fmt: skip
    """Trains a run until its samples are good enough; returns `steps`, `seconds` and the accuracy of each look.

    What `work` holds of the same plan and wish is returned as it is.
    """
    path = work / "looks.json"
    asked = {"plan": plan.digest, "metric": wanted.metric, "accuracy": wanted.accuracy, "looks": wanted.looks}
    asked["protocol"] = asdict(protocol)
    if path.exists() and (kept := read_json(path))["asked"] == asked:
        return kept["found"]
    found = []
    labels = balanced_labels(wanted.count, plan.public.num_classes)
    for steps, seconds, method in trained(plan, data, device, look_steps(plan.build(device).num_steps, wanted.looks)):
        rng = named_rng(plan.seed, plan.public.dataset, plan.run, "samples")
        samples = LabelledImages(method.sample(labels, rng).numpy(), labels.numpy())
        scores = score("g2r", samples, test, protocol, plan.seed, threads=threads)
        found.append({"steps": steps, "seconds": seconds, "accuracy": scores[wanted.metric]})
        print(f"{plan.run}: {found[-1]['accuracy']:.3f} after {steps} steps, {seconds:.1f} s", file=sys.stderr)
        write_npz(work / f"samples-{steps}.npz", images=samples.images, labels=samples.labels)
        if found[-1]["accuracy"] >= wanted.accuracy:
            break
    write_json(path, {"asked": asked, "found": found, "provenance": provenance()})
    return found


def row(plan: Plan, found: list[dict[str, float]], wanted: Wanted) -> list[str]:
    """Returns the csv's row of one run; steps and seconds are those of the whole run where it never got there."""
    best, last = max(look["accuracy"] for look in found), found[-1]
    reached = "yes" if last["accuracy"] >= wanted.accuracy else "no"
    epsilon = "inf" if math.isinf(plan.budget.epsilon) else f"{plan.budget.epsilon:g}"
    return [
        plan.run, plan.public.dataset, epsilon, str(plan.seed), wanted.metric, f"{wanted.accuracy:g}",
        str(last["steps"]), f"{last['seconds']:.1f}", reached, f"{best:.4f}",
    ]  # fmt: skip


@command
def main(argv: list[str] | None = None) -> None:
    """Runs `python -m benchmarks.time_to_quality`."""
    parser = Parser(prog="python -m benchmarks.time_to_quality", description=__doc__)
    parser.add_argument(
        "--runs", type=Path, nargs="+", required=True, metavar="FOLDER", help="folders with a plan.json"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with train.npz and test.npz")
    accuracy = number("--accuracy", 0, 1)
    parser.add_argument("--accuracy", type=accuracy, default=0.8, help="gen2real accuracy that is enough (default 0.8)")
    parser.add_argument("--metric", choices=METRICS, default=METRICS[0], help=f"default {METRICS[0]}")
    parser.add_argument("--looks", type=whole("--looks", 1, 1000), default=15, help="sample sets at most (default 15)")
    parser.add_argument("--protocol", help="settings of the evaluation, as JSON text or a JSON file")
    parser.add_argument("--work", type=Path, required=True, help="folder of what is kept for the next call")
    add_machine(parser)
    parser.add_argument("--out", type=Path, required=True, help="csv to write")
    options = parser.parse_args(argv)
    device, protocol = use_machine(options), Protocol.parse(options.protocol)
    wanted = Wanted(options.metric, options.accuracy, options.looks, protocol.num_samples)
    # All are read before the first trains for minutes.
    plans = [read_plan(folder / "plan.json") for folder in options.runs]
    datasets = sorted({plan.public.dataset for plan in plans})
    if len(datasets) > 1:
        raise UserError(f"--runs are of several data sets, {', '.join(datasets)}: give those of one, the one of --data")
    test, rows = load_images(options.data / "test.npz"), []
    for plan in plans:
        work = options.work / plan.digest[:16]
        data = read_private(options.data / "train.npz", plan.public)
        rows.append(row(plan, looks(plan, data, test, protocol, wanted, device, work, options.threads), wanted))
        write_csv(options.out, COLUMNS, rows)
    write_json(options.out.with_suffix(".json"), {**provenance(), "threads": options.threads, "looks": options.looks})


if __name__ == "__main__":
    raise SystemExit(main())
