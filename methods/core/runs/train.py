"""Trains one run under its ledger; continues where a killed run stopped."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from methods.core.accounting.calibration import check_plan
from methods.core.method import Method
from methods.core.privacy.answers import Answers, unsaved
from methods.core.privacy.ledger import BudgetExhausted, Ledger
from methods.core.privacy.ledger_lines import Position
from methods.core.privacy.private_data import PrivateData
from methods.core.release import Release
from methods.core.runs import begun, checkpoint, finished, generator, noise_key, outputs
from methods.core.runs import warm_start as begin_from
from methods.core.runs.begun import Begun
from methods.core.runs.folder import (
    LEDGER,
    LOG,
    answers,
    end,
    held,
    is_begun,
    kept_ledgers,
    ledgers_digest,
    working_ledger,
)
from methods.core.runs.live_line import LiveLine
from methods.core.runs.live_log import LiveLog, log_csv, plain_numbers
from methods.core.runs.peak_memory import peak_memory_mib
from methods.core.runs.plan import Plan
from methods.core.runs.rehearsal import rehearse
from methods.core.speed.precision import BOTH, PRECISIONS, computes_in, tell_if_widened, together
from workflow.common import live, process
from workflow.common.errors import UserError
from workflow.common.files import write_json, write_text
from workflow.common.provenance import provenance
from workflow.common.readers.fields import fields, is_one_of, is_whole
from workflow.common.readers.guard import reading

PRIVATE_REPORT = "report.json"
CHECKPOINT_SECONDS = 120.0
# A checkpoint that takes longer to store is made as much more rarely: gigabytes of teachers take a minute.
_SLOW_SECONDS = 6.0
LOG_ROWS = 200
_KEPT_BYTES = 2**28


def train(
    plan: Plan,
    data: PrivateData,
    folder: Path,
    device: torch.device,
    warm_start: Path | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    secret_noise: bool = False,
    again: bool = False,
    begins_to_charge: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Trains to the plan's last step or the end of its budget, writes the run's files and returns run.json's content.

    A folder with a checkpoint continues from it. Ledger lines written after that checkpoint stay spent, so a crash
    shortens a run, by a twentieth at most. With `secret_noise` the noise cannot be repeated; else it follows from plan
    and records. `again` trains a finished folder once more, which charges its records once more and keeps the earlier
    ledger; it changes nothing elsewhere. A finished run that lacks outputs gets them back instead. `begins_to_charge`
    is called once what the run begins with is on disk, before it charges anything.

    Raises UserError for a finished folder without `again`, for one that was begun with another plan or other records,
    for a ledger that is behind its checkpoint or was changed, and for a disk that fails. Nothing is charged then, and
    the same call continues.
    """
    # Before the records give the key: a plan over its budget reads nothing.
    check_plan(plan.releases, plan.budget)
    key = noise_key.of_records(plan, data)
    begins = Begun(plan, noise_key.fingerprint(key), "secret" if secret_noise else "reproducible")
    # Before the folder is touched: what cannot work leaves nothing behind.
    if not is_begun(folder):
        begin_from.check(plan, warm_start, data)
        rehearse(plan, device)
    with held(folder):
        if record := outputs.ended(folder, plan, begins):
            return record
        resume, stored, since = is_begun(folder), None, None
        if resume:
            begins, stored, since = _stored(folder, begins, device)
            begin_from.check(plan, warm_start, data)
        else:
            finished.begin(plan, folder, again, secret_noise)
            begins = begins.named(len(kept_ledgers(folder)), ledgers_digest(folder))
        # Here, as what is refused or only put back computes nothing.
        tell_if_widened(device, plan.hyper)
        # The working copy is undeclared to Snakemake, which deletes a failed job's outputs: a spend must outlive a
        # failure.
        ledger_path = working_ledger(folder)
        kept = answers(folder, repeatable=not secret_noise, run=begins.run)
        about = {"run": plan.digest, "since": since, "answers": kept}
        key = noise_key.fresh() if secret_noise else key
        with Ledger.open(ledger_path, plan.releases, plan.budget, resume, key, **about) as ledger:
            if not resume:
                begun.write(folder, begins, ledger.position())
            if begins_to_charge is not None:
                begins_to_charge()
            method = plan.build(device)
            loop = TrainingLoop(plan, method, folder, begins, kept, checkpoint_seconds, computes_in(device, plan.hyper))
            with process.Signals() as signals:
                if stored is None:
                    loop.prepare(data, ledger, warm_start)
                else:
                    loop.restore(stored, data, ledger, warm_start)
                loop.run(data, ledger, signals)
            record, spent = _finish(plan, method, loop, ledger, folder, device), ledger.position()
        record["noise"] = noise_key.SECRET if secret_noise else noise_key.REPRODUCIBLE
        outputs.conclude(folder, plan, begins, record, spent)
        outputs.publish(folder)
    return record


