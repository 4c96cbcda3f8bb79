"""`python -m tests.slurm.loopback`: the benchmark through a Slurm of one node, and the same on this machine; as root.

First preset smoke, whose scores must be those of a local call but for seconds. Then one run with three seeds, each of
which is disturbed while it trains: its job is cancelled, its node goes down, its time is over. Each must continue from
its checkpoint and end with the scores of a run that nothing disturbed. Printed are counts, and exit code 1 is for what
differs.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.slurm import one_node
from workflow.common.live import hear

ROOT = Path(__file__).resolve().parents[2]
SECONDS = {"train_seconds"}
# A tenth of these steps is over in seconds, all of them in a minute or two.
CASES = """
extends: smoke
datasets: {{digits: {{}}}}
runs:
  {run}: {{steps: {steps}}}
seeds: {seeds}
"""
RUN = "dpgan"
PATIENCE = 1800.0


@dataclass
class Outcome:
    """What became of a disturbed run: its job's state then, steps made by then, and after which it continued."""

    case: str
    state: str
    reached: int
    continued: int = 0


def snakemake(folder: Path, arguments: Sequence[str]) -> list[str]:
    """Returns the command of a call whose results lie in `folder`."""
    program = [sys.executable, "-m", "workflow.snakemake", "--quiet", "rules", "host", "-s", str(ROOT / "Snakefile")]
    return [*program, "-d", str(folder), *arguments]


def cluster(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments of a call that goes through Slurm, looked after more often than a real one."""
    looks = ["--slurm-init-seconds-before-status-checks", "5", "--seconds-between-status-checks", "5"]
    return ["--workflow-profile", str(ROOT / "profiles/slurm"), "--latency-wait", "20", *looks, *arguments]


def environment() -> dict[str, str]:
    """Returns this process's environment with the repository on Python's path."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def call(folder: Path, arguments: Sequence[str]) -> str:
    """Makes what the arguments ask for and returns what was printed. Raises RuntimeError where it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "printed.txt").open("w+", encoding="utf-8") as file:
        done = subprocess.run(snakemake(folder, arguments), stdout=file, stderr=subprocess.STDOUT, env=environment(),
                              cwd=folder, check=False)  # fmt: skip
        file.seek(0)
        printed = file.read()
    if done.returncode:
        raise RuntimeError(f"the call in {folder} ended with {done.returncode}:\n{printed[-3000:]}")
    return printed


def scores(path: Path) -> dict[tuple[str, ...], str]:
    """Returns the values of a scores.csv by what they are of, without those that are seconds."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    named = {tuple(text for name, text in row.items() if name != "value"): row["value"] for row in rows}
    return {key: value for key, value in named.items() if not SECONDS & set(key)}


def differing(one: Path, other: Path) -> list[str]:
    """Returns what two scores.csv say differently, in words."""
    left, right = scores(one), scores(other)
    return [
        f"{' '.join(key)}: {left.get(key)} against {right.get(key)}"
        for key in sorted(left.keys() | right.keys())
        if left.get(key) != right.get(key)
    ]


def submissions(printed: str) -> list[str]:
    """Returns Slurm's numbers of the jobs that a call submitted."""
    return re.findall(r"has been submitted with SLURM jobid (\d+)", printed)


def same(folder: Path, runs: str, target: Sequence[str]) -> list[str]:
    """Runs smoke here and through Slurm; prints counts and returns what differs."""
    chosen = ["--config", "preset=smoke", *([f"runs={runs}"] if runs else [])]
    call(folder / "here", [*target, "--cores", "2", *chosen])
    begun = time.monotonic()
    printed = call(folder / "slurm", [*target, *cluster(chosen)])
    steps = re.findall(r"progress: (\d+)/\d+ steps", printed)[-1]
    found = differing(*(folder / name / "results/smoke/scores.csv" for name in ("here", "slurm")))
    count = len(scores(folder / "here/results/smoke/scores.csv"))
    print(f"smoke: {steps} steps in {len(submissions(printed))} submissions, {time.monotonic() - begun:.0f} s;"
          f" {count - len(found)} of {count} scores equal", flush=True)  # fmt: skip
    return found


def job_of(seed: int) -> str:
    """Returns the number of the running job that trains a seed, or an empty text."""
    listed = squeue("--states=RUNNING", "--format=%i|%k").splitlines()
    return next((line.split("|")[0] for line in listed if f"-{RUN}-eps10-seed{seed}_" in line), "")


def state_of(job: str) -> str:
    """Returns a job's state as squeue says it."""
    return squeue("--states=all", "--format=%T", f"--jobs={job}").strip()


def squeue(*options: str) -> str:
    """Returns what squeue prints."""
    return subprocess.run(["squeue", "--noheader", *options], capture_output=True, text=True, check=False).stdout


def control(*words: str) -> None:
    """Lets scontrol change something."""
    subprocess.run(["scontrol", *words], check=True, capture_output=True)


def cancel(job: str, node: str) -> None:
    """The job is killed."""
    subprocess.run(["scancel", job], check=True)


def down(job: str, node: str) -> None:
    """The job's node is lost, and comes back."""
    control("update", f"nodename={node}", "state=down", "reason=test")
    wait_for(lambda: not job_runs(job), "the node's jobs to end")
    # Where it has not come back by itself, as one that registers again may.
    subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], check=False, capture_output=True)


