"""A Slurm of one node on this machine: munged, slurmctld and slurmd, begun as root without systemd and ended again."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

# A step's srun finds its daemons by this file alone: with SLURM_CONF it reports "Could not establish a configuration
# source".
CONFIGURATION = Path("/etc/slurm/slurm.conf")
OURS = "# Written for a test on one node; removed at its end."
CLUSTER = "loopback"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
_READY_SECONDS = 60.0


def lacking() -> str:
    """Returns why no Slurm can be set up here, in words; nothing where it can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    if missing:
        return f"{', '.join(missing)} not found: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "slurmctld and slurmd need root"
    if CONFIGURATION.exists() and OURS not in CONFIGURATION.read_text(encoding="utf-8"):
        return f"{CONFIGURATION} belongs to a Slurm that is set up here already"
    return ""


def configuration(folder: Path, memory_mib: int, cores: int) -> str:
    """Returns slurm.conf for one node of this machine's name; `folder` takes the daemons' state and logs."""
    host = socket.gethostname().split(".")[0]
    return "\n".join([
        OURS,
        f"ClusterName={CLUSTER}",
        f"SlurmctldHost={host}(127.0.0.1)",
        "SlurmUser=root",
        "SlurmdUser=root",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU_Memory",
        "AccountingStorageType=accounting_storage/none",
        "JobAcctGatherType=jobacct_gather/none",
        "MpiDefault=none",
        # squeue must still know a job that ended between two looks at it.
        "MinJobAge=300",
        "ReturnToService=2",
        "KillWait=30",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool",
        *(f"{name}PidFile={folder}/{name.lower()}.pid" for name in ("Slurmctld", "Slurmd")),
        *(f"{name}LogFile={folder}/{name.lower()}.log" for name in ("Slurmctld", "Slurmd")),
        f"NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory_mib} State=UNKNOWN",
        "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
        "",
    ])  # fmt: skip


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """Keeps the daemons for a block and yields the node's name. Raises RuntimeError where they do not get ready."""
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    CONFIGURATION.parent.mkdir(parents=True, exist_ok=True)
    memory = int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20 * 0.8)
    # As many jobs at once as a user's cluster would run: two cases of a test at least.
    CONFIGURATION.write_text(configuration(folder, memory, max(2, os.cpu_count() or 2)), encoding="utf-8")
    before = os.environ["PATH"]
    os.environ["PATH"] = _PATH
    pids = []
    try:
        if not _munge_answers():
            pids.append(_start(["munged", "--force", f"--pid-file={folder}/munged.pid"], folder / "munged.pid"))
        for name in ("slurmctld", "slurmd"):
            pids.append(_start([name], folder / f"{name}.pid"))
        yield _ready(folder)
    finally:
        _end_jobs()
        for pid in [*reversed(pids), *_left()]:
            _end(pid)
        CONFIGURATION.unlink(missing_ok=True)
        os.environ["PATH"] = before


def _munge_answers() -> bool:
    return subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0


def _start(command: list[str], pid_file: Path) -> int:
    """Starts a daemon, which leaves its command at once, and returns its process."""
    Path("/run/munge").mkdir(exist_ok=True)
    subprocess.run(command, check=True, capture_output=True)
    until = time.monotonic() + _READY_SECONDS
    while not (pid_file.exists() and pid_file.read_text().strip()):
        if time.monotonic() > until:
            raise RuntimeError(f"{command[0]} did not start")
        time.sleep(0.1)
    return int(pid_file.read_text())


def _ready(folder: Path) -> str:
    until = time.monotonic() + _READY_SECONDS
    while time.monotonic() < until:
        command = ["sinfo", "--noheader", "--format=%N %T"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        if said.split()[1:] in (["idle"], ["mixed"]):
            return said.split()[0]
        time.sleep(0.5)
    raise RuntimeError(f"the node is not ready: {said.strip()}; see {folder}/slurmd.log")


def _end_jobs() -> None:
    """Cancels what is left in the queue, which would outlive the daemons, and waits for its end."""
    until = time.monotonic() + _READY_SECONDS
    while time.monotonic() < until:
        command = ["squeue", "--noheader", "--format=%i"]
        jobs = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
        if not jobs:
            return
        subprocess.run(["scancel", *jobs], check=False, capture_output=True)
        time.sleep(2)


def _left() -> list[int]:
    """Returns the processes of ended jobs that still run: without cgroups Slurm loses those whose parent is gone."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"SLURM_CLUSTER_NAME={CLUSTER}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 15)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 9)