def _stored(folder: Path, begins: Begun, device: torch.device) -> tuple[Begun, dict[str, Any] | None, Position]:
    """Returns the run in progress, its checkpoint, if it has one, and what its ledger held then.

    Raises UserError unless all that is there belongs to one run, and that is the one which `begins`.
    """
    before, since = begun.read(folder)
    before.check(begins, folder)
    if before.earlier != len(kept_ledgers(folder)):
        raise UserError(
            f"{folder} has the ledgers of {len(kept_ledgers(folder))} earlier runs, and its private/ is of one that was"
            f" begun after {before.earlier}, such as an older copy that was put back: restore what belongs together"
        )
    if before.ledgers != ledgers_digest(folder):
        raise UserError(
            f"{folder} has other ledgers of earlier runs, ledger-1.jsonl and so on, than when its run was begun: they"
            " were cut, changed or exchanged; restore them"
        )
    if not working_ledger(folder).exists():
        raise UserError(
            f"{folder} holds a run whose ledger is gone; restore it, or remove the folder to start again, which spends"
            " the budget on these records a second time"
        )
    if (folder / LEDGER).exists():
        raise UserError(
            f"{folder} holds the {LEDGER} of a finished run beside one in progress, such as an older copy of private/"
            " that was put back: remove private/, and the finished run is as it was"
        )
    stored = checkpoint.load(folder, device)
    if stored is None:
        return before, None, since
    path = checkpoint.checkpoint_path(folder)
    if stored["about"].get("run") != before.run:
        raise UserError(
            f"{path} is of another run than the one begun there, or of another version;"
            " restore the one that belongs to it, or remove the folder to start again"
        )
    with reading(path, "does not say how far its ledger was", checkpoint.AGAIN):
        return before, stored, Position.from_dict(stored["about"].get("ledger"), before.plan.releases)


