"""The profiles are what Snakemake and its executors take: a dry run of each, where its executor is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROFILES = {"slurm": [], "kubernetes": ["snakemake_storage_plugin_fs"]}


@pytest.mark.parametrize("name", PROFILES)
def test_a_dry_run_plans_every_step(name: str, tmp_path: Path) -> None:
    for module in [f"snakemake_executor_plugin_{name}", *PROFILES[name]]:
        pytest.importorskip(module)
    storage = [f"--default-storage-prefix={tmp_path}/shared"] if name == "kubernetes" else []
    command = [sys.executable, "-m", "workflow.snakemake", "-n", "-s", str(ROOT / "Snakefile"), "-d", str(tmp_path),
               "--workflow-profile", str(ROOT / "profiles" / name), *storage, "--config", "preset=smoke"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "report.html" in done.stdout + done.stderr


@pytest.mark.parametrize("name", PROFILES)
def test_a_retry_has_more_memory_and_a_crash_leaves_nothing_half_written(name: str) -> None:
    profile = yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text(encoding="utf-8"))
    assert profile["executor"] == name and profile["retries"] >= 3 and profile["rerun-incomplete"]
    for asked in [profile["default-resources"], profile["set-resources"]["train"]]:
        assert asked["mem_mb"].startswith("attempt * ")


def test_one_line_of_the_slurm_profile_gives_a_gpu_to_all_that_trains() -> None:
    text = (ROOT / "profiles/slurm/config.yaml").read_text(encoding="utf-8")
    changed = yaml.safe_load(text.replace("gpu: 0", "gpu: 1", 1))["set-resources"]
    assert {rule: one["gpu"] for rule, one in changed.items()} == {"train": 1, "warmstart": 1, "classifiers": 1}
