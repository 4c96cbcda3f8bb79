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


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A torchvision whose compiled library cannot load, and which needs the schema when imported."""
    folder = tmp_path_factory.mktemp("broken")
    package = folder / "torchvision"
    package.mkdir()
    (package / "_C.so").write_bytes(b"not a library")
    (package / "__init__.py").write_text("import torch\nSCHEMA = str(torch.ops.torchvision.nms.default._schema)\n")
    return folder


def test_a_torchvision_that_cannot_load_its_operators_needs_the_guard_which_can_be_called_again(broken: Path) -> None:
    # One process, since most of its time is torch's import.
    code = """
try:
    import torchvision
except AttributeError as error:
    print("nms" in str(error))
from workflow.common.torchvision_guard import ensure_torchvision
import torchvision
print(torchvision.SCHEMA)
print(ensure_torchvision(), ensure_torchvision())
"""
    done = run(code, broken)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True", f"torchvision::{torchvision_guard.SCHEMAS[0]}", "True True"]


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
