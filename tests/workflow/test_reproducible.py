"""`reproducible: true` in a preset: single precision, one thread, and steps that are pinned wherever they run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toy_project import Project

from methods.core import registry
from tests.toys import shipped
from workflow import fork_server, merging
from workflow.common.errors import UserError
from workflow.common.pins import PINS, VARIABLE
from workflow.datasets import NAMES
from workflow.overrides import Layer
from workflow.presets import load

ROOT = Path(__file__).resolve().parents[2]


def loaded(**given: Any):
    return load({"preset": "quick", **given}, datasets=NAMES, methods=registry, protocol_keys=None)


def precisions(config) -> set[str]:
    found = (hyper for run in config.runs.values() for hyper in run.hyper.values())
    return {hyper["precision"] for hyper in found if "precision" in hyper}


def test_smoke_is_reproducible_and_quick_is_fast() -> None:
    assert shipped("smoke").reproducible and not shipped("quick").reproducible
    assert "bf16" in precisions(loaded())


def test_single_precision_wherever_a_row_asked_for_less_and_nothing_else_changes() -> None:
    before, after = loaded(), loaded(reproducible=True)
    assert precisions(after) == {"fp32"}
    for name, run in before.runs.items():
        for dataset, hyper in run.hyper.items():
            expected = {**hyper, "precision": "fp32"} if "precision" in hyper else hyper
            assert after.runs[name].hyper[dataset] == expected
    # A row's own setting too, also of one data set.
    row = {"method": "dpgan", "precision": "bf16", "per_dataset": {"mnist": {"precision": "bf16"}}}
    assert precisions(loaded(reproducible=True, runs={"mine": row})) == {"fp32"}


def test_the_configuration_says_why_and_the_summary_of_settings_that_it_is() -> None:
    merged = merging.read([Layer("--config", {"preset": "quick", "reproducible": True})], NAMES)
    assert merged.layers[-1].source == "reproducible: true"
    assert loaded(reproducible=True).summary()["reproducible"] is True and "reproducible" not in loaded().summary()


@pytest.mark.parametrize("value", ["maybe", 1])
def test_another_value_is_one_line(value) -> None:
    with pytest.raises(UserError, match="reproducible"):
        loaded(reproducible=value)


def test_several_threads_do_not_go_with_it() -> None:
    with pytest.raises(UserError, match="--config: threads: 2 does not go with reproducible: true"):
        loaded(reproducible=True, threads=2)
    assert loaded(reproducible=True, threads=1).threads == 1


def test_a_fork_server_has_what_is_pinned_before_it_loads_libraries(tmp_path: Path, monkeypatch) -> None:
    package = tmp_path / "toy"
    package.mkdir()
    (package / "__init__.py").write_text("from workflow.common import process\nprocess.begin()\n")
    (tmp_path / "library.py").write_text("import os\nFOUND, PROCESS = dict(os.environ), os.getpid()\n")
    code = "import json, library, os\nprint(json.dumps([library.FOUND, library.PROCESS != os.getpid()]))\n"
    (package / "__main__.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv(VARIABLE, "1")
    with fork_server.running({"toy": ["library"]}):
        done = subprocess.run([sys.executable, "-m", "toy"], capture_output=True, text=True, check=True, timeout=60)
    found, shared = json.loads(done.stdout)
    assert shared and {name: found.get(name) for name in PINS} == dict(PINS)


def test_every_step_is_pinned_as_it_is_printed(fresh: Project) -> None:
    steps = [line for line in fresh.snakemake("-n", "-p", "--config", "reproducible=true").stdout.splitlines()
             if "export OMP_NUM_THREADS=" in line]  # fmt: skip
    assert len(steps) > 10 and all(f"OMP_NUM_THREADS=1 {VARIABLE}=1; " in step for step in steps)
    assert VARIABLE not in fresh.snakemake("-n", "-p").stdout


def test_results_that_were_not_pinned_are_made_anew(finished: Project) -> None:
    assert finished.planned() == set()
    root = finished.folder / "results/quick"
    made = {path.relative_to(root).as_posix() for path in root.glob("runs/*/*/*/*/samples.npz")}
    assert made and finished.planned("--config", "reproducible=true") >= made
