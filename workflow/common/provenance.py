"""Where a result came from: code version, package versions, machine, time."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from workflow.common.pins import PINS, pinned

# By their names in Linux, the widest first.
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}
PACKAGES = ("torch", "torchvision", "opacus", "torch-fidelity", "dp-accounting", "scikit-learn", "numpy", "snakemake")


_ROOT = Path(__file__).resolve().parents[2]


def _git(*arguments: str, root: Path = _ROOT) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _processor() -> str:
    """Returns maker's name, family and model, and the widest vectors: a name such as "AMD EPYC" is that of many."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    found: dict[str, str] = {}
    for key, _, value in (line.partition(":") for line in lines):
        found.setdefault(key.strip(), value.strip())
    if "model name" not in found:
        return platform.machine()
    numbers = [f"{key.removeprefix('cpu ')} {found[key]}" for key in ("cpu family", "model") if key in found]
    features = found.get("flags", "").split()
    widest = next((name for flag, name in VECTORS.items() if flag in features), None)
    return ", ".join([found["model name"], *([" ".join(numbers)] if numbers else []), *([widest] if widest else [])])


def added_code(root: Path = _ROOT) -> tuple[str, ...]:
    """Returns the Python files of `methods/` and `workflow/` that git does not hold, such as a new method's.

    Empty without git. `provenance` looks at tracked files alone: a benchmark's runs are the same beside a method's file
    that none of them uses.
    """
    listed = _git("ls-files", "--others", "--exclude-standard", "--", "methods", "workflow", root=root) or ""
    return tuple(path for path in listed.splitlines() if path.endswith(".py"))


def provenance() -> dict[str, Any]:
    """Returns commit, whether tracked files differ from it, versions, processor, cores and UTC time.

    With `pinned`, the settings that make numbers the same on other processors, where this process has them.
    """
    status = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "modified": None if status is None else bool(status),
        "python": platform.python_version(),
        "packages": _versions(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        **({"pinned": dict(PINS)} if pinned() else {}),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
