"""How much a comparison of seeds sees: the script that measures it, and the page that tells of it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from benchmarks import power
from evaluation.comparison.changes import Row, Run
from evaluation.scores import Score, write_scores

ROOT = Path(__file__).resolve().parents[2]
ONE, OTHER = (Run("", "mnist", name, 10.0, "sound", None, "measured") for name in ("one", "other"))
# Seeds that nearly agree, so that chance decides nothing.
LAWS = {Row(run, metric): (0.8, 1e-4) for run in (ONE, OTHER) for metric in (*power.ACCURACIES, "precision")}


def test_a_fall_far_beyond_the_spread_is_reported_of_the_fallen_run_alone_and_of_its_accuracies_alone() -> None:
    found = power.reported(LAWS, ONE, 0.1, 3, np.random.default_rng(0))
    assert sorted(found) == sorted(Row(ONE, metric) for metric in power.ACCURACIES)


def test_where_nothing_falls_or_the_spread_hides_it_nothing_is_reported() -> None:
    assert power.reported(LAWS, ONE, 0.0, 3, np.random.default_rng(0)) == []
    wide = dict.fromkeys(LAWS, (0.5, 0.2))
    assert power.reported(wide, ONE, 0.02, 3, np.random.default_rng(0)) == []


def test_a_row_counts_the_comparisons_of_every_run_by_how_many_accuracies_they_report() -> None:
    assert power.measure(LAWS, 3, 0.1, 4) == [3, 0.1, 8, 8, 0, 0, 0, 0, 8]
    assert power.measure(LAWS, 3, 0.0, 4)[4:] == [8, 0, 0, 0, 0]


def test_means_and_spreads_are_those_over_the_seeds_and_one_seed_has_none(tmp_path: Path, capsys) -> None:
    def scored(*values: float) -> str:
        run = ("quick", "mnist", "one", 10.0, "sound")
        write_scores(tmp_path / "scores.csv", [Score(*run, n, "g2r_cnn", v, "measured") for n, v in enumerate(values)])
        return str(tmp_path / "scores.csv")

    assert power.laws(scored(0.7, 0.8)) == {Row(ONE, "g2r_cnn"): (pytest.approx(0.75), pytest.approx(0.0707107))}
    assert power.main(["--scores", scored(0.7), "--out", str(tmp_path / "power.csv")]) == 2
    assert "has no score of two seeds or more" in capsys.readouterr().err


def test_the_command_writes_a_row_for_each_number_of_seeds_and_each_fall(tmp_path: Path) -> None:
    run = ("quick", "mnist", "one", 10.0, "sound")
    rows = [Score(*run, n, "g2r_cnn", v, "measured") for n, v in enumerate((0.7000, 0.7001))]
    write_scores(tmp_path / "scores.csv", rows)
    given = ["--scores", str(tmp_path / "scores.csv"), "--draws", "1", "--out", str(tmp_path / "power.csv")]
    assert power.main(given) in (0, None)
    lines = (tmp_path / "power.csv").read_text().splitlines()
    assert lines[0].split(",") == list(power.COLUMNS) and len(lines) == 1 + len(power.SEEDS) * len(power.FALLS)
    assert lines[-1].startswith("5,0.4,1,1,0,1,")


def test_the_committed_measurement_is_of_the_committed_seeds() -> None:
    """The page's table is written from it, which test_results_tables.py holds."""
    with (ROOT / "benchmarks/results/power/power.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    runs = {row.run for row in power.laws(power.SCORES) if row.metric in power.ACCURACIES}
    for row in rows:
        assert sum(int(row[f"of_four_{n}"]) for n in range(5)) == int(row["comparisons"]) == 10 * len(runs)
        # What nothing was taken from is not lower.
        assert float(row["fall"]) or int(row["of_four_0"]) == int(row["comparisons"])
