"""The audit table: every run of audit.csv, and a sentence where an attack beats a count."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from evaluation.report.audit import main

ROOT = Path(__file__).resolve().parents[2]
LAYOUT = str(ROOT / "workflow/config/report.yaml")
ROW = dict(
    run="dpac", dataset="mnist", epsilon="10", accounting="published", seed="0", attack="mechanism", uses="165",
    max_uses="600", canaries="7000", confidence="0.95", epsilon_lower="4.9", eps_published="5.2", eps_sound="1161.5",
)  # fmt: skip


def table7(tmp_path: Path, *rows: dict[str, str]) -> str:
    with (tmp_path / "audit.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ROW)
        writer.writeheader()
        writer.writerows(rows)
    assert main(["--audit", str(tmp_path / "audit.csv"), "--layout", LAYOUT, "--out", str(tmp_path)]) == 0
    assert r"\varepsilon" in (tmp_path / "table7.tex").read_text()
    return (tmp_path / "table7.md").read_text()


def test_a_run_is_shown_with_its_bounds_and_seeds_together(tmp_path):
    text = table7(tmp_path, ROW, {**ROW, "run": "foo"}, {**ROW, "seed": "1", "epsilon_lower": "4.7"})
    # 4.7 and 4.9: t(0.975, 1) = 12.7062, times 0.1414214 / sqrt(2).
    assert "| DP-GAN-DPAC | MNIST | 10 | published | 165 (2) | 600 (2) | 7000 (2) | 4.80 ± 1.27 (2) |" in text
    assert "t interval (number of seeds)" in text
    assert "| foo | MNIST | 10 | published | 165 | 600 | 7000 | 4.90 | 5.20 | 1161.50 |" in text
    assert "confidence 95 %" in text and "is not a bound" not in text
    with (tmp_path / "table7.csv").open() as file:
        assert [row["epsilon_lower_mean"] for row in csv.DictReader(file)] == ["4.8", "4.9"]


def test_a_count_that_an_attack_beats_is_named(tmp_path):
    text = table7(tmp_path, {**ROW, "epsilon_lower": "5.5"}, {**ROW, "run": "dp_merf", "epsilon_lower": "2000"})
    assert "exceeds ε published, so that count is not a bound: dpac on mnist." in text
    assert "exceeds ε sound, so that count is not a bound: dp_merf on mnist." in text


def test_bad_files_are_one_line_and_exit_code_2(tmp_path, capsys):
    arguments = ["--layout", LAYOUT, "--out", str(tmp_path), "--audit", str(tmp_path / "audit.csv")]
    assert main(arguments) == 2 and "no such file" in capsys.readouterr().err
    (tmp_path / "audit.csv").write_text("run,dataset\n")
    assert main(arguments) == 2 and "lacks the columns epsilon, accounting" in capsys.readouterr().err
    with pytest.raises(AssertionError):
        table7(tmp_path, {**ROW, "canaries": "many"})
    assert "line 2: canaries must be a number, got 'many'" in capsys.readouterr().err
