"""Snakemake's command line, where it says a configuration: what is malformed is one line before Snakemake begins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from workflow import invocation, snakemake
from workflow.common.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "list.yaml": b"- extends: smoke\n",
    "empty.yaml": b"",
    "remarks.yaml": b"# extends: smoke\n",
    "text.yaml": b"smoke",
    "binary.yaml": bytes(range(128, 256)),
    "twice.yaml": b"extends: smoke\nseeds: [4]\nextends: long\n",
    "deep.yaml": b"runs:\n  dpac: {steps: 3, steps: 4}\n",
    "list.json": b"[1]",
    "twice.json": b'{"extends": "smoke", "extends": "long"}',
}


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "good.yaml").write_text("extends: smoke\nseeds: [4]\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--configfile", "none.yaml"], "no such file: none.yaml"),
        (["--configfile=none.yaml", "-n"], "no such file: none.yaml"),
        (["--configfile", "."], "cannot read .: Is a directory"),
        (["--configfile", "list.yaml"], "list.yaml must hold a mapping of keys, such as a line `extends: quick`"),
        (["--configfile", "good.yaml", "empty.yaml"], "empty.yaml must hold a mapping of keys"),
        (["--configfiles", "remarks.yaml"], "it holds nothing"),
        (["--configfile", "text.yaml"], "it holds 'smoke'"),
        (["--configfile", "binary.yaml"], "binary.yaml is not valid YAML"),
        (["--configfile", "twice.yaml"], "key 'extends' in line 3 stands twice"),
        (["--configfile", "deep.yaml"], "key 'steps' in line 2 stands twice"),
        (["--configfile", "list.json"], "a configuration must be a mapping of names to values, but list.json"),
        (["--configfile", "twice.json"], "key 'extends' stands twice"),
        (["--config", "smoke"], "--config takes KEY=VALUE, such as preset=smoke seeds=0,1, and ends at"),
        (["--config", "=smoke"], "--config takes KEY=VALUE"),
        (["-C", "1seed=3"], "--config takes KEY=VALUE"),
        (["--config", "preset="], "--config: preset= has no value"),
        (["--config", "seeds= ", "-n"], "--config: seeds= has no value"),
        (["--config=epsilons="], "--config: epsilons= has no value"),
        (["--config", "preset=smoke", "preset=long"], "--config gives preset twice, 'smoke' and 'long'; keep one"),
        (["--config", "seeds=3", "-n", "-C", "seeds=4"], "--config gives seeds twice, '3' and '4'"),
        (["--workflow-profile", "profiles/slrum"], "no such profile 'profiles/slrum'; valid: profiles/"),
        (["--workflow-profile=slrum", "-n"], "profiles/slurm, none, or a folder's path"),
        (["--config", "runs={dpac: {steps: 3, steps: 4}}"], "key 'steps' stands twice in runs="),
        (["--config", "runs=[{a: 1}, {b: 2, b: 3}]"], "key 'b' stands twice in runs="),
    ],
)
def test_a_malformed_configuration_is_one_line_and_exit_code_2(monkeypatch, capsys, arguments, says):
    monkeypatch.setattr(sys, "argv", ["snakemake", "--cores", "1", *arguments])
    with pytest.raises(SystemExit) as end:
        snakemake.main()
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1 and says in error


def test_what_is_no_configuration_is_snakemakes_own_affair():
    invocation.check(["results/a=b", "--configfile", "good.yaml", "-n", "smoke", "--config", "seeds=0,1", "--", "all"])
    invocation.check(["--config", "datasets={2024: {folder: a}, b: {folder: a}}", "preset=mine", "--quiet", "host"])
    for profile in ("none", "slurm", str(ROOT / "profiles/kubernetes")):
        invocation.check(["--workflow-profile", profile, "--config", "preset=mine"])
    with pytest.raises(UserError, match="KEY=VALUE"):
        invocation.check(["--config", "seeds=0,1", "all"])


def test_make_names_its_targets_where_there_is_no_such_one():
    done = subprocess.run(["make", "-C", ROOT, "tabels"], capture_output=True, text=True, check=False)
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert done.returncode == 2 and error.startswith("error: no target 'tabels'; valid: setup, console, tables, test,")
    targets = error.partition("valid: ")[2].split(", ")
    phony = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY"))
    assert targets == phony.partition(": ")[2].split()
