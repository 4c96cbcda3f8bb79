"""The layering: each folder imports only what stands on its line, and stages meet only through files."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMON = {"numpy", "yaml", "workflow.common"}
# Longest match wins. Standard library and the listed names, with their submodules, are allowed; nothing else.
LAYERS: dict[str, set[str]] = {
    "workflow/common": COMMON | {"jsonschema"},
    "workflow/common/torchvision_guard.py": {"torch"},
    "workflow/datasets": COMMON | {"workflow.datasets", "torchvision", "PIL", "sklearn", "tqdm"},
    "workflow": COMMON | {"workflow.progress", "packaging"},
    "methods/core": COMMON | {"methods.core", "torch", "dp_accounting", "scipy", "safetensors", "opacus", "tqdm"},
    "methods": COMMON | {"methods.core", "torch", "dp_accounting", "safetensors", "opacus", "tqdm"},
    "evaluation": COMMON
    | {"evaluation", "torch", "torchvision", "torch_fidelity", "sklearn", "threadpoolctl", "safetensors", "tqdm"},
    "evaluation/report": COMMON | {"evaluation.report", "pandas", "matplotlib", "PIL"},
    "benchmarks": COMMON | {"benchmarks", "methods", "torch", "matplotlib", "tqdm"},
    "benchmarks/textbook.py": {"torch", "benchmarks.textbook_nets"},
    "benchmarks/textbook_nets.py": {"torch"},
}
FOLDERS = ("workflow", "methods", "evaluation", "benchmarks")
FILES = sorted(path for top in FOLDERS for path in (ROOT / top).rglob("*.py"))


def layer(path: Path) -> set[str]:
    relative = path.relative_to(ROOT).as_posix()
    return LAYERS[max((key for key in LAYERS if relative == key or relative.startswith(key + "/")), key=len)]


def imported(path: Path) -> set[str]:
    """Returns the dotted names of all modules a file imports, also inside functions."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            # `from workflow import common` imports workflow.common: the alias decides.
            packages = (ROOT / module.replace(".", "/")).is_dir()
            names |= {f"{module}.{alias.name}" if packages else module for alias in node.names}
    return names


def forbidden(path: Path) -> set[str]:
    allowed = layer(path)
    own = set(sys.stdlib_module_names)
    return {
        name for name in imported(path)
        if name.split(".")[0] not in own and not any(name == ok or name.startswith(ok + ".") for ok in allowed)
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_stay_in_their_layer(path: Path) -> None:
    assert forbidden(path) == set()


def test_evaluation_does_not_reach_up_into_the_report() -> None:
    for path in (ROOT / "evaluation").glob("*.py"):
        assert not [name for name in imported(path) if name.startswith("evaluation.report")], path.name


@pytest.mark.parametrize(
    ("file", "line", "names"),
    [
        ("methods/x.py", "from methods.dpac import Dpac", {"methods.dpac"}),
        ("methods/core/x.py", "from methods import dpac", {"methods.dpac"}),
        ("methods/x.py", "def f():\n    import workflow.datasets.mnist", {"workflow.datasets.mnist"}),
        ("evaluation/x.py", "from methods.core import nets", {"methods.core.nets"}),
        ("evaluation/report/x.py", "import torch", {"torch"}),
        ("workflow/common/x.py", "from torch import nn", {"torch"}),
        ("methods/core/x.py", "from benchmarks import textbook", {"benchmarks.textbook"}),
        ("benchmarks/textbook.py", "from methods.core import nets", {"methods.core.nets"}),
        ("workflow/datasets/x.py", "from workflow.common.errors import UserError", set()),
    ],
)
def test_the_check_sees_a_forbidden_import(tmp_path: Path, monkeypatch, file: str, line: str, names: set[str]) -> None:
    for folder in ("methods/core", "evaluation/report", "workflow/datasets", "workflow/common", "benchmarks"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / file).write_text(line)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert forbidden(tmp_path / file) == names
