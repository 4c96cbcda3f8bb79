"""Names beside the marks of a plot: as many as fit, and none on a mark, a line or another name."""

from __future__ import annotations

import pytest

from evaluation.report import mark_names
from evaluation.report.mark_names import Mark, sides

LONG = "a name of 24 letters ...."


def test_a_mark_alone_has_its_name_to_its_right_and_one_at_the_right_edge_to_its_left() -> None:
    assert sides([Mark(0.1, 0.5, "alone")]) == ["left"]
    assert sides([Mark(0.98, 0.5, "edge")]) == ["right"]


def test_a_name_that_fits_on_neither_side_is_left_out() -> None:
    """25 letters of 7 pixels on a plot of 290: in the middle they reach beyond both edges."""
    assert sides([Mark(0.5, 0.5, LONG)]) == [""]


def test_of_two_names_that_would_meet_the_higher_marks_stays() -> None:
    crowd = [Mark(0.40, 0.50, "lower one"), Mark(0.41, 0.52, "upper one")]
    assert sides(crowd)[1] and sides(crowd)[0] != sides(crowd)[1]
    packed = [Mark(0.4, 0.50 + place / 100, f"number {place}") for place in range(6)]
    assert 1 <= sum(map(bool, sides(packed))) <= 3


def test_a_name_does_not_lie_on_a_mark() -> None:
    assert sides([Mark(0.1, 0.5, "some name"), Mark(0.2, 0.5, "")])[0] == ""


@pytest.mark.parametrize(("end", "side"), [(0.5, ""), (0.9, "left"), (0.1, "left")])
def test_a_name_does_not_lie_on_the_line_that_leaves_its_mark(end: float, side: str) -> None:
    """A level line runs through the name; a steep one passes beside it. The mark is at the left edge."""
    marks = [Mark(0.0, 0.5, "begin", True), Mark(0.9 if end == 0.5 else 0.05, end, "", True)]
    assert sides(marks)[0] == side


def test_a_line_is_kept_clear_on_wide_plots_too_where_it_is_flatter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other end is 160 pixels higher and a share of 0.15 to the right: 44 pixels on a phone, 90 on a desktop."""
    marks = [Mark(0.0, 0.5, "begin", True), Mark(0.15, 1.0, "", True)]
    assert sides(marks)[0] == ""
    monkeypatch.setattr(mark_names, "WIDTHS", (290,))
    assert sides(marks)[0] == "left"


def test_a_mark_of_no_line_may_bear_its_name_where_others_are_joined() -> None:
    marks = [Mark(0.0, 0.1, "", True), Mark(1.0, 0.2, "", True), Mark(0.3, 0.8, "far above")]
    assert sides(marks)[2] == "left"


def test_a_name_does_not_lie_on_the_name_of_a_level() -> None:
    assert sides([Mark(0.02, 0.53, "a mark")], [(0.5, "without noise")]) == [""]
    assert sides([Mark(0.02, 0.45, "a mark")], [(0.5, "without noise")]) == ["left"]


def test_no_more_than_ten_names_stand_in_a_plot() -> None:
    marks = [Mark(0.1 if place % 2 else 0.6, place / 24, f"n{place}") for place in range(24)]
    assert sum(map(bool, sides(marks))) == 10
