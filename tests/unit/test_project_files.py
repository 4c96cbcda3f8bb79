"""What a project shows: licence, citation, metadata, policies, a container's recipe; they agree with each other."""

from __future__ import annotations

import fnmatch
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from setuptools.config.pyprojecttoml import read_configuration

from methods.__main__ import VERBS
from workflow.datasets import chunks

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff", "Containerfile")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_licence_is_mit_wherever_it_is_named() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert text.startswith("MIT License\n") and re.search(r"Copyright \(c\) 20\d\d the dp-image-bench authors\n", text)
    assert PROJECT["license"] == CITATION["license"] == "MIT" and PROJECT["license-files"] == ["LICENSE"]


def test_the_citation_is_what_its_schema_allows() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.citation-file-format"]
    found = subprocess.run([*command, str(ROOT / "CITATION.cff")], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert {"cff-version", "message", "title", "authors", "version", "license", "abstract"} <= set(CITATION)


def test_one_version_and_one_name_everywhere() -> None:
    newest = re.search(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1]
    assert PROJECT["version"] == CITATION["version"] == newest
    assert CITATION["title"].startswith(PROJECT["name"])


def test_a_version_tells_of_a_subject_in_one_place() -> None:
    for version in re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]:
        subjects = re.findall(r"^### (.+)$", version, flags=re.MULTILINE)
        assert sorted(set(subjects)) == sorted(subjects)


@pytest.mark.filterwarnings("ignore::UserWarning:setuptools.*")
def test_the_metadata_are_whole_and_valid_and_the_packages_say_that_they_are_typed() -> None:
    found = read_configuration(ROOT / "pyproject.toml", expand=False)
    assert {"description", "readme", "requires-python", "license", "authors", "keywords", "classifiers"} <= set(PROJECT)
    assert "urls" not in PROJECT
    # A licence stands in `license` alone: a classifier beside it is refused when the package is built.
    assert not [name for name in PROJECT["classifiers"] if name.startswith("License")]
    for package in ("workflow", "methods", "evaluation"):
        assert (ROOT / package / "py.typed").exists()
        assert "py.typed" in found["tool"]["setuptools"]["package-data"][package]


def test_what_git_ignores_of_ones_own_stays_out_of_an_image_too() -> None:
    """Pictures that must not leave would leave with an image that is given away."""
    ignored = [line for line in (ROOT / ".gitignore").read_text().splitlines() if line and not line.startswith("#")]
    out = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    page = (ROOT / "docs/your-own-images.md").read_text(encoding="utf-8")
    given = re.findall(r"--(?:folder|test|labels|data|out) ([a-z][\w./-]*)|\{folder: ([\w./-]+)", page)
    shown = {(one or other).split("/")[0] for one, other in given}
    assert {"pictures", "testpictures", "labels.csv", "set.npz", "data", "lesions-released", "lookalike"} <= shown
    for name in (*sorted(shown), "lesions-released.private", ".venv", ".snakemake", "results/quick"):
        for lines in (ignored, out):
            assert any(fnmatch.fnmatch(name, line.strip("/").removeprefix("**/")) for line in lines), name
    # Git looks for a name without a slash in every folder, and a container's builder where two stars say so.
    for line in ignored:
        mark, name = line[: line.startswith("!")], line.removeprefix("!").rstrip("/")
        assert mark + ("" if "/" in name else "**/") + name.lstrip("/") in out, line


def test_the_container_sets_up_as_every_machine_does() -> None:
    text = (ROOT / "Containerfile").read_text()
    copied = re.search(r"^COPY --chown=bench (Makefile .*) \./$", text, flags=re.MULTILINE)[1].split()
    rule = re.search(r"^\$\(READY\): (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)[1].split()
    assert set(copied) == {"Makefile", *rule} and all((ROOT / name).exists() for name in copied)
    assert "RUN make setup" in text and text.index("RUN make setup") < text.index("COPY --chown=bench . .")
    assert re.search(r"^USER bench$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_its_links_and_commands_are_there_and_it_names_no_host_and_no_address(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not (page.parent / link).exists()] == []
    for module in re.findall(r"python -m ([\w.]*\w)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
    assert set(re.findall(r"python -m methods ([a-z][\w-]*)", text)) <= set(VERBS)
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, flags=re.MULTILINE)) <= set(targets)
    assert not re.search(r"https?://|\w@\w+\.\w", text)


def test_threads_are_counted_where_a_system_does_not_say_which_cores_are_allowed(monkeypatch) -> None:
    """As on macOS."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert chunks.threads() == 6
