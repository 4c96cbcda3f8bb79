"""Plots of scores.csv: what was run is drawn, what was not is said, and nothing over its budget looks like the rest."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from report_pages import scores, write

from evaluation.report.layout import load_layout
from evaluation.report.score_plots import against_spent, contenders, main, spread, sweep
from workflow.common.errors import UserError

LAYOUT = str(Path(__file__).resolve().parents[2] / "workflow/config/report.yaml")
DEFAULT = load_layout(LAYOUT)
SWEEP, SPENT = DEFAULT.plots["epsilon_sweep"], DEFAULT.plots["utility_epsilon"]


def run(method: str, epsilon: float, utility: float, fid: float = 5.0, sound: float | None = None, **more):
    return scores(method, (utility, fid, epsilon, sound or epsilon, 9.0), epsilon=epsilon, **more)


def reference(utility: float, dataset: str = "mnist"):
    return [one for one in scores("real", (utility, 1.0, 0.0, 0.0, 0.0), dataset, math.inf, "none")
            if not one.metric.startswith("eps")]  # fmt: skip


def drawn(make, spec, rows):
    return make(spec, DEFAULT, contenders(rows, DEFAULT))


def words(figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_a_sweep_has_a_line_for_each_run_with_several_budgets_and_a_row_for_each_metric():
    rows = [*run("dpac", 1, 0.5), *run("dpac", 10, 0.8), *run("dp_merf", 10, 0.7), *reference(0.97)]
    figure = drawn(sweep, SWEEP, rows)
    utility, fid = figure.axes
    (line,) = (one for one in utility.lines if len(one.get_xdata()) > 1)
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([1, 10], [0.5, 0.8])
    assert [utility.get_ylabel(), fid.get_ylabel()] == ["gen2real CNN ↑", "FID (classifier) ↓"]
    assert words(figure) == ["DP-GAN-DPAC", "sound ε within the budget"]


def test_a_run_under_two_presets_has_no_one_mark():
    rows = run("dpac", 10, 0.8)
    with pytest.raises(UserError, match="dpac on mnist at epsilon 10 was measured under the presets"):
        contenders([*rows, *(replace(one, preset="long") for one in rows)], DEFAULT)


def test_where_one_budget_alone_was_run_the_sweep_says_so_and_draws_nothing():
    figure = drawn(sweep, SWEEP, [*run("dpac", 10, 0.8), *run("dp_merf", 10, 0.7), *reference(0.97)])
    assert not figure.axes
    (text,) = figure.texts
    assert text.get_text() == "No run has several budgets (ε = 10): nothing to draw over ε."


def test_a_run_over_its_budget_has_another_mark_and_the_legend_says_what_it_means():
    rows = [*run("gs_wgan", 1, 0.5, sound=80.0), *run("gs_wgan", 10, 0.8, sound=1800.0), *run("dp_merf", 10, 0.7)]
    over = drawn(sweep, SWEEP, rows)
    assert words(over) == ["GS-WGAN", "sound ε over the budget"]
    assert {line.get_marker() for line in over.axes[0].lines} - {"None"} == {"^"}
    spent = drawn(against_spent, SPENT, rows)
    assert words(spent) == ["sound ε within the budget", "sound ε over the budget", "1  DP-MERF", "2  GS-WGAN"]
    marks = {line.get_marker(): sorted(line.get_xdata()) for line in spent.axes[0].lines if line.get_marker() != "None"}
    assert marks.keys() == {"o", "^"} and marks["o"] == [10.0]


def test_a_run_without_a_sound_count_is_named_and_not_placed():
    lost = [one for one in run("g_pate", 10, 0.9) if one.metric != "eps_sound"]
    figure = drawn(against_spent, SPENT, [*lost, *run("dp_merf", 10, 0.7), *reference(0.97)])
    assert words(figure)[-1] == "not placed, no sound ε known: G-PATE"
    assert 0.9 not in [y for line in figure.axes[0].lines for y in line.get_ydata()]
    assert [text.get_text() for text in drawn(against_spent, SPENT, lost).texts] == [
        "No private run with a sound ε was measured: nothing to draw."
    ]


def test_a_claim_that_nobody_checked_has_a_mark_and_words_of_its_own_and_no_place_over_a_sound_epsilon():
    claimed = [one for epsilon in (1, 10) for one in run("theirs", epsilon, 0.9, accounting="claimed")
               if not one.metric.startswith("eps_")]  # fmt: skip
    swept = drawn(sweep, SWEEP, [*claimed, *run("dpac", 1, 0.5), *run("dpac", 10, 0.8)])
    assert words(swept) == ["DP-GAN-DPAC", "theirs", "sound ε within the budget", "ε claimed, not checked"]
    assert {line.get_marker() for line in swept.axes[0].lines} - {"None"} == {"o", "D"}
    spent = drawn(against_spent, SPENT, [*claimed, *run("dpac", 10, 0.8)])
    assert words(spent) == [
        "sound ε within the budget", "1  DP-GAN-DPAC", "not placed, ε claimed, not checked: theirs"
    ]  # fmt: skip
    assert not drawn(against_spent, SPENT, claimed).axes


@pytest.mark.parametrize(("sound", "why"), [(math.inf, "no sound ε known"), (0.0, "sound ε 0")])
def test_an_epsilon_that_the_axis_does_not_have_is_named_and_not_placed(sound, why):
    lost = [replace(one, value=sound) if one.metric == "eps_sound" else one for one in run("g_pate", 10, 0.9)]
    figure = drawn(against_spent, SPENT, [*lost, *run("dp_merf", 10, 0.7)])
    FigureCanvasAgg(figure).draw()
    assert words(figure)[-1] == f"not placed, {why}: G-PATE"


def test_seeds_stand_behind_their_mean_with_its_interval():
    rows = [*run("dpac", 10, 0.7), *run("dpac", 10, 0.8, seed=1), *run("dpac", 10, 0.9, seed=2)]
    axes = drawn(against_spent, SPENT, rows).axes[0]
    seeds, reach, mean, *_ = axes.lines
    assert list(seeds.get_ydata()) == [0.7, 0.8, 0.9] and list(mean.get_ydata()) == [pytest.approx(0.8)]
    # 4.303 is Student's t of two degrees of freedom, 0.1 the seeds' deviation.
    assert list(reach.get_ydata()) == pytest.approx([0.8 - 4.303 * 0.1 / 3**0.5, 0.8 + 4.303 * 0.1 / 3**0.5], rel=1e-4)


def test_nothing_lies_beyond_the_page_and_no_two_numbers_on_each_other():
    rows = [one for n, name in enumerate(DEFAULT.runs) for one in run(name, 10, 0.6 + n / 400, sound=1800.0 * (n % 2))]
    figure = drawn(against_spent, SPENT, [*rows, *reference(0.97)])
    canvas = FigureCanvasAgg(figure)
    figure.draw(canvas.get_renderer())
    page = figure.get_window_extent()
    texts = [*figure.axes[0].texts, *figure.legends[0].get_texts()]
    # Of an annotation without its line.
    boxes = [Text.get_window_extent(text, canvas.get_renderer()) for text in texts]
    assert all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= page.x1 and b.y1 <= page.y1 for b in boxes)
    numbers = [box for text, box in zip(texts, boxes, strict=True) if text.get_text().isdigit()]
    assert len(numbers) == len(DEFAULT.runs)
    assert not [1 for n, one in enumerate(numbers) for other in numbers[:n] if one.overlaps(other)]


def test_a_number_hides_no_mark_and_no_level_s_line_crosses_it():
    names = list(DEFAULT.runs)[:7]
    rows = [one for n, name in enumerate(names) for one in run(name, 10, 0.7 - n / 4000, sound=5 * 1.07**n)]
    figure = drawn(against_spent, SPENT, [*rows, *reference(0.1)])
    canvas, axes = FigureCanvasAgg(figure), figure.axes[0]
    canvas.draw()
    figure.set_layout_engine("none")
    numbers = [text for text in axes.texts if text.get_text().isdigit()]
    means = [line for line in axes.lines if len(line.get_xdata()) == 1 and line.get_markersize() == 5]
    places = [axes.transData.transform(line.get_xydata()[0]).astype(int) for line in means]
    assert len(numbers) == len(places) == len(names)

    def marks() -> list[bytes]:
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[::-1]
        return [pixels[y - 1 : y + 2, x - 1 : x + 2].tobytes() for x, y in places]

    numbered = marks()
    for text in numbers:
        text.set_visible(False)
    assert marks() == numbered
    level = min(line.get_zorder() for line in axes.lines)
    assert all(text.get_bbox_patch().get_facecolor() == (1, 1, 1, 1) and text.get_zorder() > level for text in numbers)


def test_a_level_just_above_the_best_mark_lies_within_the_axes():
    rows = [*run("pate_gan", 10, 0.13), *run("dp_gauss", 10, 0.952), *reference(0.992)]
    axes = drawn(against_spent, SPENT, rows).axes[0]
    low, high = axes.get_ylim()
    assert high - 0.992 > 0.02 * (high - low)


@pytest.mark.parametrize(
    ("wanted", "stand"),
    [([5, 50], [5, 50]), ([10, 10], [6, 14]), ([0, 0, 90], [4, 12, 90]), ([98, 99, 100], [80, 88, 96]),
     ([10, 12, 20], [6, 14, 22])],
)  # fmt: skip
def test_labels_stand_as_near_as_they_can_to_where_they_want_to(wanted, stand):
    assert spread(wanted, 8, 100) == pytest.approx(stand)


def test_data_sets_stand_in_the_layout_s_order_and_named_ones_alone():
    rows = [one for name in ("lesions", "fashion_mnist", "mnist") for one in run("dpac", 10, 0.8, dataset=name)]
    assert list(contenders(rows, DEFAULT)) == ["mnist", "fashion_mnist", "lesions"]
    assert list(contenders(rows, DEFAULT, ["lesions", "mnist"])) == ["lesions", "mnist"]


def test_the_command_writes_the_same_bytes_each_time(tmp_path):
    write(tmp_path, [*run("dpac", 10, 0.8), *run("dpac", 10, 0.8, dataset="lesions")])
    common = ["--scores", str(tmp_path / "scores.csv"), "--layout", LAYOUT, "--datasets", "lesions"]
    for out in ("a", "b"):
        assert main([*common, "--out", str(tmp_path / out)]) == 0
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    plots = ("epsilon_sweep", "runs", "utility_epsilon")
    assert names == [f"{name}.{kind}" for name in plots for kind in ("pdf", "png")]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


def test_data_sets_of_which_none_was_measured_are_bad_input(tmp_path, capsys):
    write(tmp_path, run("dpac", 10, 0.8))
    common = ["--scores", str(tmp_path / "scores.csv"), "--layout", LAYOUT, "--out", str(tmp_path / "out")]
    assert main([*common, "--datasets", "mnits"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown data set 'mnits'; did you mean 'mnist'? valid: mnist (")
    assert not (tmp_path / "out").exists()
    assert main([*common, "--datasets", "celeba", "mnist"]) == 0


def test_a_layout_with_an_axis_that_is_none_is_bad_input(tmp_path, capsys):
    write(tmp_path, run("dpac", 10, 0.8))
    plot = '{"plots": {"mine": {"title": "t", "x": "steps", "metrics": ["g2r_cnn"]}}}'
    assert main(["--scores", str(tmp_path / "scores.csv"), "--layout", plot, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: unknown x of layout plots.mine 'steps'; valid: eps_sound, epsilon, run\n"
