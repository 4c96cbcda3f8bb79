"""Results folders of a few runs, and the report made of them, for the tests of report.html."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from bs4 import BeautifulSoup

from evaluation.report.page import main
from evaluation.scores import Score, write_scores
from workflow.common.contracts import RunFolder
from workflow.common.files import write_json, write_npz, write_text

FIELDS = ("g2r_cnn", "fid_classifier", "eps_published", "eps_sound", "train_seconds")


def scores(
    method: str, values: tuple[float, ...], dataset: str = "mnist", epsilon: float = 10.0, accounting: str = "sound",
    seed: int = 0,
) -> list[Score]:  # fmt: skip
    """Returns the scores of a run: its `values` are those of FIELDS."""
    key = ("quick", dataset, method, epsilon, accounting, seed)
    return [Score(*key, name, value, "measured") for name, value in zip(FIELDS, values, strict=True)]


def folder_of(root: Path, method: str, dataset: str = "mnist", seed: int = 0) -> Path:
    """Writes the folder of a run at epsilon 10: run.json, log.csv and samples of 3 classes, 12 images each."""
    folder = RunFolder(root, dataset, method, 10.0, seed).path
    provenance = {"commit": "abc123", "modified": seed == 1, "python": "3.11.9", "packages": {"torch": "2.13.0"},
                  "processor": "Chip", "cores": 2, "time": f"2026-01-0{seed + 1}T10:20:30+00:00"}  # fmt: skip
    run = {"run": method, "method": method, "accounting": "sound", "hyper": {"steps": 800, "width": 8}, "steps_done": 7,
           "steps_planned": 8, "train_seconds": 12.6, "peak_memory_mib": 300, "device": "cpu"}  # fmt: skip
    write_json(folder / "run.json", run | {"provenance": provenance})
    write_text(folder / "log.csv", "step,loss,rank\n0,1.5,\n1,1.25,3\n")
    images = np.arange(36 * 64, dtype=np.int64).reshape(36, 1, 8, 8).astype(np.uint8)
    write_npz(folder / "samples.npz", images=images, labels=np.tile(np.arange(3, dtype=np.int64), 12))
    return folder


def write(root: Path, rows: list[Score]) -> None:
    """Writes scores.csv of a results folder."""
    write_scores(root / "scores.csv", rows)


def made(root: Path, *options: str) -> BeautifulSoup:
    """Returns the report of a results folder, parsed."""
    out = root.parent / "report.html"
    assert main(["--root", str(root), "--out", str(out), *options]) == 0
    return BeautifulSoup(out.read_text(encoding="utf-8"), "html.parser")


def words(element: object) -> str:
    """Returns the text of an element on one line."""
    return " ".join(element.get_text(" ").split())
