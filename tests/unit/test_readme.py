"""What the README says of results and commands is what the repository holds."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from pathlib import Path
from statistics import mean

import pytest

from workflow.common.scores import read_scores

ROOT = Path(__file__).resolve().parents[2]
PRESETS = sorted(path.name for path in (ROOT / "results/reference").iterdir())
README = (ROOT / "README.md").read_text(encoding="utf-8")
SOUND = read_scores(ROOT / "results/reference/quick_sound/scores.csv")
COLUMNS = [(dataset, "g2r_cnn") for dataset in ("mnist", "fashion_mnist")] + [
    (dataset, "r2g_cnn") for dataset in ("mnist", "fashion_mnist")
]


def scores(path: str) -> dict[tuple[str, str, str], str]:
    with (ROOT / path).open(newline="") as handle:
        return {(row["method"], row["dataset"], row["metric"]): row["value"] for row in csv.DictReader(handle)}


def number(value: str | None, digits: int) -> str:
    return "-" if value is None else f"{float(value):.{digits}f}"


def row(run: str, measured: dict, published: dict) -> str:
    """Returns a line of the README's table: published / measured for each column, and the sound epsilon on MNIST."""
    cells = [
        f"{number(published.get((run, *column)), 2)} / {number(measured.get((run, *column)), 3)}" for column in COLUMNS
    ]
    sound = measured.get((run, "mnist", "eps_sound"))
    return "| " + " | ".join([f"`{run}`", *cells, "-" if sound is None else f"{float(sound):.1f}"]) + " |"


def test_the_readmes_table_is_the_committed_run():
    measured = scores("results/reference/quick/scores.csv")
    published = scores("results/published/scores.csv")
    shown = re.findall(r"^\| `\w+` \| .+ / .*$", README, flags=re.MULTILINE)
    runs = [re.match(r"\| `(\w+)`", line)[1] for line in shown]
    assert shown == [row(run, measured, published) for run in runs]
    assert {run for run, dataset, _ in measured if dataset == "mnist"} == set(runs)


def of_seeds(run: str) -> str:
    """Returns a line of the README's second table: accuracies over seeds, and both counts on MNIST."""

    def found(dataset: str, metric: str) -> list[float]:
        return [row.value for row in SOUND if (row.method, row.dataset, row.metric) == (run, dataset, metric)]

    cells = []
    for dataset in ("mnist", "fashion_mnist"):
        values = found(dataset, "g2r_cnn")
        cells.append(f"{mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
    cells += [f"{mean(found('mnist', f'eps_{count}')):.1f}" for count in ("published", "sound")]
    return "| " + " | ".join([f"`{run}`", *cells]) + " |"


def test_the_readmes_table_of_seeds_is_the_committed_run():
    shown = re.findall(r"^\| `\w+` \| .+ \(0.+ to .*$", README, flags=re.MULTILINE)
    runs = [re.match(r"\| `(\w+)`", line)[1] for line in shown]
    assert shown == [of_seeds(run) for run in runs]
    assert set(runs) == {"gs_wgan", "gs_wgan_sound", "dpac", "dpac_sound"}


def test_every_file_the_readme_links_to_is_there():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) >= 2
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m ([\w.]+)", README)) - {"pip"}))
def test_every_command_the_readme_names_is_there(module):
    path = ROOT / module.replace(".", "/")
    assert path.with_suffix(".py").exists() or (path / "__main__.py").exists()


def test_committed_numbers_come_from_clean_runs_of_the_committed_code():
    assert {"quick", "smoke"} <= set(PRESETS)
    for preset in PRESETS:
        folder = ROOT / "results/reference" / preset
        record = json.loads((folder / "provenance.json").read_text())
        assert record["modified"] is False and not [key for key in record["runs_by_commit"] if "modified" in key]
        assert record["scores_sha256"] == hashlib.sha256((folder / "scores.csv").read_bytes()).hexdigest()


def test_committed_scores_are_measured_and_numbers():
    for preset in PRESETS:
        rows = read_scores(ROOT / "results/reference" / preset / "scores.csv")
        assert {row.source for row in rows} == {"measured"}
        assert all(math.isfinite(row.value) for row in rows)
