"""Intervals over seeds and Holm's correction, by values worked out by hand."""

from __future__ import annotations

import warnings

import pytest

from evaluation.intervals import half_width, holm, interval, paired, unpaired


def test_the_interval_of_a_mean_is_student_s():
    # Standard deviation 0.02; t(0.975, 2) = 4.302653; 4.302653 * 0.02 / sqrt(3) = 0.0496828.
    assert half_width((0.78, 0.80, 0.82)) == pytest.approx(0.0496828, rel=1e-5)
    assert interval((0.78, 0.80, 0.82)) == pytest.approx((0.7503172, 0.8496828), rel=1e-6)


def test_one_value_or_an_infinite_one_has_no_interval():
    assert half_width((0.8,)) is None and interval((0.8,)) == (0.8, 0.8)
    assert half_width((0.8, float("inf"))) is None


def test_two_rows_are_compared_seed_by_seed():
    # Differences 0.1, 0.2, 0.3: mean 0.2, deviation 0.1, standard error 0.0577350, t = 3.464102 with 2 degrees.
    # Two-sided p of Student's t with 2 degrees: 1 - t / sqrt(2 + t^2) = 1 - 3.464102 / sqrt(14) = 0.0741799.
    effect = paired({0: 0.5, 1: 0.8, 2: 0.7}, {0: 0.4, 1: 0.6, 2: 0.4})
    assert (effect.mean, effect.seeds) == (pytest.approx(0.2), 3)
    assert (effect.low, effect.high) == pytest.approx((0.2 - 0.2484138, 0.2 + 0.2484138), abs=1e-6)
    assert effect.p == pytest.approx(0.0741799, rel=1e-5)


def test_what_moves_both_rows_alike_with_the_seed_is_no_noise_of_their_difference():
    far_apart = {0: 0.1, 1: 0.5, 2: 0.9}
    above = {0: 0.201, 1: 0.6, 2: 0.999}
    assert paired(above, far_apart).low > 0.09


def test_seeds_that_one_row_lacks_take_no_part():
    one, other = {0: 0.5, 1: 0.8, 2: 0.7, 3: 0.1}, {0: 0.4, 1: 0.6, 2: 0.4, 4: 0.9}
    assert paired(one, other) == paired({0: 0.5, 1: 0.8, 2: 0.7}, {0: 0.4, 1: 0.6, 2: 0.4})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({0: 0.5}, {0: 0.4}),
        ({0: 0.5, 1: 0.6}, {1: 0.4, 2: 0.5}),
        ({0: 0.5, 1: 0.6, 2: 0.7}, {0: 0.4, 1: 0.5, 2: 0.6}),
        # Of a distance near 1000 the last of six digits is 0.01.
        ({0: 1000.0, 1: 1000.005, 2: 1000.0}, {0: 900.0, 1: 900.0, 2: 900.0}),
        ({0: 0.5, 1: float("inf")}, {0: 0.4, 1: 0.5}),
    ],
    ids=["one seed", "one seed in common", "equal differences", "rounding", "infinite"],
)
def test_where_seeds_say_nothing_about_noise_there_is_no_effect(one, other):
    assert paired(one, other) is None


def test_holm_multiplies_the_smallest_by_all_and_never_falls():
    # 0.01 * 4, 0.015 * 3 = 0.045, 0.03 * 2 = 0.06, then 0.04 * 1, raised to the 0.06 before it.
    assert holm([0.03, 0.01, 0.04, 0.015]) == pytest.approx([0.06, 0.04, 0.06, 0.045])
    assert holm([0.7, 0.6]) == [1.0, 1.0] and holm([0.02]) == [0.02] and holm([]) == []


def test_a_row_that_does_not_spread_is_compared_without_a_warning():
    # Of the other, deviation 0.02 and standard error 0.0115470; t(0.975, 2) = 4.302653.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        effect = unpaired((0.78, 0.80, 0.82), (0.1,) * 3)
    assert (effect.low, effect.high) == pytest.approx((0.7 - 0.0496828, 0.7 + 0.0496828), rel=1e-5)


def test_two_rows_without_shared_seeds_are_compared_by_welch_s_t():
    # Variances of the means 1/3 and 100/3: 2.04 degrees of freedom, t(0.975, 2.04) = 4.222816, times sqrt(101 / 3).
    effect = unpaired((1, 2, 3), (10, 20, 30))
    assert (effect.mean, effect.seeds) == (-18, 3)
    assert (effect.low, effect.high) == pytest.approx((-18 - 24.50204, -18 + 24.50204), abs=1e-4)
