"""Table 8: published results as their sources print them, beside the best sound rows, and in no other table."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path

import pytest

from evaluation.report import scores_tables
from evaluation.report.frontier import main, read_frontier
from evaluation.report.layout import load_layout
from evaluation.scores import Score, write_scores

ROOT = Path(__file__).resolve().parents[2]
FRONTIER, LAYOUT = ROOT / "results/published/frontier.csv", str(ROOT / "workflow/config/report.yaml")
BENCH, FASHION = "2019ChenGong/DPImageBench README sections 6-7", "fashion_mnist"
RESULTS = read_frontier(FRONTIER)


def run(method: str, accuracy: float, spent: float = 9.9, seed: int = 0, **other) -> list[Score]:
    """Returns the scores of a run: gen2real, and the sound epsilon that it spent."""
    known = {"preset": "quick", "dataset": "mnist", "epsilon": 10.0, "accounting": "sound", "source": "measured"}
    values = {"g2r_cnn": accuracy, "eps_sound": spent}
    return [Score(**{**known, **other}, method=method, seed=seed, metric=m, value=v) for m, v in values.items()]


@pytest.fixture
def table8(tmp_path):
    def build(*scores: Score, options: tuple[str, ...] = ("--delta", "1e-5")) -> list[dict[str, str]]:
        write_scores(tmp_path / "scores.csv", scores)
        paths = ["--scores", str(tmp_path / "scores.csv"), "--frontier", str(FRONTIER), "--layout", LAYOUT]
        assert main([*paths, *options, "--out", str(tmp_path)]) == 0
        lines = [line for line in (tmp_path / "table8.md").read_text().splitlines() if line.startswith("|")]
        head, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        return [dict(zip(head, cells, strict=True)) for cells in body]

    return build


def ours(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [row for row in rows if row["Source"] == "this run"]


def test_a_run_under_two_presets_is_bad_input(tmp_path, capsys):
    write_scores(tmp_path / "scores.csv", run("dp_gauss", 0.9) + run("dp_gauss", 0.8, preset="long"))
    paths = ["--scores", str(tmp_path / "scores.csv"), "--frontier", str(FRONTIER), "--layout", LAYOUT]
    assert main([*paths, "--out", str(tmp_path)]) == 2
    assert "dp_gauss on mnist at epsilon 10 was measured under the presets long and quick" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "dataset", "epsilon", "accuracy", "distance"),
    [
        ("DP-NTK", "mnist", 1, 0.500, None),
        ("DP-NTK", FASHION, 10, 0.763, 121),
        ("DP-FETA", FASHION, 1, 0.817, None),
        ("DPDM", "celeba", 10, 0.918, 28.8),
        ("PrivImage", "mnist", 10, 0.978, 2.3),
        ("EFSGD", FASHION, 10, None, 83.5),
        ("NDPDC (50 images a class)", FASHION, 1, 0.788, None),
        ("FETA-Pro", "celeba", 1, 0.900, None),
    ],
)
def test_published_results_are_those_of_their_sources(method, dataset, epsilon, accuracy, distance):
    (one,) = [one for one in RESULTS if (one.method, one.dataset, one.epsilon) == (method, dataset, epsilon)]
    assert (one.values.get("g2r"), one.values.get("fid_inception")) == (
        accuracy and (accuracy,),
        distance and (distance,),
    )


def test_each_source_keeps_its_delta_its_training_images_and_its_choice_of_classifier():
    bench = [one for one in RESULTS if one.source == BENCH]
    assert {(one.dataset, one.delta, one.train_images) for one in bench} == {
        ("mnist", "1.7e-6", "55000"), (FASHION, "1.7e-6", "55000"), ("celeba", "5.8e-7", "145064"),
    }  # fmt: skip
    for one in bench:
        count = int(one.train_images)
        assert float(one.delta) == pytest.approx(1 / (count * math.log(count)), rel=0.03)
    assert {one.classifier for one in bench} == {"highest of three"}
    assert {one.public_data for one in RESULTS if one.method == "PrivImage"} == {"ImageNet"}
    assert {one.public_data for one in RESULTS if one.method != "PrivImage"} == {""}
    assert all(one.source for one in RESULTS)


def test_what_has_no_epsilon_proved_is_not_among_private_results(table8):
    assert not any("kernel" in one.method.lower() for one in RESULTS)
    assert not any("Kernel" in row["Method"] for row in table8(*run("dp_merf", 0.8)))


def test_sums_of_the_file_are_those_of_the_tables_it_was_read_from():
    def total(metric: str, dataset: str, epsilon: float) -> float:
        values = [one.mean(metric) for one in RESULTS if (one.dataset, one.epsilon) == (dataset, epsilon)]
        return round(sum(value for value in values if not math.isnan(value)), 4)

    assert (total("g2r", "mnist", 1), total("g2r", "mnist", 10)) == (8.584, 7.327)
    assert (total("g2r", FASHION, 1), total("g2r", FASHION, 10)) == (7.29, 6.137)
    assert (total("g2r", "celeba", 1), total("g2r", "celeba", 10)) == (6.191, 6.69)
    assert [total("fid_inception", d, 10) for d in ("mnist", FASHION, "celeba")] == [315.2, 531.4, 897.9]


def test_our_best_sound_rows_stand_under_the_published_ones_of_their_data_set_and_budget(table8):
    seeds = [score for seed in (0, 1) for score in run("gs_wgan_sound", 0.7 + seed / 10, seed=seed)]
    rows = table8(*seeds, *run("dp_merf", 0.8), *run("dpgan", 0.9, epsilon=1.0, spent=0.99), *run("foo", 0.2))
    here = [row for row in rows if (row["Data set"], row["ε"]) == ("MNIST", "10")]
    assert [row["Source"] == "this run" for row in here] == [False] * 9 + [True] * 3
    assert [(row["Method"], row["gen2real ↑"]) for row in here[9:]] == [
        ("DP-MERF", "0.800"), ("GS-WGAN, sound", "0.750 ± 0.635 (2)"), ("foo", "0.200"),
    ]  # fmt: skip
    assert [row["Public data"] for row in here] == ["none"] * 8 + ["ImageNet"] + ["none"] * 3
    published = [float(row["gen2real ↑"]) for row in here[:7]]
    assert published == sorted(published, reverse=True) and published[0] == 0.985
    assert [(row["Method"], row["ε"]) for row in ours(rows)][3:] == [("DPGAN (revisited)", "1")]


def test_only_three_and_only_those_within_their_budget_by_the_sound_count(table8):
    many = [score for place in range(5) for score in run(f"run{place}", 0.3 + place / 10)]
    over, uncounted = run("dpac", 0.99, spent=600.0, accounting="published"), run("foo", 0.98)[:1]
    free = run("nonprivate", 0.97, epsilon=math.inf, spent=math.inf, accounting="none")
    rows = ours(table8(*many, *over, *uncounted, *free))
    assert [row["Method"] for row in rows] == ["run4", "run3", "run2"]


def test_our_rows_show_their_delta_and_training_images_and_what_is_not_measured(table8, tmp_path):
    card = tmp_path / "card.json"
    card.write_text(json.dumps({"dataset": "mnist", "splits": {"train": {"count": 60000}}}))
    scores = [*run("dp_merf", 0.8), *run("dp_merf", 0.6, dataset=FASHION), *run("dp_merf", 0.5, dataset="digits")]
    first, second = ours(table8(*scores, options=("--delta", "1e-5", "--cards", str(card))))
    assert (first["δ"], first["Training images"], first["FID (Inception) ↓"]) == ("1e-5", "60000", "n/m")
    assert (second["Data set"], second["Training images"]) == ("F-MNIST", "—")


def test_a_row_of_ours_that_ended_short_is_marked_and_told_what_that_means(table8, tmp_path):
    short = dataclasses.replace(run("dp_merf", 0.8)[0], metric="steps_share", value=0.75)
    first, second = ours(table8(*run("dp_merf", 0.8), short, *run("foo", 0.6)))
    assert (first["Method"], second["Method"]) == ("DP-MERF (ended short)", "foo")
    assert "at 75.0% of them or more" in (tmp_path / "table8.md").read_text()
    assert "ended short" not in (tmp_path / "table8.csv").read_text()


def test_the_traps_are_printed_under_the_table(table8, tmp_path):
    table8(*run("dp_merf", 0.8))
    text = (tmp_path / "table8.md").read_text()
    for words in ("1/(n ln n)", "55,000", "145,064", "highest of three classifiers", "no epsilon is proved"):
        assert words in text
    assert "only published rows stand" not in text and r"$\delta$" in (tmp_path / "table8.tex").read_text()
    table8(*run("dp_merf", 0.8, dataset="digits"))
    assert "only published rows stand" in (tmp_path / "table8.md").read_text()


def test_the_csv_holds_means_and_seeds(table8, tmp_path):
    table8(*(score for seed in (0, 1) for score in run("dp_merf", 0.7 + seed / 10, seed=seed)))
    with (tmp_path / "table8.csv").open(newline="") as handle:
        rows = {(row["dataset"], row["epsilon"], row["method"], row["source"]): row for row in csv.DictReader(handle)}
    mine = rows["mnist", "10", "DP-MERF", "this run"]
    assert (mine["g2r"], mine["g2r_seeds"], mine["fid_inception"], mine["delta"]) == ("0.75", "2", "", "1e-5")
    assert rows["mnist", "10", "DP-MERF", BENCH]["g2r"] == "0.813"


def test_these_numbers_stand_in_no_other_table(table8, tmp_path):
    table8(*run("dp_merf", 0.8))
    write_scores(tmp_path / "s.csv", run("dp_merf", 0.8))
    paths = ["--scores", str(tmp_path / "s.csv"), "--published", str(FRONTIER.with_name("scores.csv"))]
    assert scores_tables.main([*paths, "--layout", LAYOUT, "--out", str(tmp_path / "others")]) == 0
    others = "".join(path.read_text() for path in (tmp_path / "others").glob("*.md"))
    assert others and not any(name in others for name in ("DPDM", "FETA", "PrivImage", "EFSGD", "NDPDC"))
    assert "table8" not in load_layout(LAYOUT).tables


LINE = "DPDM,,mnist,10,1.7e-6,55000,highest of three,g2r,0.977,README\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("method,", "methods,", "the first line must"),
        (",g2r,", ",is,", "line 2: unknown metric 'is'; valid: fid_inception, g2r"),
        ("0.977", "97.7", "line 2: value must be a number from 0 to 1, got '97.7'"),
        ("0.977", "", "line 2: value must be a number from 0 to 1, got ''"),
        ("1.7e-6", "17", "line 2: delta must be a number from 0 to 1, got '17'"),
        ("55000", "all", "line 2: train_images must be a number from 1 to 1e+12, got 'all'"),
        (",10,", ",0,", "line 2: epsilon must be a number above 0"),
        ("DPDM", "", "line 2: method must be a printable name"),
        ("README\n", "README\n" + LINE, "line 3: two values for g2r of DPDM on mnist"),
    ],
)
def test_a_bad_file_of_published_results_is_one_line_and_exit_code_2(tmp_path, capsys, old, new, message):
    text = FRONTIER.read_text().splitlines()[0] + "\n" + LINE
    (tmp_path / "frontier.csv").write_text(text.replace(old, new, 1))
    write_scores(tmp_path / "s.csv", run("dp_merf", 0.8))
    paths = ["--scores", str(tmp_path / "s.csv"), "--frontier", str(tmp_path / "frontier.csv"), "--layout", LAYOUT]
    assert main([*paths, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


@pytest.mark.parametrize("card", ["{}", '{"dataset": "mnist", "splits": {"train": {"count": true}}}', "[1]"])
def test_a_card_that_does_not_say_how_many_images_there_are_is_bad_input(tmp_path, capsys, card):
    (tmp_path / "card.json").write_text(card)
    write_scores(tmp_path / "s.csv", run("dp_merf", 0.8))
    paths = ["--scores", str(tmp_path / "s.csv"), "--frontier", str(FRONTIER), "--layout", LAYOUT]
    assert main([*paths, "--cards", str(tmp_path / "card.json"), "--out", str(tmp_path)]) == 2
    assert "card.json" in capsys.readouterr().err
