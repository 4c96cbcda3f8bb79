"""The code that a release names: a method's file that was never committed is told as a difference."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from methods.core.released import privacy_facts
from workflow.common.provenance import added_code


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True)


def test_code_that_git_does_not_hold_is_found_and_nothing_else(tmp_path: Path) -> None:
    git(tmp_path, "init")
    for name in ("methods/mine.py", "methods/core/more.py", "methods/notes.txt", "methods/left_out.py", "own.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".gitignore").write_text("left_out.py\n")
    assert added_code(tmp_path) == ("methods/core/more.py", "methods/mine.py")
    git(tmp_path, "add", "methods")
    assert added_code(tmp_path) == ()


def test_where_there_is_no_git_nothing_is_said(tmp_path: Path) -> None:
    assert added_code(tmp_path / "none") == ()


@pytest.mark.parametrize(
    ("tracked", "added", "said"),
    [(False, (), False), (False, ("methods/mine.py",), True), (True, (), True), (None, ("methods/mine.py",), None)],
)
def test_a_release_says_that_its_code_is_not_the_commits(monkeypatch, tracked, added, said) -> None:
    monkeypatch.setattr(privacy_facts, "provenance", lambda: {"commit": "abc", "modified": tracked})
    monkeypatch.setattr(privacy_facts, "added_code", lambda: added)
    assert privacy_facts.code_version() == {"commit": "abc", "modified": said}
