"""Trains one run under its ledger; continues where a killed run stopped."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from methods.core.accounting.calibration import check_plan
from methods.core.method import Method
from methods.core.privacy.ledger import BudgetExhausted, Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.runs import checkpoint, finished, noise_key
from methods.core.runs.finished import LEDGER
from methods.core.runs.peak_memory import peak_memory_mib
from methods.core.runs.plan import Plan
from methods.core.runs.rehearsal import rehearse
from workflow.common.errors import UserError
from workflow.common.files import csv_text, write_json, write_text
from workflow.common.provenance import provenance

PRIVATE_REPORT = "report.json"
CHECKPOINT_SECONDS = 120.0
LOG_ROWS = 200


def train(
    plan: Plan,
    data: PrivateData,
    folder: Path,
    device: torch.device,
    warm_start: Path | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    secret_noise: bool = False,
    again: bool = False,
) -> dict[str, Any]:
    """Trains to the plan's last step or the end of its budget, writes the run's files and returns run.json's content.

    A folder with a checkpoint continues from it. Ledger lines written after that checkpoint stay spent, so a crash
    shortens a run. With `secret_noise` the noise cannot be repeated; else it follows from plan and records. `again`
    trains a finished folder once more, which charges its records once more and keeps the earlier ledger; it changes
    nothing elsewhere. Raises UserError for a finished folder without it, and for a ledger of another plan.
    """
    # The working copy is undeclared to Snakemake, which deletes a failed job's outputs: a spend must outlive a failure.
    ledger_path, resume = finished.working_ledger(folder), finished.is_begun(folder)
    # Before the records give the key: a plan over its budget reads nothing.
    check_plan(plan.releases, plan.budget)
    if not resume:
        rehearse(plan, device, warm_start)
        finished.begin(plan, folder, again, secret_noise)
    key = noise_key.noise_key(plan, data, folder, secret_noise)
    with Ledger.open(ledger_path, plan.releases, plan.budget, resume, key) as ledger:
        method = plan.build(device)
        loop = TrainingLoop(plan, method, folder, checkpoint_seconds)
        stored = checkpoint.load(folder, device)
        with _Signals() as signals:
            if stored is None:
                loop.prepare(data, ledger, warm_start)
            else:
                loop.restore(stored, data, ledger, warm_start)
            loop.run(data, ledger, signals)
        record = _finish(plan, method, loop, ledger, folder, device)
        record["noise"] = noise_key.SECRET if secret_noise else noise_key.REPRODUCIBLE
    _publish(folder, ledger_path, record)
    return record


class TrainingLoop:
    """Steps of a method, and what they must remember across a kill."""

    def __init__(self, plan: Plan, method: Method, folder: Path, checkpoint_seconds: float) -> None:
        self.method, self.folder, self.checkpoint_seconds = method, folder, checkpoint_seconds
        self.hyper = plan.setting()["hyper"]
        self.step, self.before, self.log = 0, 0.0, []
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those before a kill included."""
        return self.before + time.monotonic() - self.started

    def prepare(self, data: PrivateData, ledger: Ledger, warm_start: Path | None) -> None:
        """Does the method's work before step 0."""
        try:
            self.method.prepare(data, ledger, warm_start)
        except BudgetExhausted as end:
            self._stop_early(end)
        # What preparing released cannot be released again, so it must not be lost.
        self._save()

    def restore(self, stored: dict[str, Any], data: PrivateData, ledger: Ledger, warm_start: Path | None) -> None:
        """Continues from a checkpoint. Raises UserError if other hyper-parameters made it."""
        if stored["hyper"] != self.hyper:
            raise UserError(f"{self.folder} was begun with other hyper-parameters; use those, or remove the folder")
        self.method.resume(data, ledger, warm_start)
        self.method.load(stored["public"], stored["private"])
        self.step, self.before, self.log = stored["step"], stored["seconds"], stored["log"]
        print(f"continuing after step {self.step} of {self.method.num_steps}", file=sys.stderr)

    def run(self, data: PrivateData, ledger: Ledger, signals: _Signals) -> None:
        """Trains to the last step or the end of the budget."""
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
                    self.log.append({"step": self.step, **values})
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
                f"{end}, by a run that was killed before its first checkpoint; remove {self.folder} to start again,"
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
    plan: Plan, method: Method, loop: TrainingLoop, ledger: Ledger, folder: Path, device: torch.device
) -> dict[str, Any]:
    checkpoint.save_generator(folder, method)
    write_text(folder / "log.csv", _log_csv(loop.log))
    private = folder / "private" / PRIVATE_REPORT
    private.unlink(missing_ok=True)
    if figures := method.private_report(plan.budget.delta):
        note = "computed from private data and not sanitised: no guarantee, and not to be released"
        write_json(private, {"note": note, **figures})
    return {
        **plan.setting(),
        **{f"eps_{count}": ledger.epsilon(count) for count in plan.costs},
        "train_seconds": round(loop.seconds, 3),
        "peak_memory_mib": round(peak_memory_mib(device)),
        "steps_done": loop.step,
        "steps_planned": method.num_steps,
        "device": str(device) if device.type == "cpu" else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
        **finished.earlier_runs(folder),
        "provenance": provenance(),
    }


def _publish(folder: Path, ledger_path: Path, record: dict[str, Any]) -> None:
    write_text(folder / LEDGER, ledger_path.read_text(encoding="utf-8"))
    # After the ledger: a run is complete exactly when its run.json is there.
    write_json(folder / finished.RECORD, record)
    finished.publish(folder)


def _log_csv(rows: list[dict[str, float]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["step"]
    return csv_text(columns, rows)
