"""The table of metrics holds what the printed tables and the comparison need."""

from __future__ import annotations

from evaluation.comparison.tolerance import DEFAULT_TOLERANCES
from workflow.common.metrics import METRICS, ORDER


def test_the_order_is_that_of_scores_csv():
    assert ORDER == (
        "is", "fid_inception", "fid_classifier", "precision", "recall", "g2r_mlp", "g2r_cnn", "r2g_mlp", "r2g_cnn",
        "distinct_fraction", "eps_published", "eps_sound", "train_seconds", "steps_share", "fwd",
        "g2r_cnn_best_on_test",
    )  # fmt: skip


def test_every_metric_is_under_its_name_and_has_a_label_of_its_own():
    assert all(name == metric.name for name, metric in METRICS.items())
    assert len({metric.label for metric in METRICS.values()}) == len(METRICS)


def test_every_tolerance_is_one_that_the_comparison_reads_and_prints():
    assert {name: str(tolerance) for name, tolerance in DEFAULT_TOLERANCES.items()} == {
        name: metric.tolerance for name, metric in METRICS.items()
    }


def test_time_and_kills_belong_to_the_machine_and_what_was_spent_has_no_arrow():
    assert [metric.name for metric in METRICS.values() if not metric.regresses] == ["train_seconds", "steps_share"]
    without = [metric.name for metric in METRICS.values() if not metric.arrow]
    assert without == ["eps_published", "eps_sound", "train_seconds", "steps_share"]
