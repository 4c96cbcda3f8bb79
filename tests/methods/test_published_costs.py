"""What published settings spend: the authors' own figures are met, and each kind of release is counted as it is."""

from __future__ import annotations

import csv
import dataclasses
import math
import re
from pathlib import Path

import pytest
import yaml

from methods.__main__ import main
from methods.commands.account import DATASETS
from methods.commands.published_costs import authors_count, costs_of, read_settings
from methods.core import registry
from methods.core.accounting.calibration import epsilon
from workflow.common.errors import UserError

PATH = Path(__file__).resolve().parents[2] / "results/published/settings.yaml"
BUDGETS, SETTINGS = read_settings(PATH)
BY_KEY = {(one.method, one.dataset, one.epsilon): one for one in SETTINGS}


def line(method: str, dataset: str, epsilon: float, budgets=()) -> dict[str, str]:
    return costs_of(BY_KEY[method, dataset, epsilon], budgets)


@pytest.mark.parametrize(
    ("key", "figure"),
    [
        # Recomputed from the authors' own formula, or printed in their repositories.
        (("gs_wgan", "mnist", 10), 9.9926),
        (("gs_wgan", "celeba", 10), 9.9993),
        (("dpac", "mnist", 10), 9.9926),
        (("dpac", "celeba", 10), 9.9993),
        (("dp_cgan", "mnist", 10), 9.60),
        (("dp_merf", "mnist", 1), 0.980),
        (("dp_merf", "fashion_mnist", 0.2), 0.193),
        (("dp_sinkhorn", "mnist", 10), 10.0003),
        (("dp_sinkhorn", "fashion_mnist", 10), 10.0012),
        (("dp_sinkhorn", "celeba", 10), 10.003),
        (("dpgan", "mnist", 10), 9.99),
        (("dpgan", "mnist", 1), 0.996),
        (("dpgan", "celeba", 10), 9.98),
    ],
)
def test_the_authors_count_is_met_to_a_hundredth(key, figure):
    assert authors_count(BY_KEY[key]) == pytest.approx(figure, abs=0.01)


@pytest.mark.parametrize("method", ["datalens", "g_pate"])
def test_teachers_settings_stop_just_below_what_their_authors_print(method):
    for setting in (one for one in SETTINGS if one.method == method):
        assert 0.9 * setting.printed < authors_count(setting) <= setting.printed * 1.005


@pytest.mark.parametrize(
    ("key", "released_counted", "released", "kind", "described"),
    [
        (("dpac", "mnist", 10), 146.56, 28603.5, "bound", 610.344),
        (("dpac", "celeba", 10), 182.31, 58654.9, "bound", 980.948),
        (("gs_wgan", "celeba", 10), 9.9993, 980.948, "bound", 980.948),
        (("dp_cgan", "mnist", 10), 69.88, 58.98, "conditional", None),
        (("dp_merf", "mnist", 1), 0.980, 0.725522, "conditional", 0.725522),
    ],
)
def test_released_code_costs_what_is_known_of_it(key, released_counted, released, kind, described):
    found = line(*key)
    assert float(found["eps_released_counted"]) == pytest.approx(released_counted, abs=0.01)
    assert float(found["eps_released_sound"]) == pytest.approx(released, rel=1e-3)
    assert found["eps_released_sound_is"] == kind
    if described:
        assert float(found["eps_described_sound"]) == pytest.approx(described, rel=1e-3)


def test_batches_of_32_and_28_in_turn_are_bounded_close_to_their_exact_cost():
    # 574.25: the binomial mixture over visits that alternate exactly, 20,001 steps.
    found = line("gs_wgan", "mnist", 10)
    assert float(found["eps_counted"]) - 0.7 < float(found["eps_released_counted"]) < float(found["eps_counted"])
    assert 574.25 <= float(found["eps_released_sound"]) < 574.25 * 1.002


def test_a_code_without_a_known_bound_has_none_and_a_setting_without_noise_no_cost():
    found = line("datalens", "mnist", 10)
    assert (found["eps_released_sound"], found["eps_released_sound_is"]) == ("", "none known")
    assert float(found["noise"]) == pytest.approx(800 / (2 * math.sqrt(300)), rel=1e-4)
    found = line("pate_gan", "mnist", 10)
    assert found["eps_counted"] == found["eps_described_sound"] == found["eps_printed"] == ""


SHARING = [one for one in SETTINGS if one.method in ("datalens", "g_pate")]


@pytest.mark.parametrize("setting", SHARING, ids=lambda setting: setting.name)
def test_what_the_table_says_of_shared_moments_is_what_the_rows_as_released_are_counted_at(setting):
    key = setting.method, setting.dataset, setting.epsilon
    paper = registry.paper_settings(*key) if registry.has_paper_settings(*key) else {}
    hp = registry.hyper(setting.method, paper | {"as_released": True})
    (release,) = registry.load(setting.method).releases(hp, DATASETS[setting.dataset], 0.0)
    spent = epsilon([dataclasses.replace(release, noise=setting.scale / release.sensitivity)], 1e-5, "sound")
    (told,) = re.findall(r"moments, alone ε ≤ ([\d,]+);", setting.behaviour)
    assert int(told.replace(",", "")) == math.ceil(spent)


