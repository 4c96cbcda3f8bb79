"""A project with the real Snakefile, rules and configuration code, whose stages are toys that end at once."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

PRESET = """
preset: quick
datasets: {mnist: {}, celeba: {optional: true}}
delta: 1.0e-5
epsilons: [10]
seeds: [0]
methods: {beta: {steps: 3}}
runs:
  alpha: {}
  beta: {}
  beta_short: {method: beta, steps: 1, warm: 5}
  gamma: {warm: 5}
protocol: {num_samples: 10}
"""

REGISTRY = """
import importlib, pathlib
from dataclasses import asdict, dataclass
from workflow.common.errors import UserError

class Shared:
    @classmethod
    def make_warm_start(cls): ...

def names():
    return sorted(path.stem for path in pathlib.Path(__file__).parents[1].glob("*.py") if not path.stem.startswith("_"))

def load(name):
    return importlib.import_module(f"methods.{name}").Method

def fields(name):
    return list(load(name).Hyper.__dataclass_fields__)

def hyper(name, overrides):
    settings = load(name).Hyper(**overrides)
    if settings.steps < 1:
        raise UserError(f"{name}.steps must be at least 1, got {settings.steps}")
    return settings

def has_paper_settings(name, dataset, epsilon):
    return name == "alpha"

def paper_settings(name, dataset, epsilon):
    if not has_paper_settings(name, dataset, epsilon):
        raise UserError(f"{name} has no published settings")
    return {"steps": 9}
"""

METHOD = """
from dataclasses import dataclass
from methods.core import registry

class Method(registry.Shared):
    @dataclass(frozen=True)
    class Hyper:
        steps: int = 2
        warm: int = 0

    @classmethod
    def warm_start(cls, hp):
        return {"steps": hp.warm} if hp.warm else None
"""

SETTINGS = """
budgets: [10]
settings:
  - {method: alpha}
"""

STAGE = """
import argparse, json, pathlib, sys
OUTPUTS = {
    "workflow.datasets": ["train.npz", "test.npz", "card.json"], "methods warm-start": ["done.json"],
    "methods train": ["run.json", "log.csv", "generator.safetensors"],
    "evaluation.classifiers": ["classifiers.json"],
    "evaluation.rank": ["rank.csv", "rank.md"],
    "evaluation.report.scores_tables": [f"table{n}.{kind}" for n in (1, 2, 3, 4, 6) for kind in ("csv", "md", "tex")],
    "evaluation.report.published_costs": [f"table5.{kind}" for kind in ("csv", "md", "tex")],
    "evaluation.report.frontier": [f"table8.{kind}" for kind in ("csv", "md", "tex")],
    "evaluation.report.verdicts": [f"table9.{kind}" for kind in ("csv", "md", "tex")],
    "evaluation.report.audit": [f"table7.{kind}" for kind in ("csv", "md", "tex")],
    "evaluation.report.score_plots": [
        f"{name}.{kind}" for name in ("epsilon_sweep", "runs", "utility_epsilon") for kind in ("png", "pdf")
    ],
    "evaluation.report.figures": [f"figure{n}.{kind}" for n in (3, 4) for kind in ("png", "pdf")],
}

def main(module):
    parser = argparse.ArgumentParser(fromfile_prefix_chars="@")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--plan", type=pathlib.Path, nargs="+")
    known, rest = parser.parse_known_args()
    if known.plan and any("FAIL" in plan.read_text() for plan in known.plan):
        print("error: the training data are not what the plan says", file=sys.stderr)
        raise SystemExit(2)
    card = {"source": "toy", "splits": {"train": {"sha256": "0"}, "test": {"sha256": "1"}}}
    for path in [known.out / name for name in OUTPUTS[module]] if module in OUTPUTS else [known.out]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"module": module, "arguments": sys.argv[1:], **card}))
