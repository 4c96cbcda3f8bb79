"""The command that answers what a setting costs and what noise a budget needs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from methods.__main__ import main
from workflow.common.files import write_json


def answer(capsys, *arguments: str) -> str:
    assert main(["account", *arguments]) in (0, None)
    return capsys.readouterr().out


def costs(text: str, line: str) -> list[float]:
    """The published and the sound epsilon of the line that starts with `line`."""
    (found,) = [entry for entry in text.splitlines() if entry.startswith(line)]
    return [float(value) for value in re.findall(r"epsilon ([\d.e+]+) by the \w+ count", found)][-2:]


def test_the_published_setting_of_gs_wgan_costs_what_is_known_of_it(capsys):
    text = answer(capsys, "gs_wgan", "--paper", "--noise", "1.07")
    assert costs(text, "noise 1.07") == pytest.approx([9.993, 610.4], abs=0.1)
    assert "20000 uses, 32 rows of one shard of 1000, replace_one, hidden state" in text


def test_the_noise_found_meets_each_budget_by_its_count(capsys):
    text = answer(capsys, "dp_merf", "--epsilon", "10,1", "--records", "500")
    assert "500 records" in text
    assert "needs noise 0.4999" in text and "needs noise 3.73" in text
    for budget in (10, 1):
        assert costs(text, f"epsilon {budget} by the sound")[1] == pytest.approx(budget, rel=1e-3)


def test_a_plan_that_the_found_noise_does_not_pay_for_is_said_to_exceed_the_budget(capsys):
    text = answer(capsys, "dpac", "--paper", "--set", "as_released=true", "--noise", "1.07")
    assert costs(text, "noise 1.07") == pytest.approx([146.56, 28604], rel=1e-3)
    assert "14000 uses, 2000 rows of one shard of 1000" in text
    assert text.count("is exceeded at the plan's noise") == 2 and "needs noise" not in text


def test_settings_change_the_answer(capsys):
    few, many = (
        costs(answer(capsys, "dp_cgan", "--noise", "1", "--set", f"steps={steps}"), "noise 1") for steps in (100, 1000)
    )
    assert few[0] < many[0] and few[1] < many[1]


def prepare(folder: Path, name: str = "lesions", count: int = 400) -> Path:
    """Writes the card of a set of `count` training records, as the data stage does, into `folder`."""
    card = {"dataset": name, "image_shape": [3, 32, 32], "num_classes": 3, "splits": {"train": {"count": count}}}
    write_json(folder / "card.json", card)
    return folder


@pytest.mark.parametrize("verb", ["account", "audit"])
def test_a_set_made_before_is_known_by_its_name_its_folder_and_its_card(tmp_path, monkeypatch, capsys, verb):
    monkeypatch.chdir(tmp_path)
    Path("lesions").mkdir()  # the pictures, which hold no card
    prepare(Path("results/mine/data/lesions"))
    prepare(Path("results/other/data/lesions"))
    prepare(Path("elsewhere"), count=900)
    for name, count in (("lesions", 400), ("elsewhere", 900), ("elsewhere/card.json", 900)):
        extra = ["--set", "features=50"] + ["--seconds", "0.1", "--uses", "1"] * (verb == "audit")
        assert main([verb, "dp_merf", "--dataset", name, *extra]) in (0, None)
        out = capsys.readouterr().out
        assert f"on lesions, {count} records" in out if verb == "account" else ",lesions," in out


def test_a_name_of_sets_with_other_facts_is_refused_with_their_paths(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    prepare(Path("results/mine/data/lesions"))
    prepare(Path("results/other/data/lesions"), count=401)
    assert main(["account", "dp_merf", "--dataset", "lesions"]) == 2
    error = capsys.readouterr().err
    for part in ("several data sets are called lesions", "results/mine/data/lesions/card.json: 400 of [3, 32, 32]",
                 "results/other/data/lesions/card.json: 401", "give the path of one"):  # fmt: skip
        assert part in error
    assert main(["account", "dp_merf", "--dataset", "lesoins"]) == 2
    error = capsys.readouterr().err
    assert "did you mean 'lesions'? valid: celeba, fashion_mnist, lesions, mnist (for pictures of your own" in error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["dp_mref"], "unknown method 'dp_mref'; did you mean 'dp_merf'? valid: "),
        (["dp_merf", "--dataset", "cifar10"], "unknown dataset 'cifar10'; valid: celeba, fashion_mnist, mnist"),
        (["dp_merf", "--set", "steps"], "--set takes KEY=VALUE, got 'steps'"),
        (["dp_merf", "--set", "stepz=3"], "unknown hyper-parameter of dp_merf 'stepz'; did you mean 'steps'? "),
        (["dp_merf", "--epsilon", "ten"], "epsilon must be a finite number above 0"),
        (["dp_merf", "--records", "0"], "--records must be at least 1, got 0"),
        (["dp_merf", "--paper"], "dp_merf for mnist at epsilon 10; valid: mnist at epsilon 1, "),
        (["pate_gan", "--paper"], "valid: none, leave out --paper"),
        (["dp_merf", "--noise", "-1"], "--noise must be a number from 0 to 1e+06, got -1"),
        (["nonprivate"], "nonprivate has no privacy"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)  # Data sets that were prepared in this checkout are valid too.
    assert main(["account", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_a_presets_row_is_counted_with_the_settings_that_follow_the_records(capsys):
    assert main(["account", "gs_wgan_sound", "--preset", "own", "--records", "600"]) == 0
    few = capsys.readouterr().out
    assert "100 uses" in few and "600 records" in few
    assert main(["account", "gs_wgan_sound", "--preset", "own", "--records", "600", "--set", "steps=7"]) == 0
    assert "7 uses" in capsys.readouterr().out
    assert main(["account", "gs_wgan_sond", "--preset", "own"]) == 2
    assert "did you mean 'gs_wgan_sound'" in capsys.readouterr().err


def test_any_row_of_a_preset_is_counted_whatever_holds_it_to_its_budget(capsys):
    assert main(["account", "gs_wgan", "--preset", "quick"]) == 0
    assert "640 uses, 256 rows of one shard of 1000" in capsys.readouterr().out
    assert main(["account", "dpac_as_released", "--preset", "quick"]) == 0
    assert "is exceeded at the plan's noise" in capsys.readouterr().out


def test_a_row_of_a_preset_of_published_settings_is_counted_with_these(capsys):
    known = ["account", "datalens", "--dataset", "fashion_mnist"]
    assert main([*known, "--paper"]) == 0
    published = capsys.readouterr().out
    assert main([*known, "--preset", "paper"]) == 0
    assert capsys.readouterr().out == published and "146 uses" in published
    # None are published at this budget, so the preset takes the defaults.
    assert main([*known, "--preset", "paper", "--epsilon", "3"]) == 0
    assert "109 uses" in capsys.readouterr().out


def test_a_setting_that_follows_the_records_is_written_as_the_error_advises(capsys):
    known = ["account", "dp_cgan", "--records", "400"]
    assert main(known) == 2 and "{one_per: 4, at_most: 512}" in capsys.readouterr().err
    assert main([*known, "--set", "batch_size={one_per: 4, at_most: 512}", "--set", "steps=9"]) == 0
    assert "9 uses, one sum of a Poisson batch of rate 0.25" in capsys.readouterr().out