def test_the_noise_for_a_budget_is_found_at_the_setting():
    found = line("dp_merf", "mnist", 1, [10.0, 1.0])
    assert float(found["noise_for_10"]) == pytest.approx(0.49989, rel=1e-3)
    assert float(found["noise_for_1"]) == pytest.approx(3.73063, rel=1e-3)
    assert float(line("gs_wgan", "mnist", 10, [10.0])["noise_for_10"]) == pytest.approx(14.02, rel=2e-3)


def test_every_published_setting_of_a_method_has_its_line():
    published = {
        (name, dataset, epsilon)
        for name in registry.names() for dataset, epsilon in registry.load(name).PAPER
    }  # fmt: skip
    unproved = {("dp_kernel", dataset, 10) for dataset in ("mnist", "fashion_mnist", "celeba")}
    assert published <= set(BY_KEY) and set(BY_KEY) - published == {("pate_gan", "mnist", 10)} | unproved


def test_a_mechanism_without_a_proof_has_no_number_and_says_so():
    found = line("dp_kernel", "mnist", 10, [10.0, 1.0])
    assert found["eps_released_sound_is"] == found["eps_described_sound_is"] == "no epsilon proved"
    assert "without noise" in found["behaviour"] and found["eps_printed"] == "10"
    empty = ("eps_counted", "eps_released_counted", "eps_released_sound", "eps_described_sound", "noise_for_10")
    assert [found[name] for name in (*empty, "noise_for_1", "noise")] == [""] * 7
    assert list(found) == list(line("dp_merf", "mnist", 1, [10.0, 1.0]))


def write(folder: Path, change) -> str:
    content = {"budgets": [10], "settings": [{
        "method": "dp_merf", "dataset": "mnist", "epsilon": 1, "printed": 1, "setting": "one release", "noise": 5,
        "count": "classic", "released": "as_described", "behaviour": "as described", "source": "paper",
    }]}  # fmt: skip
    change(content)
    (folder / "settings.yaml").write_text(yaml.safe_dump(content))
    return str(folder / "settings.yaml")


def test_the_command_writes_a_line_for_each_setting_and_tells_how_far_it_is(tmp_path, capsys):
    path = write(tmp_path, lambda content: None)
    assert main(["published-costs", "--settings", path, "--out", str(tmp_path / "out.csv")]) == 0
    shown = capsys.readouterr()
    assert "1/1: dp_merf on mnist at epsilon 1" in shown.err and shown.out == ""
    with (tmp_path / "out.csv").open(newline="") as handle:
        (found,) = csv.DictReader(handle)
    assert float(found["eps_described_sound"]) == pytest.approx(0.725522, abs=1e-6)
    assert main(["published-costs", "--settings", path]) == 0
    assert capsys.readouterr().out == (tmp_path / "out.csv").read_text()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["settings"][0].update(method="dp_mref"), "unknown method 'dp_mref'; did you mean 'dp_merf'?"),
        (lambda c: c["settings"][0].update(dataset="svhn"), "unknown data set of a published setting 'svhn'"),
        (lambda c: c["settings"][0].update(nosie=5), "unknown key of setting 1"),
        (lambda c: c["settings"][0].pop("source"), "setting 1"),
        (lambda c: c["settings"][0].update(count="rdp"), "count of dp_merf on mnist at epsilon 1 must be published or"),
        (lambda c: c["settings"][0].update(released="same"), "as_described, unknown"),
        (lambda c: c["settings"][0].update(released=[{"name": "a", "bounded": "sum"}]), "needs one of noise and scale"),
        (lambda c: c["settings"][0].update(released=[{"name": "a", "noise": 1.0}]), "not a release"),
        (lambda c: c.update(settings=[]), "must hold `budgets` and a list of `settings`"),
        (lambda c: c.update(budgets=[0]), "budgets must be a list of numbers above 0"),
    ],
)
def test_bad_settings_are_one_line_and_exit_code_2(tmp_path, capsys, change, says):
    assert main(["published-costs", "--settings", write(tmp_path, change)]) == 2
    errors = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1 and says in errors[0]


def test_one_method_can_be_asked_alone(capsys):
    assert main(["published-costs", "--method", "dp_merf"]) == 0
    found = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert {line["method"] for line in found} == {"dp_merf"} and len(found) == 4
    assert main(["published-costs", "--method", "dp_mref"]) == 2
    assert "unknown method with a published setting 'dp_mref'; did you mean 'dp_merf'?" in capsys.readouterr().err


def test_a_missing_file_is_bad_input(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_settings(tmp_path / "none.yaml")