class TrainingLoop:
    """Steps of a method, and what they must remember across a kill."""

    def __init__(
        self, plan: Plan, method: Method, folder: Path, begins: Begun, kept: Answers, checkpoint_seconds: float,
        computes_in: str,
    ) -> None:  # fmt: skip
        self.answers = kept
        # Of this process, and of all so far that computed something: another processor may have begun.
        self.computes_in, self.computed_in = computes_in, ""
        self.plan, self.method, self.folder, self.checkpoint_seconds = plan, method, folder, checkpoint_seconds
        self.live_log = LiveLog(folder / LOG)
        self.releases, self.run_digest = plan.releases, begins.run
        self.step, self.before, self.log = 0, 0.0, []
        self.started = self.saved = time.monotonic()
        self.storing = 0.0
        self.saved_uses: dict[str, int] = {}

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those before a kill included."""
        return self.before + time.monotonic() - self.started

    def prepare(self, data: PrivateData, ledger: Ledger, warm_start: Path | None) -> None:
        """Does the method's work before step 0."""
        # What begins in a warm start was computed there, perhaps by another processor.
        self.computed_in = together(begin_from.computed_in(warm_start), self.computes_in)
        live.tell(self.folder, live.Live(0, self.method.num_steps))
        try:
            self.method.prepare(data, ledger, warm_start)
        except BudgetExhausted as spent:
            self._stop_early(spent)
        # What preparing released cannot be released again, so it must not be lost.
        self._save(ledger)
        checkpoint.check_room(self.folder, self.method.checkpoint_growth)
        self.live_log.show(self.log)

    def restore(self, stored: dict[str, Any], data: PrivateData, ledger: Ledger, warm_start: Path | None) -> None:
        """Continues from a checkpoint."""
        self.method.resume(data, ledger, warm_start)
        with reading(checkpoint.checkpoint_path(self.folder), "does not fit its run", checkpoint.AGAIN):
            fields(stored, {"step": is_whole(0, self.method.num_steps)})
            # Checkpoints of an older version lack it.
            about = fields({"computed_in": "", **stored["about"]}, {"computed_in": is_one_of("", *PRECISIONS, BOTH)})
            self.method.load(stored["public"], stored["private"])
        self.step, self.before, self.log = stored["step"], stored["seconds"], stored["log"]
        self.computed_in = about["computed_in"]
        # A disk that cannot take a checkpoint is found before anything is charged: a retry costs nothing.
        self._store(ledger)
        if self.step == 0:
            checkpoint.check_room(self.folder, self.method.checkpoint_growth)
        # Rows of steps that will be done once more go.
        self.live_log.show(self.log)
        print(f"continuing after step {self.step} of {self.method.num_steps}", file=sys.stderr)

    def run(self, data: PrivateData, ledger: Ledger, signals: process.Signals) -> None:
        """Trains to the last step or the end of the budget."""
        total = self.method.num_steps
        every = max(1, total // LOG_ROWS)
        if self.step < total:
            self.computed_in = together(self.computed_in, self.computes_in)
        with LiveLine(self.plan, self.folder, self.step, total) as line:
            while self.step < total:
                try:
                    values = self.method.step(self.step, data, ledger)
                except BudgetExhausted as spent:
                    self._stop_early(spent)
                    self._save(ledger)
                    return
                row = None
                if self.step % every == 0 or self.step + 1 == total:
                    row = {"step": self.step, **plain_numbers(values)}
                    self.log.append(row)
                    self.live_log.show(self.log)
                self.step += 1
                line.ended(self.step, ledger, row)
                # The last one too: what follows may fail and be called again, and the spent budget would not train a
                # second time.
                if signals.received or self.step == total or self._is_due(ledger):
                    self._save(ledger)
                    line.saved()
                signals.stop(self._kept(total))

    def _kept(self, total: int) -> str:
        what = "everything" if self.step == total else f"a checkpoint after step {self.step} of {total}"
        return f"{self.folder} keeps {what}; the same command continues from there"

    def _is_due(self, ledger: Ledger) -> bool:
        """Returns whether a kill would cost much: time, or of a release as much as it may; or too much is kept."""
        late = time.monotonic() - self.saved > self.checkpoint_seconds * max(1.0, self.storing / _SLOW_SECONDS)
        return late or self.answers.size > _KEPT_BYTES or any(self._is_spent(one, ledger) for one in self.releases)

    def _is_spent(self, release: Release, ledger: Ledger) -> bool:
        return 0 < unsaved(release) <= ledger.uses(release.name) - self.saved_uses[release.name]

    def _stop_early(self, spent: BudgetExhausted) -> None:
        if self.step == 0:
            raise UserError(
                f"{spent}, by a run that was killed before its first checkpoint; remove {self.folder} to start again,"
                " which spends the budget on these records a second time"
            ) from None
        print(f"stopped at step {self.step} of {self.method.num_steps}: {spent}", file=sys.stderr)

    def _save(self, ledger: Ledger) -> None:
        self.answers.clear(self._store(ledger).uses)

    def _store(self, ledger: Ledger) -> Position:
        position = ledger.position()
        about = {"run": self.run_digest, "ledger": position.to_dict(), "computed_in": self.computed_in}
        begun = time.monotonic()
        checkpoint.save(self.folder, self.method, self.step, self.seconds, self.log, about)
        self.saved = time.monotonic()
        self.storing = self.saved - begun
        self.saved_uses = {release.name: ledger.uses(release.name) for release in self.releases}
        return position


def _finish(
    plan: Plan, method: Method, loop: TrainingLoop, ledger: Ledger, folder: Path, device: torch.device
) -> dict[str, Any]:
    digest = generator.save(end(folder), method)
    if not all(bool(value.isfinite().all()) for value in method.public_state().values()):
        # Samples are bytes, which have no NaN: scores of black images would be all that shows it.
        told = "its generator holds NaN or an infinity: training has diverged, and its samples mean nothing"
        print(f"notice: {folder}: {told}", file=sys.stderr)
    write_text(end(folder) / LOG, log_csv(loop.log))
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
        **({"computed_in": loop.computed_in} if loop.computed_in else {}),
        generator.DIGEST: digest,
        **finished.earlier_runs(folder),
        "provenance": provenance(),
    }
