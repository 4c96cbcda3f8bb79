"""What a reader finds in the tables: both sources side by side, the missing marked, every measured run shown."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

import pytest
import yaml

from evaluation.report.layout import load_layout, parse_layout
from evaluation.report.render import NOT_MEASURED, NOT_REPORTED
from evaluation.report.tables import main, write_tables
from workflow.common.contracts import METRICS
from workflow.common.errors import UserError
from workflow.common.scores import Score, read_scores, write_scores

ROOT = Path(__file__).resolve().parents[2]
LAYOUT, PUBLISHED = ROOT / "workflow/config/report.yaml", ROOT / "results/published/scores.csv"
DEFAULT = load_layout(str(LAYOUT))
# As `python -m methods accounts` writes them.
ACCOUNTS = (
    "method,dataset,epsilon,setting,noise,eps_printed,eps_counted,behaviour,eps_released_counted,eps_released_sound,"
    "eps_released_sound_is,eps_described_sound,eps_described_sound_is,noise_for_10,noise_for_1\n"
    "datalens,mnist,10,109 rounds,23.094,10,9.971,shared,,,none known,8.497,tight,20.2,150.8\n"
    "dp_cgan,mnist,10,30000 steps,1.12,9.6,9.6,apart,69.9,58.98,conditional,9.57,tight,1.09,6.5\n"
    "gs_wgan,mnist,10,a_b,1.07,10,9.99262,in turn,9.3,574.704,bound,610.344,bound,14.02,100.8\n"
    "pate_gan,mnist,10,none,,,,tables,,,none known,,none known,500,4000\n"
)


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
        (tmp_path / "accounts.csv").write_text(ACCOUNTS)
        write_tables(DEFAULT, scores, read_scores(PUBLISHED), tmp_path, num_samples, tmp_path / "accounts.csv")
        return tmp_path

    return build


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    return markdown((folder / f"{name}.md").read_text())


def row(folder: Path, name: str, method: str, epsilon: str = "10") -> dict[str, str]:
    (found,) = [row for row in rows(folder, name) if (row["Method"], row["ε"]) == (method, epsilon)]
    return found


def test_published_and_measured_stand_side_by_side_and_the_missing_is_marked(tables):
    folder = tables(score("dpac", "is", 3.14159))
    found = row(folder, "table1", "DP-GAN-DPAC")
    assert (found["MNIST IS ↑ paper"], found["MNIST IS ↑ ours"]) == ("9.71", "3.14")
    assert (found["F-MNIST IS ↑ paper"], found["F-MNIST IS ↑ ours"]) == ("6.60", NOT_MEASURED)
    assert row(folder, "table1", "DP-MERF")["MNIST IS ↑ paper"] == NOT_REPORTED
    assert row(folder, "table2", "DP-GAN-DPAC")["MNIST gen2real MLP ↑ paper"] == NOT_REPORTED  # the illegible cell


def test_the_paper_s_rows_are_shown_without_any_measurement(tables):
    folder = tables()
    assert [len(rows(folder, f"table{n}")) for n in (1, 2, 3, 4)] == [8, 7, 2, 6]
    assert row(folder, "table1", "GS-WGAN")["F-MNIST FID (Inception) ↓ paper"] == "131.34"
    assert row(folder, "table4", "Baseline (GS-WGAN)")["F-MNIST FID (Inception) ↓ paper"] == "131.24"
    assert row(folder, "table1", "DP-CGAN")["MNIST FID (Inception) ↓ paper"] == "179.20"  # as printed


def test_classifier_fid_never_shares_a_column_with_the_paper_s_fid(tables):
    found = row(tables(score("dpac", "fid_classifier", 12.0)), "table1", "DP-GAN-DPAC")
    assert found["MNIST FID (classifier) ↓ ours"] == "12.00"
    assert (found["MNIST FID (Inception) ↓ paper"], found["MNIST FID (Inception) ↓ ours"]) == ("54.06", NOT_MEASURED)
    assert "MNIST FID (classifier) ↓ paper" not in found


def test_several_seeds_become_mean_spread_and_count(tables):
    folder = tables(*(score("dpac", "g2r_cnn", value, seed=seed) for seed, value in enumerate((0.5, 0.6, 0.7))))
    assert row(folder, "table2", "DP-GAN-DPAC")["MNIST gen2real CNN ↑ ours"] == "0.600 ± 0.100 (3)"
    assert "sample standard deviation" in (folder / "table2.md").read_text()
    (found,) = [r for r in read_csv(folder / "table2.csv") if r["method"] == "DP-GAN-DPAC"]
    parts = [found[f"mnist_g2r_cnn_measured_{part}"] for part in ("mean", "std", "n")]
    assert parts == ["0.6", "0.1", "3"]
    assert found["mnist_g2r_cnn_published"] == "0.88"
    assert found["celeba_g2r_cnn_measured_mean"] == ""


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
    found = row(tables(score("dpac", "is", 1.5, dataset="celeba10k")), "table1", "DP-GAN-DPAC")
    assert (found["CelebA-10k IS ↑ ours"], found["CelebA IS ↑ ours"], found["CelebA IS ↑ paper"]) == (
        "1.50", NOT_MEASURED, "1.90"
    )  # fmt: skip


def test_each_epsilon_has_its_row_and_the_paper_s_numbers_stay_at_theirs(tables):
    folder = tables(score("dpac", "is", 3.0), score("dpac", "is", 2.0, epsilon=1.0))
    assert row(folder, "table1", "DP-GAN-DPAC", "10")["MNIST IS ↑ paper"] == "9.71"
    found = row(folder, "table1", "DP-GAN-DPAC", "1")
    assert (found["MNIST IS ↑ paper"], found["MNIST IS ↑ ours"]) == (NOT_REPORTED, "2.00")
    assert [r["ε"] for r in rows(folder, "table1")][-1] == "1"


def test_the_ledger_columns_show_the_largest_spent_epsilon(tables):
    spent = [("mnist", 9.1), ("fashion_mnist", 146.6)]
    folder = tables(*(score("dpac", "eps_sound", value, dataset=dataset) for dataset, value in spent))
    assert row(folder, "table1", "DP-GAN-DPAC")["ε sound"] == "146.60"
    assert [r["ε sound"] for r in rows(folder, "table6")] == ["9.10", "146.60"]
    folder = tables(score("dpac", "eps_sound", math.inf))
    assert row(folder, "table1", "DP-GAN-DPAC")["ε sound"] == "∞"


def test_a_soundly_accounted_run_still_stands_beside_its_paper_row(tables):
    found = row(tables(score("dp_merf", "g2r_cnn", 0.78, accounting="sound")), "table2", "DP-MERF")
    assert (found["Accounting"], found["MNIST gen2real CNN ↑ paper"], found["MNIST gen2real CNN ↑ ours"]) == (
        "sound", "0.82", "0.780"
    )  # fmt: skip


def test_references_stand_last_and_are_marked(tables):
    free = {"epsilon": math.inf, "accounting": "none"}
    folder = tables(score("real", "is", 9.9, **free), score("nonprivate", "is", 9.0, **free), score("zoo", "is", 1.0))
    assert [r["Method"] for r in rows(folder, "table1")][-3:] == [
        "zoo", "Same GAN without noise (reference)", "Real data (reference)"
    ]  # fmt: skip
    assert rows(folder, "table1")[-1]["ε sound"] == "∞"


def test_the_note_says_preset_samples_and_what_the_paper_s_fid_is(tables):
    folder = tables(score("dpac", "is", 1.0), num_samples=10000)
    text = (folder / "table1.md").read_text()
    assert "Preset: quick; each measured score uses 10000 generated images." in text
    assert "prc_images" not in text and "prc_images" in (folder / "table6.md").read_text()
    assert "The paper's FID uses Inception features." in text
    assert "the method's authors counted" in text


def test_what_published_settings_spend_is_shown_with_bounds_marked_and_the_unknown_named(tables):
    folder = tables()
    pate_gan, dp_cgan, datalens, gs_wgan = rows(folder, "table5")
    assert gs_wgan["Method"] == "GS-WGAN" and gs_wgan["ε as the authors count"] == "9.99"
    assert gs_wgan["released code, sound"] == "≤ 574.70"
    assert gs_wgan["as described and in this suite, sound"] == "≤ 610.34"
    assert datalens["released code, sound"] == "none known"
    assert dp_cgan["released code, sound"] == "(58.98)"
    assert datalens["as described and in this suite, sound"] == "8.50"
    assert pate_gan["ε printed"] == pate_gan["released code, sound"] == NOT_REPORTED
    assert (folder / "table5.csv").read_text() == ACCOUNTS
    tex = (folder / "table5.tex").read_text()
    assert r"$\leq$ 574.70" in tex and r"a\_b" in tex
    body = tex.split(r"\toprule")[1].split(r"\bottomrule")[0]
    width = len(tex.split(r"\begin{tabular}{")[1].split("}")[0])
    assert {line.count("&") for line in body.splitlines() if line.endswith(r"\\")} == {width - 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "layout accounts.table5 needs --accounts"),
        ("", "has no lines"),
        (ACCOUNTS.replace("eps_counted,", "eps,"), "have no column eps_counted"),
        (ACCOUNTS.replace("574.704,bound", "574.704,guess"), "conditional or none known, got 'guess'"),
        (ACCOUNTS.replace("9.99262", "ten"), "eps_counted must be a number, got 'ten'"),
    ],
)
def test_accounts_that_are_missing_or_wrong_are_bad_input(tmp_path, text, message):
    path = None if text is None else tmp_path / "accounts.csv"
    if path:
        path.write_text(text)
    with pytest.raises(UserError, match=re.escape(message)):
        write_tables(DEFAULT, [], read_scores(PUBLISHED), tmp_path, accounts=path)


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
    assert len(first) == 18
    assert first == {path.name: path.read_bytes() for path in tables(*reversed(scores)).glob("table*")}


def test_the_command_takes_an_inline_layout(tmp_path, capsys):
    write_scores(tmp_path / "scores.csv", [score("dpac", "is", 3.0)])
    paths = ["--scores", str(tmp_path / "scores.csv"), "--published", str(PUBLISHED), "--out", str(tmp_path / "out")]
    inline = """{"runs": {"dpac": "Ours"}, "datasets": {"mnist": "MNIST"}, "tables": {"t": {"title": "T",
        "datasets": ["mnist"], "metrics": ["is"], "rows": ["dpac"]}}, "metrics": {%s}}"""
    metrics = [f'"{m}": {{"label": "{m}", "decimals": 1, "published_decimals": 2}}'
               for m in ("is", "eps_sound", "eps_published")]  # fmt: skip
    assert main([*paths, "--layout", inline % ",".join(metrics)]) == 0
    assert markdown((tmp_path / "out/t.md").read_text())[0]["MNIST is ↑ ours"] == "3.0"
    assert main([*paths, "--layout", inline % metrics[0]]) == 2
    assert "no entry for eps_published" in capsys.readouterr().err


def test_the_default_layout_names_every_metric():
    assert set(DEFAULT.metrics) == set(METRICS)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("tabels",), {}, "unknown key of layout (top level) 'tabels'; valid: accounts, datasets, figures"),
        (("tables", "table1", "metrcs"), [], "unknown key of layout tables.table1 'metrcs'"),
        (("tables", "table1", "metrics"), ["iss"], "unknown metric in layout tables.table1.metrics 'iss'"),
        (("tables", "table1", "datasets"), ["mnits"], "unknown data set in layout tables.table1.datasets 'mnits'"),
        (("tables", "table1", "rows"), ["dpca"], "unknown run in layout tables.table1.rows 'dpca'"),
        (("tables", "table1", "rows"), "dpac", "layout tables.table1.rows: must be of type list, got 'dpac'"),
        (("tables", "table1"), {"title": "T"}, "layout tables.table1: missing metrics"),
        (("metrics", "iss"), {}, "unknown metric in layout metrics 'iss'"),
        (("metrics", "is", "decimals"), "2", "layout metrics.is.decimals: must be of type int, got '2'"),
        (("metrics", "is", "decimals"), -1, "layout metrics.is.decimals: must not be negative"),
        (("figures", "figure3", "images_per_class"), True, "must be of type int, got True"),
        (("accounts", "table5", "colums"), {}, "unknown key of layout accounts.table5 'colums'"),
        (("accounts", "table5", "columns", "noise", "decimals"), "3", "columns.noise.decimals: must be of type int"),
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
