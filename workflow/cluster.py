"""What a cluster is asked for: minutes by what a preset expects of a step, and a status command that answers."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
from typing import Any

# Of one step in a submission: a queue's limits are in minutes, and a step's imports on a cold disk take one.
LEAST_MINUTES = 5
# A preset's seconds are those of one idle core; a cluster's may be slower, and shared.
SLOWER = 4
# Of a step whose preset has not measured it.
UNMEASURED = {"warmstart": 1440, "train": 1440, "classifiers": 240}
UNMEASURED_OTHERS = 60
_ACCOUNTING = re.compile(r"^AccountingStorageType\s*=\s*(\S+)", re.MULTILINE)


def prepare(workflow: Any, settings: Any) -> None:
    """Readies a Snakemake workflow for an executor that submits its steps; `settings` are the executor's.

    One notice on stderr says what was changed.
    """
    raise_retries(workflow)
    if choose_status_command(settings):
        print("notice: Slurm keeps no accounts here: squeue says how its jobs are", file=sys.stderr, flush=True)


def minutes(rule: str, seconds: float | None, attempt: int = 1) -> int:
    """Returns the whole minutes to ask for a step that is expected to take `seconds` (at least 0) on one core.

    None is a step of which nothing is known. Each attempt after the first, counted from 1, is given as much more again:
    a training then continues from its checkpoint.
    """
    if seconds is None:
        return attempt * UNMEASURED.get(rule, UNMEASURED_OTHERS)
    return attempt * (LEAST_MINUTES + math.ceil(SLOWER * seconds / 60))


def keeps_accounts() -> bool:
    """Returns whether this machine's Slurm keeps accounts, which its `sacct` reads; True where it does not say."""
    if shutil.which("scontrol") is None:
        return True
    command = ["scontrol", "show", "config"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL).stdout
    found = _ACCOUNTING.search(said)
    return found is None or not found[1].endswith("none")


def choose_status_command(settings: Any) -> str | None:
    """Sets the Slurm executor's `status_command` to squeue where accounting is off, and returns what was set.

    There sacct, which the executor asks by default, says nothing, and the call would wait for its jobs without end.
    Settings of other executors have no such field and stay as they are.
    """
    if getattr(settings, "status_command", None) != "sacct" or keeps_accounts():
        return None
    settings.status_command = "squeue"
    return settings.status_command


def raise_retries(workflow: Any) -> None:
    """Tries every rule of a Snakemake workflow again as often as its call says: one with a number of its own too."""
    asked = workflow.execution_settings.retries
    for rule in workflow.rules:
        rule.restart_times = max(rule.restart_times, asked)


def leave_retries_to_the_caller(workflow: Any) -> None:
    """Tries no rule again in a call that Snakemake itself made: in a submission that is being ended it would go on."""
    for rule in workflow.rules:
        rule.restart_times = 0
