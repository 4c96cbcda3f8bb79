"""The pins agree with each other, are exact, and name no machine."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from workflow import environment

ROOT = Path(__file__).resolve().parents[2]
SETUP_FILES = ("Makefile", "pyproject.toml", "requirements.in", "requirements.lock", "requirements-torch.txt",
               "requirements-slurm.txt",
               "environment.yml", ".ci/run", ".ci/compare", ".github/workflows/ci.yml")  # fmt: skip


def locked(name: str = "requirements.lock") -> list[tuple[Requirement, list[str]]]:
    """Returns each locked requirement with its hashes."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    entries = []
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.startswith("#"):
            continue
        requirement, *hashes = re.split(r"\s+--hash=", line)
        entries.append((Requirement(requirement), [value.strip() for value in hashes]))
    return entries


def torch_pin() -> Requirement:
    return Requirement((ROOT / "requirements-torch.txt").read_text().strip())


def asked() -> list[Requirement]:
    lines = (ROOT / "requirements.in").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_every_pin_is_exact_and_hashed() -> None:
    assert len(locked()) > 80
    for requirement, hashes in locked():
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), requirement
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes), requirement
    assert str(torch_pin()) == "torch==2.13.0"


def test_the_executor_for_slurm_is_pinned_and_hashed_beside_the_lock() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["slurm"]
    asked_for, pinned = Requirement(extra[0]), locked("requirements-slurm.txt")
    versions = {canonicalize_name(requirement.name): str(requirement.specifier)[2:] for requirement, _ in pinned}
    assert versions[asked_for.name] in asked_for.specifier and "2.7.0" not in asked_for.specifier
    assert "snakemake-executor-plugin-slurm-jobstep" in versions and all(hashes for _, hashes in pinned)
    assert not versions.keys() & {canonicalize_name(requirement.name) for requirement, _ in locked()}


def test_the_page_installs_the_executor_for_kubernetes_that_the_extra_asks_for() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["kubernetes"]
    page = (ROOT / "docs/clusters.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^pip install '(.*)' snakemake-storage-plugin-fs$", page, re.MULTILINE)
    assert command == extra[0] and "0.5.1" in Requirement(command).specifier


def test_the_lock_meets_what_was_asked_for_and_leaves_torch_to_its_own_file() -> None:
    versions: dict[str, set[str]] = {}
    for requirement, _ in locked():
        versions.setdefault(canonicalize_name(requirement.name), set()).add(str(requirement.specifier)[2:])
    assert not {"torch", "triton"} & set(versions) and not [name for name in versions if name.startswith("nvidia")]
    for requirement in asked():
        locked_versions = versions[canonicalize_name(requirement.name)]
        assert all(version in requirement.specifier for version in locked_versions), requirement


def test_the_environment_for_conda_holds_the_same_pins() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, packages = environment["dependencies"]
    assert pip == "pip" and python == "python=3.11"
    here = {"python_version": "3.11", "python_full_version": "3.11.14", "sys_platform": "linux"}
    expected = {
        f"{requirement.name}{requirement.specifier}"
        for requirement, _ in locked()
        if requirement.marker is None or requirement.marker.evaluate(here)
    }
    assert set(packages["pip"]) == expected | {str(torch_pin())}
    assert len(packages["pip"]) == len(set(packages["pip"]))


def test_the_file_for_conda_is_written_when_asked_for_and_not_by_help(tmp_path: Path, capsys) -> None:
    committed = ROOT / "environment.yml"
    before = committed.stat().st_mtime_ns
    with pytest.raises(SystemExit) as stop:
        environment.main(["--help"])
    assert stop.value.code == 0 and "requirements.lock" in capsys.readouterr().out
    assert environment.main(["--out", str(tmp_path / "e.yml")]) == 0
    assert (tmp_path / "e.yml").read_bytes() == committed.read_bytes()
    assert committed.stat().st_mtime_ns == before


@pytest.mark.parametrize("name", SETUP_FILES)
def test_no_set_up_file_names_a_registry_or_a_folder_of_one_machine(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"https?://|file://|--(extra-)?index-url|--find-links|--trusted-host", text)
    assert not re.search(r"(^|[\s=\"'])/(?!usr/bin/env\b|dev/|path/to/)[a-z]+/", text.replace("#!/", "# /"))


def test_make_sets_up_once(tmp_path: Path) -> None:
    ready = tmp_path / "venv/.ready"
    dry = ["make", "--dry-run", "tables", f"VENV={tmp_path / 'venv'}"]
    first = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--require-hashes" in first and "--cores all" in first
    ready.parent.mkdir()
    ready.touch()
    second = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "pip install" not in second and "--cores all --config preset=quick" in second


def test_the_default_suite_leaves_out_slow_gpu_and_network_tests(pytestconfig: pytest.Config) -> None:
    markers = {line.split(":")[0] for line in pytestconfig.getini("markers")}
    assert {"slow", "gpu", "network"} <= markers
    assert "not slow and not gpu and not network" in " ".join(pytestconfig.getini("addopts"))
