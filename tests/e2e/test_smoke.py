"""The whole benchmark at preset smoke, with a method nobody has seen before: one new file and one line of config."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from toys import copied_sources

ROOT = Path(__file__).resolve().parents[2]

# The class of dp_merf under another name: a method file imports no other method file, so this one is a copy.
FOO = "methods/dp_merf.py"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tracked and new source files with `methods/foo.py` dropped in, after one run of smoke."""
    folder = copied_sources(tmp_path_factory.mktemp("project"))
    shutil.copy(ROOT / FOO, folder / "methods/foo.py")
    preset = folder / "workflow/config/smoke.yaml"
    preset.write_text(preset.read_text().replace("runs:\n", "runs:\n  foo: {}\n"))
    done = snakemake(folder)
    assert done.returncode == 0, done.stdout[-5000:]
    return folder


def snakemake(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / ".cache"), "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", "--config", "preset=smoke"],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_every_run_is_scored_in_both_directions(project):
    scores = pd.read_csv(project / "results/smoke/scores.csv")
    measured = scores[scores.source == "measured"].groupby("method").metric.agg(set)
    runs = {
        "dp_gauss", "dp_merf", "dp_ntk", "dp_cgan", "dp_sinkhorn", "dpgan", "pate_gan", "g_pate", "datalens", "gs_wgan",
        "dpac", "dpac_scatter",
        "dpac_as_released", "dpac_wo_g2r", "dpac_wo_init", "nonprivate", "foo", "real",
    }  # fmt: skip
    assert set(measured.index) == runs
    for run in runs:
        assert {"is", "fid_classifier", "fwd", "g2r_mlp", "g2r_cnn", "r2g_mlp", "r2g_cnn"} <= measured[run], run


@pytest.mark.slow
def test_private_runs_stay_within_their_budget(project):
    scores = pd.read_csv(project / "results/smoke/scores.csv")
    for accounting, runs in (("sound", 10), ("published", 4)):
        spent = scores[(scores.metric == f"eps_{accounting}") & (scores.accounting == accounting)]
        assert len(spent[spent.method != "dpac_as_released"]) == runs
        assert set(spent.method[spent.value > 10 * (1 + 1e-6)]) <= {"dpac_as_released"}


@pytest.mark.slow
def test_the_run_that_exceeds_its_budget_shows_what_it_costs(project):
    scores = pd.read_csv(project / "results/smoke/scores.csv")
    released = scores[(scores.method == "dpac_as_released") & scores.metric.str.startswith("eps_")]
    assert set(released.accounting) == {"published"} and set(released.epsilon) == {10}
    costs = dict(zip(released.metric, released.value, strict=True))
    assert costs["eps_sound"] > costs["eps_published"] > 10
    table = (project / "results/smoke/tables/table1.md").read_text()
    assert f"| DP-GAN-DPAC as released (over budget) | 10 | published | {costs['eps_published']:.2f} |" in table


@pytest.mark.slow
def test_every_private_run_is_audited_and_none_beats_its_sound_count(project):
    audit = pd.read_csv(project / "results/smoke/audit.csv")
    scores = pd.read_csv(project / "results/smoke/scores.csv")
    assert set(audit.run) == set(scores[scores.metric == "eps_sound"].method)
    assert (audit.epsilon_lower <= audit.eps_sound).all() and audit.epsilon_lower.median() > 1
    assert "foo" in (project / "results/smoke/tables/table7.md").read_text()


@pytest.mark.slow
def test_the_dropped_in_method_is_in_every_table_of_methods(project):
    for number in (1, 2, 3, 4, 6):
        assert "foo" in (project / f"results/smoke/tables/table{number}.md").read_text(), number


@pytest.mark.slow
def test_tables_figures_and_page_are_whole(project):
    folder = project / "results/smoke"
    assert "GS-WGAN" in (folder / "tables/table5.md").read_text()
    assert "FETA-Pro" in (folder / "tables/table8.md").read_text()
    assert "open: one seed" in (folder / "tables/table9.md").read_text()
    assert (folder / "figures/figure3.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "figures/figure3.pdf").read_bytes().startswith(b"%PDF")
    assert "foo" in (folder / "report.html").read_text()
    assert "### digits, ε 10" in (folder / "tables/rank.md").read_text()
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["settings"]["preset"] == "smoke" and provenance["runs"] == 14


@pytest.mark.slow
def test_what_is_private_stays_in_private_folders(project):
    run = project / "results/smoke/runs/digits/dpac/eps10/seed0"
    names = ["plan.json", "ledger.jsonl", "run.json", "log.csv", "generator.safetensors", "samples.npz"]
    names += ["fidelity.json", "utility.json"]
    released = {path.name for path in run.iterdir() if path.is_file()}
    assert released == set(names)


@pytest.mark.slow
def test_a_second_call_does_nothing(project):
    done = snakemake(project)
    assert done.returncode == 0 and "Nothing to be done" in done.stdout