def limit(job: str, node: str) -> None:
    """The job's time is over."""
    control("update", f"jobid={job}", "timelimit=1")


DISTURBANCES: dict[str, Callable[[str, str], None]] = {"killed": cancel, "node down": down, "time limit": limit}


def job_runs(job: str) -> bool:
    """Returns whether a job still runs or is being ended."""
    return state_of(job) in ("RUNNING", "COMPLETING")


def wait_for(condition: Callable[[], object], what: str) -> object:
    """Waits until a condition holds and returns what it gave. Raises RuntimeError where it never does."""
    until = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > until:
            raise RuntimeError(f"waited in vain for {what}")
        time.sleep(0.5)
    return found


def step_of(folder: Path) -> int:
    """Returns how many steps a run in progress has made."""
    live = hear(folder)
    return live.step if live else 0


def cases(folder: Path, node: str, steps: int, names: Iterable[str] = DISTURBANCES) -> list[str]:
    """Disturbs one seed after the other while it trains; prints what became of each and returns what differs."""
    names = list(names)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "cases.yaml"
    file.write_text(CASES.format(run=RUN, steps=steps, seeds=list(range(len(names)))), encoding="utf-8")
    target, chosen = "results/cases/scores.csv", ["--configfile", str(file), "--config", f"runs={RUN}"]
    call(folder / "here", [target, "--cores", "2", *chosen])
    there = folder / "slurm"
    there.mkdir(exist_ok=True)
    outcomes = []
    with (there / "printed.txt").open("w", encoding="utf-8") as printed:
        command = snakemake(there, [target, *cluster(chosen)])
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT, env=environment(), cwd=there)
        try:
            for seed, name in enumerate(names):
                run = there / f"results/cases/runs/digits/{RUN}/eps10/seed{seed}"
                outcomes.append(disturb(run, seed, name, node, process))
            code = process.wait(PATIENCE)
        finally:
            process.terminate()
    text = (there / "printed.txt").read_text(encoding="utf-8")
    if code:
        raise RuntimeError(f"the disturbed call ended with {code}:\n{text[-3000:]}")
    found = differing(*(folder / name / target for name in ("here", "slurm")))
    for seed, outcome in enumerate(outcomes):
        log = (there / f"results/cases/logs/train/digits-{RUN}-eps10-seed{seed}.log").read_text(encoding="utf-8")
        after = re.findall(r"continuing after step (\d+) of", log)
        outcome.continued = int(after[-1]) if after else 0
        wrong = [line for line in found if f" {seed} " in line]
        print(f"{outcome.case}: job {outcome.state} after step {outcome.reached} of {steps}, continued after step"
              f" {outcome.continued}; {len(wrong)} scores differ", flush=True)  # fmt: skip
        if not outcome.continued:
            found.append(f"{outcome.case}: began again from its first step")
    count = len(scores(folder / "here" / target))
    print(f"cases: {len(submissions(text))} submissions; {count - len(found)} of {count} scores equal", flush=True)
    return found


def disturb(run: Path, seed: int, name: str, node: str, process: subprocess.Popen) -> Outcome:
    """Waits until a seed trains, disturbs it, and waits until it has left its job."""

    def trains() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"the call ended before seed {seed} trained")
        return bool(job_of(seed)) and step_of(run) > 0

    wait_for(trains, f"seed {seed} to train")
    job, reached = job_of(seed), step_of(run)
    DISTURBANCES[name](job, node)
    wait_for(lambda: not job_runs(job), f"job {job} to end")
    return Outcome(name, state_of(job), max(reached, step_of(run)))


def main(argv: list[str] | None = None) -> int:
    """Sets up Slurm, runs both parts, and ends it again."""
    parser = argparse.ArgumentParser(prog="python -m tests.slurm.loopback", description=__doc__)
    parser.add_argument("--runs", default="", help="runs of smoke to compare, with commas between them (default: all)")
    parser.add_argument("--only", choices=["same", "cases"], help="one of the two parts")
    parser.add_argument("--steps", type=int, default=3000, help="of the runs that are disturbed")
    parser.add_argument("--target", nargs="*", default=[], help="files of smoke to make (default: all)")
    parser.add_argument("--folder", type=Path, help="where results and logs are kept (default: removed at the end)")
    arguments = parser.parse_args(argv)
    if why := one_node.lacking():
        print(f"error: {why}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).absolute()
        found = []
        with one_node.running(folder / "daemons") as node:
            if arguments.only != "cases":
                found += same(folder / "smoke", arguments.runs, arguments.target)
            if arguments.only != "same":
                found += cases(folder / "cases", node, arguments.steps)
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
