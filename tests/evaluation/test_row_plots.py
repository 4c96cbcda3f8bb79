"""The plot by run: the best first, what keeps its budget told from what does not, and one line a run and budget."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from report_pages import scores

from evaluation.report.layout import PlotSpec, load_layout
from evaluation.report.plot_parts import contenders
from evaluation.report.row_plots import by_run
from evaluation.report.score_plots import against_spent
from evaluation.scores import Score

DEFAULT = load_layout(str(Path(__file__).resolve().parents[2] / "workflow/config/report.yaml"))
SPEC = DEFAULT.plots["runs"]


def run(method: str, utility: float, epsilon: float = 10, sound: float = 0, **more) -> list[Score]:
    found = scores(method, (utility, 5.0, epsilon, sound or epsilon, 9.0), epsilon=epsilon, **more)
    real2gen = [Score(one.preset, one.dataset, one.method, one.epsilon, one.accounting, one.seed, "r2g_cnn",
                      utility / 2, one.source) for one in found if one.metric == "g2r_cnn"]  # fmt: skip
    return found + real2gen


def reference(utility: float) -> list[Score]:
    found = scores("real", (utility, 1.0, 0.0, 0.0, 0.0), "mnist", math.inf, "none")
    return [one for one in found if not one.metric.startswith("eps")]


def drawn(rows: list[Score]):
    return by_run(SPEC, DEFAULT, contenders(rows, DEFAULT))


def means(axes) -> dict[float, float]:
    """Returns height -> value of the large marks."""
    return {line.get_ydata()[0]: line.get_xdata()[0] for line in axes.lines if line.get_markersize() == 4.5}


def names(axes) -> list[str]:
    return [text.get_text() for text in axes.get_yticklabels()]


def test_runs_stand_by_the_first_metric_with_the_best_at_the_top_and_references_last():
    figure = drawn([*run("dp_merf", 0.7), *run("dpac", 0.8), *run("dp_ntk", 0.6), *reference(0.97)])
    gen2real, real2gen = figure.axes
    assert names(gen2real) == ["DP-GAN-DPAC", "DP-MERF", "DP-NTK", "Real data"]
    top, bottom = sorted(gen2real.get_ylim())
    assert gen2real.get_ylim() == (bottom, top), "the first line is the highest"
    assert means(gen2real) == {0: 0.8, 1: 0.7, 2: 0.6, 3: 0.97}
    # The reference lacks real2gen here, and has an empty line.
    assert means(real2gen) == pytest.approx({0: 0.4, 1: 0.35, 2: 0.3})
    assert [axes.get_xlabel() for axes in figure.axes] == ["gen2real CNN ↑", "real2gen CNN ↑"]


def test_a_run_over_its_budget_and_a_claim_have_marks_and_words_of_their_own():
    claimed = [one for one in run("theirs", 0.9, accounting="claimed") if not one.metric.startswith("eps_")]
    figure = drawn([*run("gs_wgan", 0.8, sound=1800.0), *run("dp_merf", 0.7), *claimed, *reference(0.97)])
    assert [line.get_marker() for line in figure.axes[0].lines if line.get_markersize() == 4.5] == ["D", "^", "o", "s"]
    words = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    kept, over, unchecked = "sound ε within the budget", "sound ε over the budget", "ε claimed, not checked"
    assert words == {kept, over, unchecked, "without privacy"}


def test_marks_without_an_interval_are_told_to_be_of_one_seed_where_others_have_one():
    several = [one for seed in range(3) for one in run("dpac", 0.8 + seed / 100, seed=seed)]
    for plot in (by_run, against_spent):
        words = []
        for rows in (several, run("dp_merf", 0.7), several + run("dp_merf", 0.7)):
            figure = plot(SPEC, DEFAULT, contenders(rows, DEFAULT))
            words.append([text.get_text() for legend in figure.legends for text in legend.get_texts()])
        assert ["without an interval: one seed" in each for each in words] == [False, False, True]


def test_each_budget_of_a_run_has_a_line_and_its_epsilon_beside_the_name():
    figure = drawn([*run("dpac", 0.8), *run("dpac", 0.5, epsilon=1), *reference(0.97)])
    assert names(figure.axes[0]) == ["DP-GAN-DPAC, ε 10", "DP-GAN-DPAC, ε 1", "Real data"]


def test_a_run_that_was_trained_without_privacy_too_says_which_line_is_which():
    figure = drawn([*run("dpac", 0.8), *run("dp_merf", 0.7), *run("dpac", 0.9, epsilon=math.inf)])
    assert names(figure.axes[0]) == ["DP-GAN-DPAC, ε 10", "DP-MERF", "DP-GAN-DPAC, ε inf"]


def test_a_name_with_a_dollar_sign_is_shown_as_it_is():
    figure = drawn([*run("cost_$5_$6", 0.8), *run("dp_merf", 0.7)])
    assert names(figure.axes[0]) == ["cost_$5_$6", "DP-MERF"]
    assert not figure.axes[0].get_yticklabels()[0].get_parse_math()


def test_of_a_metric_where_lower_is_better_the_lowest_is_at_the_top_and_who_lacks_it_follows():
    rows = [*run("dp_ntk", 0.4), *run("dpac", 0.8), *run("dp_merf", 0.7)]
    found = {"dpac": 30.0, "dp_merf": 20.0}
    rows = [one for one in rows if one.metric != "fid_classifier"] + [
        replace(one, metric="fid_classifier", value=found[one.method])
        for one in rows if one.metric == "g2r_cnn" and one.method in found
    ]  # fmt: skip
    spec = PlotSpec("t", "run", ["fid_classifier", "g2r_cnn"])
    distance, gen2real = by_run(spec, DEFAULT, contenders([*rows, *reference(0.97)], DEFAULT)).axes
    assert names(distance) == ["DP-MERF", "DP-GAN-DPAC", "DP-NTK", "Real data"]
    assert means(distance) == {0: 20.0, 1: 30.0, 3: 1.0} and means(gen2real) == {0: 0.7, 1: 0.8, 2: 0.4, 3: 0.97}
    assert distance.get_xlabel() == "FID (classifier) ↓"


def test_a_run_without_any_of_the_metrics_has_no_line():
    distances = [one for one in run("dp_ntk", 0.6) if one.metric not in SPEC.metrics]
    assert names(drawn([*run("dpac", 0.8), *distances]).axes[0]) == ["DP-GAN-DPAC"]


def test_what_was_trained_by_two_counts_has_two_lines():
    figure = drawn([*run("dpac", 0.8, accounting="published", sound=50.0), *run("dpac", 0.6)])
    assert means(figure.axes[0]) == {0: 0.8, 1: 0.6}


def test_a_legend_of_several_lines_takes_no_room_from_the_runs():
    kept = drawn([one for name in ("dpac", "dp_merf", "dp_ntk", "dpgan") for one in run(name, 0.8)])
    claimed = [one for one in run("theirs", 0.6, accounting="claimed") if not one.metric.startswith("eps_")]
    every = drawn([*run("dpac", 0.8), *run("dp_merf", 0.7, sound=20.0), *claimed, *reference(0.97)])
    high = []
    for figure in (kept, every):
        figure.draw_without_rendering()
        high.append(figure.axes[0].get_position().height * figure.get_figheight())
    assert every.get_figheight() > kept.get_figheight() and high[0] == pytest.approx(high[1], abs=0.03)


def test_a_data_set_without_a_private_run_has_no_panel():
    elsewhere = [replace(one, dataset="celeba") for one in reference(0.97)]
    assert [axes.get_title(loc="left") for axes in drawn([*run("dpac", 0.8), *elsewhere]).axes] == ["MNIST", ""]


def test_marks_are_hollow_where_nothing_shows_that_the_budget_is_kept():
    uncounted = [one for one in run("gs_wgan", 0.5) if one.metric != "eps_sound"]
    claimed = [one for one in run("theirs", 0.6, accounting="claimed") if not one.metric.startswith("eps_")]
    figure = drawn([*run("dpac", 0.8), *run("dp_merf", 0.7, sound=20.0), *claimed, *uncounted, *reference(0.97)])
    marks = [line for line in figure.axes[0].lines if line.get_markersize() == 4.5]
    assert [(one.get_marker(), one.get_markerfacecolor() == "white") for one in marks] == [
        ("o", False), ("^", False), ("D", True), ("X", True), ("s", True),
    ]  # fmt: skip


def test_seeds_and_their_interval_lie_on_the_line_and_the_axis_ends_where_the_metric_does():
    figure = drawn([*run("dpac", 0.1), *run("dpac", 0.5, seed=1), *run("dpac", 0.9, seed=2)])
    seeds, reach, mean = figure.axes[0].lines
    assert list(seeds.get_xdata()) == [0.1, 0.5, 0.9] and set(seeds.get_ydata()) == {0}
    # 4.303 is Student's t of two degrees of freedom, 0.4 the seeds' deviation.
    assert list(reach.get_xdata()) == pytest.approx([0.5 - 4.303 * 0.4 / 3**0.5, 0.5 + 4.303 * 0.4 / 3**0.5], rel=1e-3)
    assert list(mean.get_xdata()) == [pytest.approx(0.5)]
    left, right = figure.axes[0].get_xlim()
    assert -0.06 < left < 0 and 1 < right < 1.06


def test_every_data_set_has_panels_of_its_own_and_nothing_lies_beyond_the_page():
    rows = [one for n, name in enumerate(DEFAULT.runs) for data in ("mnist", "celeba")
            for one in run(name, 0.9 - n / 100, dataset=data)]  # fmt: skip
    figure = drawn(rows)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["MNIST", "", "CelebA", ""]
    canvas = FigureCanvasAgg(figure)
    figure.draw(canvas.get_renderer())
    page = figure.get_window_extent()
    texts = [*figure.axes[0].get_yticklabels(), *figure.axes[2].get_yticklabels(), *figure.legends[0].get_texts()]
    boxes = [Text.get_window_extent(text, canvas.get_renderer()) for text in texts]
    assert all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= page.x1 and b.y1 <= page.y1 for b in boxes)
    assert not [1 for n, one in enumerate(boxes) for other in boxes[:n] if one.overlaps(other)]


def test_without_any_private_run_the_figure_is_a_sentence():
    (text,) = drawn(reference(0.97)).texts
    assert text.get_text() == "No run has a score: nothing to draw."