"""


def _ask(request: dict[str, Any]) -> int:
    server = _server()
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    return int(server.stdout.readline())


@functools.cache
def _server() -> subprocess.Popen[str]:
    """Returns the process that runs the calls of this test run; it ends when its stdin is closed."""
    script = Path(__file__).with_name("forked_snakemake.py")
    server = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.communicate)
    return server


@dataclass(frozen=True)
class Project:
    """A working folder in which Snakemake runs."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """That of a call: a folder of its own for Snakemake's caches, and no data folder of the machine."""
        others = {key: value for key, value in os.environ.items() if key != "DPAC_BENCH_DATA"}
        return {**others, "XDG_CACHE_HOME": str(self.folder / ".cache")}

    def started(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """As `snakemake`, but Python starts anew, as a user's call does, which takes a second more."""
        return subprocess.run(
            [sys.executable, "-m", "snakemake", "--cores", "2", *arguments], cwd=self.folder, env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs Snakemake here on two cores; `stdout` of the result holds stdout and stderr together."""
        given = ["--cores", "2", *arguments]
        with tempfile.NamedTemporaryFile(mode="r", prefix="snakemake-") as output:
            request = {"arguments": given, "folder": str(self.folder), "output": output.name}
            code = _ask(request | {"environment": self.environment})
            return subprocess.CompletedProcess(given, code, output.read())

    def refusal(self, *arguments: str) -> str:
        """Returns the one line of error with which a dry run ends, at exit code 2."""
        done = self.snakemake("-n", *arguments)
        assert done.returncode == 2, done.stdout
        (error,) = (line for line in done.stdout.splitlines() if line.startswith("error: "))
        assert "Traceback" not in done.stdout
        return error

    def planned(self, *arguments: str) -> set[str]:
        """Returns the outputs that a dry run would make, relative to results/quick/."""
        done = self.snakemake("-n", *arguments, "--quiet", "host")
        assert done.returncode == 0, done.stdout
        lines = (line.strip() for line in done.stdout.splitlines())
        outputs = [line.removeprefix("output:") for line in lines if line.startswith("output:")]
        return {path.strip().removeprefix("results/quick/") for line in outputs for path in line.split(",")}

    def edit(self, path: str, old: str, new: str) -> None:
        """Replaces text in a file, which must hold it."""
        file = self.folder / path
        text = file.read_text()
        assert old in text, f"{path} has no {old!r}"
        file.write_text(text.replace(old, new))


def make_project(folder: Path) -> Project:
    """Writes the toy project into `folder`."""
    # What the real preset is tuned to has no place in the toy one, whose methods are others.
    ignore = shutil.ignore_patterns("__pycache__", "tuned")
    shutil.copy(ROOT / "Snakefile", folder)
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    shutil.copytree(ROOT / "workflow", folder / "workflow", ignore=ignore)
    shutil.copytree(ROOT / "results/published", folder / "results/published")
    for package in ("methods", "methods/core", "evaluation", "evaluation/report"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").touch()
    (folder / "workflow/config/quick.yaml").write_text(PRESET)
    (folder / "results/published/settings.yaml").write_text(SETTINGS)
    (folder / "methods/core/registry.py").write_text(REGISTRY)
    for name in ("alpha", "beta", "gamma"):
        (folder / f"methods/{name}.py").write_text(METHOD)
    for name in ("protocol.py", "report/layout.py"):
        shutil.copy(ROOT / "evaluation" / name, folder / "evaluation" / name)
    (folder / "toy.py").write_text(STAGE)
    reports = ("collect", "scores_tables", "published_costs", "audit", "frontier", "verdicts", "figures", "score_plots")
    stages = [f"evaluation.{name}" for name in ("classifiers", "fidelity", "utility", "rank")]
    stages += [f"evaluation.report.{name}" for name in (*reports, "page")]
    for module in stages:
        path = folder / (module.replace(".", "/") + ".py")
        path.write_text(f"import toy\nif __name__ == '__main__':\n    toy.main({module!r})\n")
    (folder / "methods/__main__.py").write_text("import sys, toy\ntoy.main(f'methods {sys.argv[1]}')\n")
    (folder / "workflow/datasets/__main__.py").write_text("import toy\ntoy.main('workflow.datasets')\n")
    return Project(folder)
