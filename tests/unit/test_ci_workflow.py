"""The GitHub Actions workflow: valid by GitHub's schema, least permissions, pinned actions, and what `.ci/run` runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from evaluation.scores import Score, write_scores
from workflow.common.provenance import provenance

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / ".github/workflows/ci.yml"
TEXT = WORKFLOW.read_text(encoding="utf-8")
# YAML 1.1 reads the key `on` as true.
JOBS = yaml.safe_load(TEXT)["jobs"]
STEPS = [step for job in JOBS.values() for step in job["steps"]]
COMMANDS = [step["run"] for step in STEPS if "run" in step]


def checked(schema: str, *files: Path) -> subprocess.CompletedProcess[str]:
    """Checks files by a schema that the checker brings with it, so that no network is asked."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_workflow_is_what_githubs_schema_allows_and_a_misspelt_one_is_not(tmp_path: Path) -> None:
    found = checked("vendor.github-workflows", WORKFLOW)
    assert found.returncode == 0, found.stdout + found.stderr
    (tmp_path / "bad.yml").write_text(TEXT.replace("timeout-minutes", "timeout-minuets"))
    found = checked("vendor.github-workflows", tmp_path / "bad.yml")
    assert found.returncode == 1 and "timeout-minuets" in found.stdout + found.stderr


def test_it_may_read_the_repository_and_nothing_else() -> None:
    assert yaml.safe_load(TEXT)["permissions"] == {"contents": "read"}
    assert not [name for name, job in JOBS.items() if "permissions" in job]
    assert "secrets." not in TEXT and "pull_request_target" not in TEXT
    checkout = next(step for step in STEPS if step.get("uses", "").startswith("actions/checkout@"))
    assert checkout["with"]["persist-credentials"] is False


def test_every_action_is_pinned_by_a_full_version_and_every_job_ends() -> None:
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert used and all(re.fullmatch(r"actions/[\w-]+@v\d+\.\d+\.\d+", name) for name in used)
    assert all(job["timeout-minutes"] <= 120 for job in JOBS.values())


def test_a_command_takes_no_text_of_a_pull_request() -> None:
    """Whoever opens one may choose its title and its branch's name: a shell must not read them."""
    assert not [command for command in COMMANDS if "${{" in command]


def test_it_lints_tests_trains_and_compares_in_that_order() -> None:
    assert COMMANDS == [
        "make setup", "make lint", "make pages", "make test", "make tables PRESET=smoke CORES=2",
        ".ci/compare --format github",
    ]  # fmt: skip
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert {command.split()[1] for command in COMMANDS if command.startswith("make ")} <= set(targets)


def test_pip_is_cached_by_the_files_that_pin_it() -> None:
    cache = next(step["with"] for step in STEPS if step.get("uses", "").startswith("actions/setup-python@"))
    assert cache["cache"] == "pip"
    files = cache["cache-dependency-path"].split()
    assert files == ["requirements.lock", "requirements-torch.txt"] and all((ROOT / name).exists() for name in files)


@pytest.mark.parametrize(
    ("equal_on", "changed", "code"),
    [("here", {}, 0), ("here", {"g2r_cnn": 0.599999}, 1), ("here", {"g2r_cnn": 0.600001}, 1),
     ("here", {"eps_sound": 9.91}, 1), ("here", {"train_seconds": 9.0}, 0), ("another", {"g2r_cnn": 0.599999}, 0),
     ("another", {"g2r_cnn": 0.57}, 1), ("other packages", {"g2r_cnn": 0.599999}, 0)],
)  # fmt: skip
def test_ci_compares_to_the_last_digit_where_that_was_met_and_elsewhere_within_tolerances(
    tmp_path: Path, equal_on, changed, code
) -> None:
    """The script as CI calls it, in a checkout whose Python is this one's."""
    values = {"g2r_cnn": 0.6, "eps_sound": 9.9, "train_seconds": 1.0}
    for folder, found in (("results/reference/smoke", values), ("results/smoke", values | changed)):
        rows = [Score("smoke", "digits", "dpac", 10.0, "sound", 0, m, v, "measured") for m, v in found.items()]
        write_scores(tmp_path / folder / "scores.csv", rows)
    here = provenance()
    packages = here["packages"] if equal_on != "other packages" else {"torch": "1.0"}
    processor = "another" if equal_on == "another" else here["processor"]
    record = {"packages": packages, "equal_on": [{"processor": processor, "equal": "3 scores of 1 rows"}]}
    (tmp_path / "results/reference/smoke/provenance.json").write_text(json.dumps(record))
    for script in (".ci/compare", "benchmarks/bit_for_bit.py", "benchmarks/__init__.py"):
        (tmp_path / script).parent.mkdir(exist_ok=True)
        (tmp_path / script).write_text((ROOT / script).read_text())
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" "$@"\n')
    (tmp_path / ".venv/bin/python").chmod(0o755)
    summary = tmp_path / "summary.md"
    environment = {**os.environ, "GITHUB_STEP_SUMMARY": str(summary)}
    command = ["bash", ".ci/compare", "--format", "github"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == code, done.stderr
    assert done.stdout.startswith("::error" if code else "::notice") and summary.read_text().startswith("### ")
    assert ("of 2 scores of 1 rows differ: " in done.stderr) == (equal_on != "here")


def test_ci_run_ends_with_the_same_comparison() -> None:
    lines = (ROOT / ".ci/run").read_text().splitlines()
    assert lines[-1] == ".ci/compare" and os.access(ROOT / ".ci/compare", os.X_OK)
