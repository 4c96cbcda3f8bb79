"""The table of what published settings spend: bounds marked, the unknown named, bad input refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.report.published_costs import main
from evaluation.report.render import NOT_REPORTED

LAYOUT = str(Path(__file__).resolve().parents[2] / "workflow/config/report.yaml")
# As `python -m methods published-costs` writes them.
COSTS = (
    "method,dataset,epsilon,setting,noise,eps_printed,eps_counted,behaviour,eps_released_counted,eps_released_sound,"
    "eps_released_sound_is,eps_described_sound,eps_described_sound_is,noise_for_10,noise_for_1\n"
    "datalens,mnist,10,109 rounds,23.094,10,9.971,shared,,,none known,8.497,tight,20.2,150.8\n"
    "dp_cgan,mnist,10,30000 steps,1.12,9.6,9.6,apart,69.9,58.98,conditional,9.57,tight,1.09,6.5\n"
    "gs_wgan,mnist,10,a_b,1.07,10,9.99262,in turn,9.3,574.704,bound,610.344,bound,14.02,100.8\n"
    "dp_kernel,mnist,10,defaults,,10,,clean kernel,,,no epsilon proved,,no epsilon proved,,\n"
    "pate_gan,mnist,10,none,,,,tables,,,none known,,none known,500,4000\n"
)


def written(folder: Path, text: str) -> Path:
    """Writes the tables of a csv text into `folder` and returns it."""
    (folder / "costs.csv").write_text(text)
    assert main(["--published-costs", str(folder / "costs.csv"), "--layout", LAYOUT, "--out", str(folder)]) == 0
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    lines = [line for line in (folder / "table5.md").read_text().splitlines() if line.startswith("|")]
    head, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(head, cells, strict=True)) for cells in body]


def test_what_published_settings_spend_is_shown_with_bounds_marked_and_the_unknown_named(tmp_path):
    folder = written(tmp_path, COSTS)
    pate_gan, dp_cgan, datalens, gs_wgan, dp_kernel = rows(folder)
    assert gs_wgan["Method"] == "GS-WGAN" and gs_wgan["ε as the authors count"] == "9.99"
    assert gs_wgan["released code, sound"] == "≤ 574.70"
    assert gs_wgan["as described and in this suite, sound"] == "≤ 610.34"
    assert datalens["released code, sound"] == "none known"
    assert dp_cgan["released code, sound"] == "(58.98)"
    assert datalens["as described and in this suite, sound"] == "8.50"
    sound = {cell for head, cell in dp_kernel.items() if head.endswith(", sound")}
    assert sound == {"no epsilon proved"}
    assert (dp_kernel["ε printed"], dp_kernel["ε as the authors count"]) == ("10.0", NOT_REPORTED)
    assert pate_gan["ε printed"] == pate_gan["released code, sound"] == NOT_REPORTED
    assert (folder / "table5.csv").read_text() == COSTS
    tex = (folder / "table5.tex").read_text()
    assert r"$\leq$ 574.70" in tex and r"a\_b" in tex
    body = tex.split(r"\toprule")[1].split(r"\bottomrule")[0]
    width = len(tex.split(r"\begin{tabular}{")[1].split("}")[0])
    assert {line.count("&") for line in body.splitlines() if line.endswith(r"\\")} == {width - 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("", "is empty; it is written by python -m methods published-costs"),
        (COSTS.splitlines()[0] + "\n", "has no rows"),
        (COSTS.replace("eps_counted,", "eps,"), "lacks the columns eps_counted"),
        (COSTS.replace("574.704,bound", "574.704,guess"), "none known or no epsilon proved, got 'guess'"),
        (COSTS.replace("9.99262", "ten"), "line 4: eps_counted must be a number, got 'ten'"),
    ],
)
def test_costs_that_are_missing_or_wrong_are_one_line_and_exit_code_2(tmp_path, capsys, text, message):
    path = tmp_path / "costs.csv"
    if text is not None:
        path.write_text(text)
    assert main(["--published-costs", str(path), "--layout", LAYOUT, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
