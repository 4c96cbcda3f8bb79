"""The paper's numbers as stored, held against what the printed tables show."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from evaluation.scores import read_scores, write_scores

PATH = Path(__file__).resolve().parents[2] / "results/published/scores.csv"
QUALITY, GEN2REAL, REAL2GEN = {"is", "fid_inception"}, {"g2r_mlp", "g2r_cnn"}, {"r2g_mlp", "r2g_cnn"}
ABLATION = {"gs_wgan_table4", "dpac_wo_g2r", "dpac_wo_r2g", "dpac_wo_seq", "dpac_wo_init"}


@pytest.fixture(scope="module")
def scores():
    return read_scores(PATH)


@pytest.fixture(scope="module")
def value(scores):
    cells = {(s.dataset, s.method, s.metric): s.value for s in scores}
    assert len(cells) == len(scores), "a cell is stored twice"
    return cells


def cells_per_method(scores, metrics):
    return Counter(s.method for s in scores if s.metric in metrics and s.method not in ABLATION)


def test_every_printed_cell_of_tables_1_to_3_is_stored(scores):
    assert cells_per_method(scores, QUALITY) == {
        "pate_gan": 4, "dp_cgan": 2, "g_pate": 6, "datalens": 6, "dp_merf": 2, "gs_wgan": 6, "dp_sinkhorn": 3, "dpac": 6
    }  # fmt: skip
    assert cells_per_method(scores, GEN2REAL) == {
        "dp_cgan": 4, "g_pate": 3, "datalens": 3, "dp_merf": 4, "gs_wgan": 6, "dp_sinkhorn": 6, "dpac": 5
    }  # fmt: skip
    assert cells_per_method(scores, REAL2GEN) == {"gs_wgan": 6, "dpac": 6}


def test_every_printed_cell_of_table_4_is_stored(scores):
    cells = Counter(s.method for s in scores if s.method in ABLATION)
    assert cells == dict.fromkeys(ABLATION, 6)
    assert {s.dataset for s in scores if s.method in ABLATION} == {"fashion_mnist"}


def test_all_rows_are_the_paper_at_epsilon_10(scores):
    assert {(s.preset, s.epsilon, s.accounting, s.seed, s.source) for s in scores} == {
        ("published", 10.0, "published", None, "published")
    }


@pytest.mark.parametrize(
    ("cell", "printed"),
    [
        (("mnist", "pate_gan", "is"), 1.46),
        (("fashion_mnist", "dp_cgan", "fid_inception"), 243.80),
        (("celeba", "g_pate", "fid_inception"), 350.92),
        (("celeba", "datalens", "g2r_cnn"), 0.73),
        (("fashion_mnist", "dp_merf", "fid_inception"), 110.40),
        (("celeba", "dp_sinkhorn", "fid_inception"), 168.40),
        (("mnist", "dpac", "fid_inception"), 54.06),
        (("mnist", "dpac", "g2r_cnn"), 0.88),
        (("celeba", "dpac", "g2r_cnn"), 0.85),
        (("celeba", "gs_wgan", "r2g_cnn"), 0.60),
        (("fashion_mnist", "dpac_wo_seq", "r2g_cnn"), 0.77),
        (("fashion_mnist", "dpac_wo_init", "fid_inception"), 101.69),
    ],
)
def test_cells_read_off_the_paper(value, cell, printed):
    assert value[cell] == printed


def test_the_baseline_s_two_fids_are_both_kept_as_printed(value):
    assert value["fashion_mnist", "gs_wgan", "fid_inception"] == 131.34
    assert value["fashion_mnist", "gs_wgan_table4", "fid_inception"] == 131.24


def test_the_illegible_cell_is_absent(value):
    assert ("mnist", "dpac", "g2r_mlp") not in value


def test_the_column_sums_of_the_mnist_columns(value):
    sums = Counter()
    for (dataset, method, metric), number in value.items():
        if dataset == "mnist" and method not in ABLATION:
            sums[metric] += number
    # Sums of the printed columns.
    quality, utility = {"is": 31.34, "fid_inception": 1013.23}, {"g2r_mlp": 3.00, "g2r_cnn": 5.58}
    assert sums == pytest.approx({**quality, **utility, "r2g_mlp": 1.99, "r2g_cnn": 1.99})


def test_the_file_is_in_the_stable_form(scores, tmp_path):
    write_scores(tmp_path / "again.csv", scores)
    assert (tmp_path / "again.csv").read_bytes() == PATH.read_bytes()
