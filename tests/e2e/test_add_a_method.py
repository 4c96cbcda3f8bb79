"""docs/add-a-method.md, from its first command to its last, in a copy of the repository."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/add-a-method.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    """Returns kind and text of each block of the page, in order."""
    return BLOCK.findall(PAGE.read_text(encoding="utf-8"))


def replaced(source: str, function: str) -> str:
    """Returns a class's source with a function in the place of the one of its name."""
    name = ast.parse(function).body[0].name
    cls = next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    old = next(node for node in cls.body if isinstance(node, ast.FunctionDef) and node.name == name)
    lines = source.splitlines(keepends=True)
    lines[old.lineno - 1 : old.end_lineno] = [textwrap.indent(function, "    ")]
    return "".join(lines)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what git knows, in a folder with a space in its name; `dpbench` and `python` are in its bin."""
    root = tmp_path / "a copy"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if not name.startswith("results/reference") and (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
    (root / "bin").mkdir()
    for name, words in (("dpbench", "-m dpbench "), ("python", "")):
        script = root / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}"$@"\n')
        script.chmod(0o755)
    return root


def run(command: str, root: Path) -> str:
    """Runs a command of the page, which must end well, and returns what it printed."""
    environment = os.environ | {"PATH": f"{root / 'bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", command], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.slow
def test_every_command_and_block_of_the_page_works_in_its_order(copy: Path) -> None:
    method, preset = copy / "methods/class_means.py", copy / "workflow/config/smoke.yaml"
    printed = {}
    for kind, text in blocks():
        if kind == "python":
            method.write_text(replaced(method.read_text(), text))
        elif kind == "yaml" and "external" not in text:
            preset.write_text(preset.read_text().replace("\nruns:\n", f"\nruns:\n{text}"))
        elif kind == "":
            printed |= {command: run(command, copy) for command in text.splitlines()}
    assert any("class_means" in line for line in (copy / "results/smoke/tables/table2.md").read_text().splitlines())
    assert " passed" in next(text for command, text in printed.items() if "pytest" in command)
    scored = next(text for command, text in printed.items() if command.startswith("dpbench score"))
    # One in ten by chance.
    assert float(re.search(r"gen2real CNN +([\d.]+)", scored)[1]) > 0.4
    # The row for samples made elsewhere is one that the suite reads.
    shutil.copyfile(copy / "runs/class_means.npz", copy / "samples.npz")
    theirs = next(text for kind, text in blocks() if kind == "yaml" and "external" in text)
    (copy / "mine.yaml").write_text(f"extends: smoke\nruns:\n{theirs}")
    assert "claimed" in run("dpbench graph --cores 1 print_config --configfile mine.yaml", copy)


@pytest.mark.slow
def test_what_new_writes_passes_the_contract_suite_as_it_is(copy: Path) -> None:
    run("dpbench new foo", copy)
    assert " passed" in run("python -m pytest -q -n 0 tests/contract -k foo", copy)
