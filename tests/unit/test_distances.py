"""The comparison of distances: its image sets are what their names say, and each is scored by both distances."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from toys import squares

from benchmarks import distances
from benchmarks.distances import degraded, gaussian_per_class, main
from evaluation.wavelets import packet_moments, wavelet_distance
from workflow.common.contracts import LabelledImages
from workflow.common.files import write_npz

ROOT = Path(__file__).resolve().parents[2]


def test_the_sets_are_what_their_names_say():
    train, test = squares(60, 1, classes=2, size=20), squares(40, 2, classes=2, size=20)
    sets = dict(degraded(train, test))
    assert all(images.dtype == np.uint8 and images.shape[1:] == (1, 20, 20) for images in sets.values())
    assert np.array_equal(sets["real"], test.images)
    assert np.abs(sets["noise of 2 grey levels"].astype(int) - test.images).max() < 15
    assert len(sets["half of the classes"]) == len(sets["one class"]) == 20
    fewer = {name for name, images in sets.items() if len(images) < len(test.images)}
    assert fewer == {"half of the classes", "one class"}
    told = " ".join((ROOT / "docs/distances.md").read_text(encoding="utf-8").split())
    assert "of which half of the classes are some 5,000 and one class some 1,000" in told
    flat = np.full((2, 1, 28, 28), 90, np.uint8)
    assert (distances._blurred(flat, 5) == 90).all()


def test_a_gaussian_per_class_has_the_pixels_means_and_spread_of_each():
    whole = squares(90, 1)
    data = LabelledImages(whole.images[..., :12, 6:18], whole.labels)
    found = gaussian_per_class(data, 3000, np.random.default_rng(1)).reshape(3, 1000, 144).astype(float)
    for label in range(3):
        real = data.images[data.labels == label].reshape(-1, 144).astype(float)
        inside = (real.mean(0) > 40) & (real.mean(0) < 215) & (real.std(0) < 20)
        assert found[label].mean(0)[inside] == pytest.approx(real.mean(0)[inside], abs=3)


def test_the_command_writes_a_line_for_each_set_with_both_distances(tmp_path):
    for name, data in {"train": squares(90, 1), "test": squares(60, 2), "made": squares(50, 3)}.items():
        write_npz(tmp_path / f"{name}.npz", images=data.images, labels=data.labels)
    out = tmp_path / "out.csv"
    arguments = ["--data", str(tmp_path), "--samples", f"mine={tmp_path / 'made.npz'}", "--seeds", "0", "1"]
    protocol = '{"feature_epochs": 1, "min_steps": 2}'
    assert main([*arguments, "--protocol", protocol, "--out", str(out)]) == 0
    with out.open(newline="") as handle:
        rows = {row["set"]: row for row in csv.DictReader(handle)}
    assert len(rows) == 11 and set(rows["real"]) == {
        "set", "fwd", "fwd_linear", "fid_classifier_0", "fid_classifier_1"
    }  # fmt: skip
    expected = wavelet_distance(*(packet_moments(squares(n, s).images) for n, s in ((50, 3), (90, 1))))
    assert float(rows["mine"]["fwd"]) == pytest.approx(expected, rel=1e-3)
    assert rows["real"]["fid_classifier_0"] != rows["real"]["fid_classifier_1"]


def test_samples_without_a_name_are_bad_input(tmp_path, capsys):
    for name in ("train", "test"):
        write_npz(tmp_path / f"{name}.npz", images=squares(9, 1).images, labels=squares(9, 1).labels)
    assert main(["--data", str(tmp_path), "--samples", "a.npz", "--out", str(tmp_path / "out.csv")]) == 2
    assert "--samples takes name=samples.npz, got 'a.npz'" in capsys.readouterr().err


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist"])
def test_the_page_shows_the_committed_measurements(dataset):
    page = (ROOT / "docs/distances.md").read_text(encoding="utf-8")
    with (ROOT / f"benchmarks/results/distances/{dataset}.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) >= 12
    for row in rows:
        by_network = [float(value) for name, value in row.items() if name.startswith("fid_classifier_")]
        span = f"{min(by_network):.3g} to {max(by_network):.3g}"
        assert f"| {row['set']} | {float(row['fwd']):.3g} | {float(row['fwd_linear']):.2g} | {span} |" in page
