"""torchvision imports whether or not its compiled operators load, and the guard leaves a working one alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from workflow.common import torchvision_guard


def run(code: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    prelude = f"import sys; sys.path.insert(0, {str(folder)!r})\n" if folder else ""
    return subprocess.run([sys.executable, "-c", prelude + code], capture_output=True, text=True)


def test_what_the_suite_uses_of_torchvision_imports() -> None:
    code = """
import workflow.common.torchvision_guard
import torchvision.datasets, torchvision.transforms, torchvision.utils, torch_fidelity
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A torchvision whose compiled library cannot load, and which needs the schema when imported."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "_C.so").write_bytes(b"not a library")
    (package / "__init__.py").write_text("import torch\nSCHEMA = str(torch.ops.torchvision.nms.default._schema)\n")
    return tmp_path


def test_a_torchvision_that_cannot_load_its_operators_needs_the_guard(broken: Path) -> None:
    assert run("import torchvision", broken).returncode != 0
    done = run("import workflow.common.torchvision_guard, torchvision; print(torchvision.SCHEMA)", broken)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"torchvision::{torchvision_guard.SCHEMAS[0]}"


def test_the_guard_can_be_called_again(broken: Path) -> None:
    code = "from workflow.common.torchvision_guard import ensure_torchvision as e; import torchvision; print(e(), e())"
    assert run(code, broken).stdout.split() == ["True", "True"]


def test_nothing_is_declared_where_the_operators_load(broken: Path) -> None:
    code = """
import torch
torch.ops.load_library = lambda path: None  # as where the wheel fits
from workflow.common.torchvision_guard import ensure_torchvision
print(ensure_torchvision(), hasattr(torch.ops.torchvision, "nms"))
"""
    assert run(code, broken).stdout.split() == ["False", "False"]


def test_nothing_happens_without_torchvision() -> None:
    code = """
import importlib.util, sys
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torchvision" else find_spec(name, *rest)
import workflow.common.torchvision_guard
print("torch" in sys.modules)
"""
    assert run(code).stdout.strip() == "False"
