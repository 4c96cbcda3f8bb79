"""`python -m methods.core.train`: trains one run under its ledger; continues where a killed run stopped."""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from methods.core import checkpoint, registry
from methods.core.arguments import add_machine, context, json_argument, private_data, use_machine
from methods.core.memory import peak_memory_mib
from methods.core.method import Method
from methods.core.plan import budget_of
from methods.core.privacy import BudgetExhausted, Ledger
from methods.core.private_data import PrivateData
from workflow.common.errors import UserError, command
from workflow.common.files import write_json, write_text
from workflow.common.provenance import provenance
from workflow.common.seeds import derive

LEDGER = "ledger.jsonl"
PRIVATE_REPORT = "report.json"
CHECKPOINT_SECONDS = 120.0
LOG_ROWS = 200


def build(plan: dict[str, Any], device: torch.device) -> Method:
    """Returns the untrained method that a plan describes."""
    hp = registry.hyper(plan["method"], plan["hyper"])
    return registry.load(plan["method"])(hp, context(plan, device))


def train(
    plan: dict[str, Any],
    data: PrivateData,
    folder: Path,
    device: torch.device,
    warm_start: Path | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> dict[str, Any]:
    """Trains to the plan's last step or the end of its budget, writes the run's files and returns run.json's content.

    A folder with a checkpoint continues from it. Ledger lines written after that checkpoint stay spent, so a crash
    shortens a run. Raises UserError for a ledger that belongs to another plan.
    """
    # Keyed by the whole plan: two runs that shared their noise could be subtracted from one another.
    digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
    noise = torch.Generator().manual_seed(derive(plan["seed"], digest, "noise"))
    # The working copy is undeclared to Snakemake, which deletes a failed job's outputs: a spend must outlive a failure.
    ledger_path = folder / "private" / LEDGER
    resume = ledger_path.exists() and ledger_path.stat().st_size > 0
    if not resume and checkpoint.checkpoint_path(folder).exists():
        raise UserError(f"{folder} has a checkpoint whose ledger is gone; remove the folder to start anew")
    with Ledger.open(
        ledger_path, context(plan, device).releases, budget_of(plan), resume=resume, noise_stream=noise
    ) as ledger:
        method = build(plan, device)
        progress = _Progress(method, plan["hyper"], folder, checkpoint_seconds)
        stored = checkpoint.load(folder, device)
        with _Signals() as signals:
            if stored is None:
                progress.prepare(data, ledger, warm_start)
            else:
                progress.restore(stored, data, ledger, warm_start)
            progress.run(data, ledger, signals)
        record = _finish(plan, method, progress, ledger, folder, device)
    _publish(folder, ledger_path, record)
    return record


class _Progress:
    """The training loop and what it must remember across a kill."""

    def __init__(self, method: Method, hyper: dict[str, Any], folder: Path, checkpoint_seconds: float) -> None:
        self.method, self.hyper, self.folder, self.checkpoint_seconds = method, hyper, folder, checkpoint_seconds
        self.step, self.before, self.log = 0, 0.0, []
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.started

    def prepare(self, data: PrivateData, ledger: Ledger, warm_start: Path | None) -> None:
        try:
            self.method.prepare(data, ledger, warm_start)
        except BudgetExhausted as end:
            self._stop_early(end)
        # What preparing released cannot be released again, so it must not be lost.
        self._save()

    def restore(self, stored: dict[str, Any], data: PrivateData, ledger: Ledger, warm_start: Path | None) -> None:
        if stored["hyper"] != self.hyper:
            raise UserError(f"{self.folder} was begun with other hyper-parameters; use those, or remove the folder")
        self.method.resume(data, ledger, warm_start)
        self.method.load(stored["public"], stored["private"])
        self.step, self.before, self.log = stored["step"], stored["seconds"], stored["log"]
        print(f"continuing after step {self.step} of {self.method.num_steps}", file=sys.stderr)

    def run(self, data: PrivateData, ledger: Ledger, signals: _Signals) -> None:
        total, saved = self.method.num_steps, time.monotonic()
        every = max(1, total // LOG_ROWS)
        with tqdm(total=total, initial=self.step, unit="step", disable=None) as bar:
            while self.step < total:
                try:
                    values = self.method.step(self.step, data, ledger)
                except BudgetExhausted as end:
                    self._stop_early(end)
                    return
                if self.step % every == 0 or self.step + 1 == total:
                    self.log.append({"step": self.step, "seconds": round(self.seconds, 3), **values})
                self.step += 1
                bar.update()
                if signals.received or time.monotonic() - saved > self.checkpoint_seconds:
                    self._save()
                    saved = time.monotonic()
                if signals.received:
                    raise SystemExit(128 + signals.received)
        # What follows may fail and be called again; the spent budget would not train a second time.
        self._save()

    def _stop_early(self, end: BudgetExhausted) -> None:
        if self.step == 0:
            raise UserError(
                f"{end}, by a run that was killed before its first checkpoint; remove {self.folder} to start anew,"
                " which spends the budget on these records a second time"
            ) from None
        print(f"stopped at step {self.step} of {self.method.num_steps}: {end}", file=sys.stderr)

    def _save(self) -> None:
        checkpoint.save(self.folder, self.method, self.step, self.seconds, self.log, self.hyper)


class _Signals:
    """Notes SIGTERM and SIGINT for a block, so that training ends at a step's end with a checkpoint."""

    def __init__(self) -> None:
        self.received = 0

    def _note(self, number: int, _: Any) -> None:
        self.received = number

    def __enter__(self) -> _Signals:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _finish(
    plan: dict[str, Any], method: Method, progress: _Progress, ledger: Ledger, folder: Path, device: torch.device
) -> dict[str, Any]:
    checkpoint.save_generator(folder, method)
    write_text(folder / "log.csv", _csv(progress.log))
    private = folder / "private" / PRIVATE_REPORT
    private.unlink(missing_ok=True)
    if figures := method.private_report(plan["delta"]):
        note = "computed from private data and not sanitised: no guarantee, and not to be released"
        write_json(private, {"note": note, **figures})
    record = {key: plan[key] for key in ("run", "method", "dataset", "seed", "epsilon", "delta", "accounting", "hyper")}
    if budget_of(plan).over_budget:
        record["over_budget"] = True
    if plan["accounting"] != "none":
        record |= {f"eps_{count}": ledger.epsilon(count) for count in ("published", "sound")}
    record |= {
        "train_seconds": round(progress.seconds, 3),
        "peak_memory_mib": round(peak_memory_mib(device)),
        "steps_done": progress.step,
        "steps_planned": method.num_steps,
        "device": str(device) if device.type == "cpu" else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
        "provenance": provenance(),
    }
    return record


def _publish(folder: Path, ledger_path: Path, record: dict[str, Any]) -> None:
    write_text(folder / LEDGER, ledger_path.read_text(encoding="utf-8"))
    # Last: a run is complete exactly when its run.json is there, and only then may the folder be trained anew.
    write_json(folder / "run.json", record)
    # In this order: a ledger without its checkpoint is refused, the other way round would train for nothing.
    checkpoint.checkpoint_path(folder).unlink(missing_ok=True)
    ledger_path.unlink()


def _csv(rows: list[dict[str, float]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row)) or ["step", "seconds"]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@command
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m methods.core.train", description=__doc__)
    parser.add_argument("--plan", required=True, help="plan.json of the run")
    parser.add_argument("--data", required=True, help="train.npz of the data set")
    parser.add_argument("--warm-start", type=Path, help="folder of the warm-started critics, for methods that use one")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    add_machine(parser)
    arguments = parser.parse_args(argv)
    device = use_machine(arguments)
    plan = json_argument(arguments.plan)
    data = private_data(arguments.data, context(plan, device).public)
    record = train(plan, data, arguments.out, device, arguments.warm_start)
    print(f"{record['run']}: {record['steps_done']} steps in {record['train_seconds']:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
