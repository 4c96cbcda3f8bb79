"""Toy projects: new ones, and copies of a finished one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from toy_project import Project, make_project


@pytest.fixture
def fresh(tmp_path: Path) -> Project:
    """A toy project in which nothing has been run."""
    return make_project(tmp_path)


@pytest.fixture(scope="session")
def _finished_once(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = make_project(tmp_path_factory.mktemp("finished"))
    done = project.started()
    assert done.returncode == 0, done.stdout
    (project.folder / "output.txt").write_text(done.stdout)
    return project


@pytest.fixture
def finished(_finished_once: Project, tmp_path: Path) -> Project:
    """A copy of a toy project whose every target has been made; its console output is in output.txt."""
    shutil.copytree(_finished_once.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")

