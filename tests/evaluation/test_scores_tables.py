"""What a reader finds in the tables: both sources side by side, the missing marked, every measured run shown."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import yaml

from evaluation.report.layout import load_layout, parse_layout
from evaluation.report.render import NOT_MEASURED, NOT_REPORTED
from evaluation.report.scores_tables import main, write_tables
from evaluation.scores import Score, read_scores, write_scores
from workflow.common.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
LAYOUT, PUBLISHED = ROOT / "workflow/config/report.yaml", ROOT / "results/published/scores.csv"
DEFAULT = load_layout(str(LAYOUT))


def score(method: str, metric: str, value: float, **other) -> Score:
    known = {"preset": "quick", "dataset": "mnist", "epsilon": 10.0, "accounting": "published", "seed": 0}
    return Score(**{**known, **other}, method=method, metric=metric, value=value, source="measured")


def markdown(text: str) -> list[dict[str, str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    head, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip([cell.replace("<br>", " ") for cell in head], cells, strict=True)) for cells in body]


@pytest.fixture
def tables(tmp_path):
    def build(*scores: Score, num_samples: int | None = None) -> Path:
        write_tables(DEFAULT, scores, read_scores(PUBLISHED), tmp_path, num_samples)
        return tmp_path

    return build


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    return markdown((folder / f"{name}.md").read_text())


def row(folder: Path, name: str, method: str, epsilon: str = "10") -> dict[str, str]:
    (cells,) = [row for row in rows(folder, name) if (row["Method"], row["ε"]) == (method, epsilon)]
    return cells


def test_published_and_measured_stand_side_by_side_and_the_missing_is_marked(tables):
    folder = tables(score("dpac", "is", 3.14159))
    cells = row(folder, "table1", "DP-GAN-DPAC")
    assert (cells["MNIST IS ↑ paper"], cells["MNIST IS ↑ ours"]) == ("9.71", "3.14")
    assert (cells["F-MNIST IS ↑ paper"], cells["F-MNIST IS ↑ ours"]) == ("6.60", NOT_MEASURED)
    assert row(folder, "table1", "DP-MERF")["MNIST IS ↑ paper"] == NOT_REPORTED
    assert row(folder, "table2", "DP-GAN-DPAC")["MNIST gen2real MLP ↑ paper"] == NOT_REPORTED  # the illegible cell


def test_a_run_that_ended_short_is_marked_in_its_row_of_every_table_and_explained_under_it(tables):
    metrics = ("is", "g2r_cnn", "r2g_cnn", "precision", "eps_sound")
    scores = [score(method, metric, 0.5) for method in ("dpac", "gs_wgan") for metric in metrics]
    folder = tables(*scores, score("dpac", "steps_share", 0.956), score("dpac", "steps_share", 0.975, seed=1))
    shown = 0
    for path in sorted(folder.glob("table*.md")):
        short = [cells["Method"] for cells in rows(folder, path.stem) if "(ended short)" in cells["Method"]]
        assert set(short) <= {"DP-GAN-DPAC (ended short)", "Full DP-GAN-DPAC (ended short)"}
        text = path.with_suffix(".tex").read_text()
        assert ("at 95.6% of them or more" in path.read_text()) == ("(ended short)" in text) == bool(short)
        assert bool(short) == any("ended short" in cells["method"] for cells in read_csv(path.with_suffix(".csv")))
        shown += bool(short)
    # All but the ablation, which is of another data set.
    assert shown == 4


def test_the_paper_s_rows_are_shown_without_any_measurement(tables):
    folder = tables()
    assert [len(rows(folder, f"table{n}")) for n in (1, 2, 3, 4)] == [8, 7, 2, 6]
    assert row(folder, "table1", "GS-WGAN")["F-MNIST FID (Inception) ↓ paper"] == "131.34"
    assert row(folder, "table4", "Baseline (GS-WGAN)")["F-MNIST FID (Inception) ↓ paper"] == "131.24"
    assert row(folder, "table1", "DP-CGAN")["MNIST FID (Inception) ↓ paper"] == "179.20"  # as printed


def test_classifier_fid_never_shares_a_column_with_the_paper_s_fid(tables):
    cells = row(tables(score("dpac", "fid_classifier", 12.0)), "table1", "DP-GAN-DPAC")
    assert cells["MNIST FID (classifier) ↓ ours"] == "12.00"
    assert (cells["MNIST FID (Inception) ↓ paper"], cells["MNIST FID (Inception) ↓ ours"]) == ("54.06", NOT_MEASURED)
    assert "MNIST FID (classifier) ↓ paper" not in cells


def test_accuracy_picked_on_test_images_has_a_column_of_its_own_only_when_measured_and_says_so(tables):
    words = "picks on the images that it is scored on"
    folder = tables(score("datalens", "g2r_cnn", 0.4))
    assert not any("best epoch" in key for key in rows(folder, "table2")[0])
    assert words not in (folder / "table2.md").read_text()
    folder = tables(score("datalens", "g2r_cnn", 0.4), score("datalens", "g2r_cnn_best_on_test", 0.45))
    cells = row(folder, "table2", "DataLens")
    assert cells["MNIST gen2real CNN, best epoch on test ↑ ours"] == "0.450"
    assert cells["MNIST gen2real CNN ↑ ours"] == "0.400"
    # The authors' numbers stay where the paper prints them.
    assert "MNIST gen2real CNN, best epoch on test ↑ paper" not in cells
    assert words in (folder / "table2.md").read_text() and words not in (folder / "table1.md").read_text()


def test_several_seeds_become_their_mean_its_interval_and_their_count(tables):
    folder = tables(*(score("dpac", "g2r_cnn", value, seed=seed) for seed, value in enumerate((0.5, 0.6, 0.7))))
    assert row(folder, "table2", "DP-GAN-DPAC")["MNIST gen2real CNN ↑ ours"] == "0.600 ± 0.248 (3)"
    # t(0.975, 2) = 4.302653, times 0.1 / sqrt(3).
    assert "mean ± half the width of its 95% t interval" in (folder / "table2.md").read_text()
    (cells,) = [r for r in read_csv(folder / "table2.csv") if r["method"] == "DP-GAN-DPAC"]
    parts = [cells[f"mnist_g2r_cnn_measured_{part}"] for part in ("mean", "std", "n")]
    assert parts == ["0.6", "0.1", "3"]
    assert cells["mnist_g2r_cnn_published"] == "0.88"
    assert cells["celeba_g2r_cnn_measured_mean"] == ""


def test_a_dropped_in_run_is_in_every_table_and_an_ablation_only_in_its_own(tables):
    folder = tables(score("foo", "g2r_cnn", 0.4), score("dpac_wo_g2r", "g2r_cnn", 0.3, dataset="fashion_mnist"))
    for name in ("table1", "table2", "table3", "table4", "table6"):
        shown = [row["Method"] for row in rows(folder, name)]
        assert (name, shown.count("foo")) == (name, 0 if name == "table6" else 1)
        assert ("DPAC w/o g2r" in shown) == (name == "table4")
    folder = tables(score("foo", "eps_sound", 9.0))
    assert row(folder, "table6", "foo")["ε sound"] == "9.00"


def test_a_data_set_the_layout_does_not_know_gets_columns_in_every_table(tables):
    folder = tables(score("dpac", "g2r_cnn", 0.4, dataset="digits"), score("dpac", "is", 2.0, dataset="digits"))
    assert row(folder, "table1", "DP-GAN-DPAC")["digits IS ↑ ours"] == "2.00"
    assert row(folder, "table2", "DP-GAN-DPAC")["digits gen2real CNN ↑ ours"] == "0.400"
    assert row(folder, "table4", "Full (DP-GAN-DPAC)")["digits gen2real CNN ↑ ours"] == "0.400"


def test_the_small_face_set_has_its_own_columns_only_when_measured(tables):
    assert not any("CelebA-10k" in key for key in rows(tables(), "table1")[0])
    cells = row(tables(score("dpac", "is", 1.5, dataset="celeba10k")), "table1", "DP-GAN-DPAC")
    assert (cells["CelebA-10k IS ↑ ours"], cells["CelebA IS ↑ ours"], cells["CelebA IS ↑ paper"]) == (
        "1.50", NOT_MEASURED, "1.90"
    )  # fmt: skip


def test_each_epsilon_has_its_row_and_the_paper_s_numbers_stay_at_theirs(tables):
    folder = tables(score("dpac", "is", 3.0), score("dpac", "is", 2.0, epsilon=1.0))
    assert row(folder, "table1", "DP-GAN-DPAC", "10")["MNIST IS ↑ paper"] == "9.71"
    cells = row(folder, "table1", "DP-GAN-DPAC", "1")
    assert (cells["MNIST IS ↑ paper"], cells["MNIST IS ↑ ours"]) == (NOT_REPORTED, "2.00")
    assert [r["ε"] for r in rows(folder, "table1")][-1] == "1"


def test_the_ledger_columns_show_the_largest_spent_epsilon(tables):
    spent = [("mnist", 9.1), ("fashion_mnist", 146.6)]
    folder = tables(*(score("dpac", "eps_sound", value, dataset=dataset) for dataset, value in spent))
    assert row(folder, "table1", "DP-GAN-DPAC")["ε sound"] == "146.60"
    assert [r["ε sound"] for r in rows(folder, "table6")] == ["9.10", "146.60"]
    folder = tables(score("dpac", "eps_sound", math.inf))
    assert row(folder, "table1", "DP-GAN-DPAC")["ε sound"] == "∞"


def test_a_soundly_accounted_run_still_stands_beside_its_paper_row(tables):
    cells = row(tables(score("dp_merf", "g2r_cnn", 0.78, accounting="sound")), "table2", "DP-MERF")
    assert (cells["Accounting"], cells["MNIST gen2real CNN ↑ paper"], cells["MNIST gen2real CNN ↑ ours"]) == (
        "sound", "0.82", "0.780"
    )  # fmt: skip


def test_references_stand_last_and_are_marked(tables):
    free = {"epsilon": math.inf, "accounting": "none"}
    folder = tables(score("real", "is", 9.9, **free), score("nonprivate", "is", 9.0, **free), score("zoo", "is", 1.0))
    assert [r["Method"] for r in rows(folder, "table1")][-3:] == [
        "zoo", "Same GAN without noise (reference)", "Real data (reference)"
    ]  # fmt: skip
    assert rows(folder, "table1")[-1]["ε sound"] == "∞"


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_under_two_presets_is_no_run_of_two_seeds(tables, seed):
    with pytest.raises(UserError, match="dpac on mnist at epsilon 10 was measured under the presets quick and long"):
        tables(score("dpac", "is", 3.0), score("dpac", "is", 5.0, preset="long", seed=seed))
    # Other runs may be of another preset: the note under a table names both.
    assert "Preset: long, quick" in (tables(score("dpac", "is", 3.0), score("dp_gauss", "is", 5.0, preset="long"))
                                     / "table1.md").read_text()  # fmt: skip


def test_the_note_says_preset_samples_and_what_the_paper_s_fid_is(tables):
    folder = tables(score("dpac", "is", 1.0), num_samples=10000)
    text = (folder / "table1.md").read_text()
    assert "Preset: quick; each measured score uses 10000 generated images." in text
    assert "prc_images" not in text and "prc_images" in (folder / "table6.md").read_text()
    assert "The paper's FID uses Inception features." in text
    assert "the method's authors counted" in text


def test_latex_columns_line_up_and_special_characters_are_escaped(tables):
    text = (tables(score("my_run", "is", 1.0)) / "table1.tex").read_text()
    assert r"my\_run" in text and "ε" not in text and "↑" not in text
    width = len(text.split(r"\begin{tabular}{")[1].split("}")[0])
    body = text.split(r"\midrule", 1)[1].split(r"\bottomrule")[0]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 9
    assert {line.count("&") for line in lines} == {width - 1}


def test_equal_scores_give_equal_bytes(tables):
    scores = [score("dpac", "is", 3.0), score("foo", "is", 2.0), score("real", "is", 9.0, epsilon=math.inf)]
    first = {path.name: path.read_bytes() for path in tables(*scores).glob("table*")}
    assert len(first) == 15
    assert first == {path.name: path.read_bytes() for path in tables(*reversed(scores)).glob("table*")}


def test_the_command_takes_an_inline_layout(tmp_path, capsys):
    write_scores(tmp_path / "scores.csv", [score("dpac", "is", 3.0)])
    paths = ["--scores", str(tmp_path / "scores.csv"), "--published", str(PUBLISHED), "--out", str(tmp_path / "out")]
    inline = """{"runs": {"dpac": "Ours"}, "datasets": {"mnist": "MNIST"}, "tables": {"t": {"title": "T",
        "datasets": ["mnist"], "metrics": ["is"], "rows": ["dpac"]}}}"""
    assert main([*paths, "--layout", inline]) == 0
    assert markdown((tmp_path / "out/t.md").read_text())[0]["MNIST IS ↑ ours"] == "3.00"
    assert main([*paths, "--layout", inline.replace("tables", "tabels")]) == 2
    assert "did you mean 'tables'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("tabels",), {}, "unknown key of layout (top level) 'tabels'; did you mean 'tables'? valid: audit, claims,"),
        (("tables", "table1", "metrcs"), [], "unknown key of layout tables.table1 'metrcs'"),
        (("tables", "table1", "metrics"), ["iss"], "unknown metric in layout tables.table1.metrics 'iss'"),
        (("tables", "table1", "datasets"), ["mnits"], "unknown data set in layout tables.table1.datasets 'mnits'"),
        (("tables", "table1", "rows"), ["dpca"], "unknown run in layout tables.table1.rows 'dpca'"),
        (("tables", "table1", "rows"), "dpac", "layout tables.table1.rows: must be of type list, got 'dpac'"),
        (("tables", "table1"), {"title": "T"}, "layout tables.table1: missing metrics"),
        (("metrics",), {}, "unknown key of layout (top level) 'metrics'"),
        (("figures", "figure3", "images_per_class"), True, "must be of type int, got True"),
        (("published_costs", "table5", "colums"), {}, "unknown key of layout published_costs.table5 'colums'"),
        (("published_costs", "table5", "columns", "noise", "decimals"), "3", "noise.decimals: must be of type int"),
        (("audit", "table7", "columns", "uses", "decimals"), -1, "audit.table7.columns.uses.decimals: must not be"),
        (("frontier", "table8", "datasets"), ["mnits"], "unknown data set in layout frontier.table8.datasets 'mnits'"),
        (("frontier", "table8", "best"), -3, "layout frontier.table8.best: must not be negative, got -3"),
        (("runs", "dpac"), 3, "layout runs.dpac: must be of type str, got 3"),
    ],
)
def test_a_misspelt_layout_is_named_with_what_is_valid(place, value, message):
    layout = yaml.safe_load(LAYOUT.read_text())
    target = layout
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    with pytest.raises(UserError) as error:
        parse_layout(layout)
    assert message in str(error.value)


def test_a_missing_or_malformed_layout_is_bad_input(tmp_path, capsys):
    write_scores(tmp_path / "s.csv", [score("dpac", "is", 3.0)])
    paths = ["--scores", str(tmp_path / "s.csv"), "--published", str(PUBLISHED), "--out", str(tmp_path / "o")]
    for layout in (str(tmp_path / "none.yaml"), '{"tables": ', "[]"):
        assert main([*paths, "--layout", layout]) == 2
    assert capsys.readouterr().err.count("error: ") == 3


def alone(folder: Path, datasets: list[str], *scores: Score) -> Path:
    write_tables(DEFAULT.only(datasets), scores, read_scores(PUBLISHED), folder)
    return folder


def test_own_data_sets_alone_have_their_own_columns_and_no_row_of_the_paper(tmp_path):
    folder = alone(
        tmp_path, ["moles", "lesions"], score("dpac", "is", 2.5, dataset="lesions"),
        score("dp_merf", "is", 3.5, dataset="moles"), score("mine", "is", 1.5, dataset="moles"),
        score("dpac", "is", 9.0, dataset="mnist"),
    )  # fmt: skip
    assert sorted(path.stem for path in folder.glob("*.md")) == ["table1", "table2", "table3", "table6"]
    columns = [column for column in rows(folder, "table1")[0] if "IS" in column]
    assert columns == ["moles IS ↑ ours", "lesions IS ↑ ours"]
    assert [cells["Method"] for cells in rows(folder, "table1")] == ["DP-MERF", "DP-GAN-DPAC", "mine"]
    assert "paper" not in (folder / "table1.md").read_text()


def test_a_paper_s_data_set_next_to_an_own_one_brings_its_published_column(tmp_path):
    folder = alone(
        tmp_path, ["lesions", "fashion_mnist"], score("dpac", "is", 2.5, dataset="lesions"),
        score("dpac", "is", 8.0, dataset="fashion_mnist"),
    )  # fmt: skip
    columns = [column for column in rows(folder, "table1")[0] if " IS " in column]
    assert columns == ["lesions IS ↑ ours", "F-MNIST IS ↑ paper", "F-MNIST IS ↑ ours"]
    assert not any("MNIST" in head and "F-MNIST" not in head for head in rows(folder, "table1")[0])
    assert not any("lesions" in head for head in rows(folder, "table4")[0])
    assert "G-PATE" in {cells["Method"] for cells in rows(folder, "table1")}


@pytest.mark.parametrize(
    ("datasets", "tables", "figures", "costs"),
    [
        (["lesions"], {1, 2, 3, 6}, {3}, False),
        (["lesions", "mnist"], {1, 2, 3, 6}, {3}, True),
        (["fashion_mnist", "celeba"], {1, 2, 3, 4, 6}, {3, 4}, True),
    ],
)
def test_what_would_show_no_configured_data_set_is_left_out(datasets, tables, figures, costs):
    layout = DEFAULT.only(datasets)
    assert set(layout.tables) == {f"table{number}" for number in tables}
    assert set(layout.figures) == {f"figure{number}" for number in figures}
    assert bool(layout.published_costs) == bool(layout.frontier) == costs and layout.audit == DEFAULT.audit
    assert [table.datasets for table in layout.frontier.values()] in ([], [[d for d in datasets if d != "lesions"]])
    assert layout.figures["figure3"].datasets == datasets


def test_the_command_shows_the_named_data_sets_alone(tmp_path):
    write_scores(tmp_path / "scores.csv", [score("dpac", "is", 2.5, dataset="lesions")])
    paths = ["--scores", str(tmp_path / "scores.csv"), "--published", str(PUBLISHED), "--layout", str(LAYOUT)]
    assert main([*paths, "--datasets", "lesions", "--out", str(tmp_path / "alone")]) == 0
    assert main([*paths, "--out", str(tmp_path / "all")]) == 0
    assert not (tmp_path / "alone/table4.md").exists() and (tmp_path / "all/table4.md").exists()


def test_a_claimed_epsilon_is_marked_in_every_table_and_explained_where_there_is_one(tables):
    ours = score("dp_gauss", "g2r_cnn", 0.9, accounting="sound")
    folder = tables(ours, score("theirs", "g2r_cnn", 0.95, accounting="claimed"))
    (row,) = (row for row in rows(folder, "table2") if row["Method"].startswith("theirs"))
    assert row["Method"] == "theirs (ε claimed)" and row["Accounting"] == "claimed" and row["ε sound"] == NOT_MEASURED
    assert "nothing here has counted or checked it" in (folder / "table2.md").read_text()
    assert "claimed" not in (tables(ours) / "table2.md").read_text()


def test_what_tuning_would_have_cost_stands_under_the_table_of_what_runs_spent(tmp_path):
    head = "run,dataset,runs,delta,eps_sum,eps_together"
    lines = ["dpac,mnist_val,8,1e-05,44,20", "dpac,fashion_mnist_val,8,1e-05,44,21.46", "dp_ntk,mnist_val,4,1e-05,2,9"]
    (tmp_path / "costs.csv").write_text("\n".join([head, *lines]))
    write_scores(tmp_path / "scores.csv", [score("dpac", "eps_sound", 9.1)])
    files = {"--scores": tmp_path / "scores.csv", "--published": PUBLISHED, "--layout": LAYOUT, "--out": tmp_path}
    arguments = [str(word) for pair in files.items() for word in pair]
    assert main(arguments) == 0
    assert "Tuning" not in (tmp_path / "table6.md").read_text()
    assert main([*arguments, "--tuning", str(tmp_path / "costs.csv")]) == 0
    # The most of any data set, of the rows shown.
    said = "would have cost ε by the sound count, at δ 1e-05: dpac 21.5 (8 runs)."
    assert said in (tmp_path / "table6.md").read_text()
    assert "Tuning" not in (tmp_path / "table1.md").read_text()
