"""The configuration: what is merged into what, which jobs come out, and how wrong input is reported."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from workflow.common import config
from workflow.common.errors import UserError

DATASETS = ("celeba", "digits", "mnist")
FIELDS = {"alpha": {"steps", "width"}, "beta": {"steps", "rate"}}
PRESET: dict[str, Any] = {
    "preset": "tiny",
    "datasets": {"mnist": {}, "celeba": {"optional": True}},
    "delta": 1e-5,
    "epsilons": [10],
    "seeds": [0],
    "methods": {"alpha": {"steps": 5, "width": 1, "per_dataset": {"celeba": {"width": 2}}}},
    "runs": {"alpha": {}, "beta": {"accounting": "sound"}, "ceiling": {"method": "alpha", "epsilons": [math.inf],
             "accounting": "none"}},
    "protocol": {"num_samples": 100},
}  # fmt: skip


class Methods:
    """Two methods, `alpha` and `beta`."""

    def names(self):
        return list(FIELDS)

    def fields(self, method):
        return FIELDS[method]

    def check(self, method, overrides):
        if overrides.get("steps", 1) < 1:
            raise UserError(f"{method}.steps must be at least 1")


@pytest.fixture
def load(tmp_path: Path):
    """Loads the preset `tiny`, with top-level keys replaced by `changes`, merged with `overrides`."""

    def loaded(overrides: dict[str, Any] | None = None, **changes: Any) -> config.Config:
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**PRESET, **changes}, sort_keys=False))
        return config.load(
            {"preset": "tiny", **(overrides or {})},
            datasets=DATASETS, methods=Methods(), protocol_keys=["num_samples", "batch_size"], folder=tmp_path,
        )  # fmt: skip

    return loaded


def names(loaded: config.Config) -> list[str]:
    return [job.folder("r").removeprefix("r/runs/") for job in loaded.jobs]


def test_the_grid_is_datasets_by_runs_by_epsilons_by_seeds(load):
    assert names(load(epsilons=[10, 1], seeds=[0, 1], runs={"alpha": {}})) == [
        f"{dataset}/alpha/eps{epsilon}/seed{seed}"
        for dataset in ("mnist", "celeba")
        for epsilon in (10, 1)
        for seed in (0, 1)
    ]


def test_a_run_keeps_its_own_epsilons_seeds_and_datasets(load):
    runs = {"alpha": {"epsilons": [2.5], "seeds": [7], "datasets": ["celeba"]}}
    assert names(load({"epsilons": "1,10"}, runs=runs)) == ["celeba/alpha/eps2.5/seed7"]


def test_a_run_without_a_method_is_named_after_it(load):
    found = {job.run: (job.method, job.accounting) for job in load().jobs}
    assert found == {"alpha": ("alpha", "published"), "beta": ("beta", "sound"), "ceiling": ("alpha", "none")}


def test_no_run_may_exceed_its_budget_unless_it_says_so(load):
    # Text, as Snakemake hands it over.
    loaded = load({"runs": {"beta": {"over_budget": "true"}, "other": {"method": "beta", "over_budget": False}}})
    assert {job.run for job in loaded.jobs if job.over_budget} == {"beta"}
    assert loaded.job("mnist", "beta", "3", "7").over_budget
    assert [name for name, run in loaded.summary()["runs"].items() if run["over_budget"]] == ["beta"]


def test_settings_merge_from_method_to_its_dataset_to_run_to_the_runs_dataset(load):
    methods = {"alpha": {"steps": 1, "width": 1, "per_dataset": {"celeba": {"steps": 2, "width": 2}}}}
    runs = {"base": {"method": "alpha"}, "wide": {"method": "alpha", "width": 3},
            "both": {"method": "alpha", "width": 3, "per_dataset": {"celeba": {"width": 4}}}}  # fmt: skip
    found = {(job.run, job.dataset): dict(job.hyper) for job in load(methods=methods, runs=runs).jobs}
    assert found["base", "mnist"] == {"steps": 1, "width": 1}
    assert found["base", "celeba"] == {"steps": 2, "width": 2}
    assert found["wide", "celeba"] == {"steps": 2, "width": 3}
    assert found["both", "celeba"] == {"steps": 2, "width": 4}
    assert found["both", "mnist"] == {"steps": 1, "width": 3}


def test_command_line_lists_choose_among_what_the_preset_has(load):
    assert names(load({"datasets": "mnist", "runs": "beta", "epsilons": "1,10", "seeds": "0, 3"})) == [
        f"mnist/beta/eps{epsilon}/seed{seed}" for epsilon in (1, 10) for seed in (0, 3)
    ]


def test_one_number_is_a_list_of_one(load):
    assert names(load({"runs": "alpha", "datasets": "mnist", "epsilons": 3, "seeds": 2})) == ["mnist/alpha/eps3/seed2"]


def test_a_dataset_asked_for_by_name_is_not_optional(load):
    assert load().optional == {"celeba"}
    assert load({"datasets": "celeba"}).optional == frozenset()


def test_command_line_mappings_are_merged_and_their_numbers_are_numbers(load):
    # Snakemake hands over the scalars inside a YAML mapping as text.
    loaded = load({"methods": {"alpha": {"width": "9"}}, "protocol": {"batch_size": "64"}})
    assert dict(loaded.jobs[0].hyper) == {"steps": 5, "width": 9}
    assert loaded.protocol == {"num_samples": 100, "batch_size": 64}


def test_a_run_can_be_added_by_a_configfile(load):
    assert "mnist/extra/eps10/seed0" in names(load({"runs": {"extra": {"method": "beta", "rate": 0.5}}}))


def test_leaving_out_a_dataset_keeps_the_others(load):
    assert {job.dataset for job in load().without(["celeba"]).jobs} == {"mnist"}


def test_leaving_out_every_dataset_is_an_error(load):
    with pytest.raises(UserError, match="no data set of preset 'tiny'"):
        load().without(["celeba", "mnist"])


def test_a_path_may_name_a_seed_or_epsilon_outside_the_grid(load):
    job = load().job("celeba", "alpha", "2.5", "9")
    assert (job.epsilon, job.seed, dict(job.hyper)) == (2.5, 9, {"steps": 5, "width": 2})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("mnist", "alpah", "10", "0"), "unknown run 'alpah'; did you mean 'alpha'"),
        (("mnits", "alpha", "10", "0"), "unknown data set 'mnits'; did you mean 'mnist'"),
        (("mnist", "alpha", "0", "0"), "epsilon must be a number above 0"),
        (("mnist", "alpha", "10.0", "0"), "must be written eps10"),
        (("mnist", "alpha", "inf", "0"), "does not go with epsilon inf"),
        (("mnist", "alpha", "10", "x"), "seed in a path must be an integer"),
    ],
)
def test_a_path_that_names_no_job_is_an_error(load, path, message):
    with pytest.raises(UserError, match=message):
        load().job(*path)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"preset": "tniy"}, ["unknown preset 'tniy'", "did you mean 'tiny'"]),
        ({"epsilns": 10}, ["unknown key 'epsilns' in tiny.yaml", "did you mean 'epsilons'", "datasets, delta"]),
        ({"epsilons": 0}, ["epsilon must be a number above 0", "0"]),
        ({"epsilons": "1,-3"}, ["epsilon must be a number above 0", "-3"]),
        ({"epsilons": "ten"}, ["epsilon must be a number above 0", "'ten'"]),
        ({"datasets": "mnits"}, ["unknown data set 'mnits'", "did you mean 'mnist'", "celeba, digits, mnist"]),
        ({"runs": "alpah"}, ["unknown run 'alpah'", "did you mean 'alpha'"]),
        ({"seeds": -1}, ["seeds[0]", "-1"]),
        ({"delta": 2}, ["delta", "2", "Failure probability"]),
        ({"threads": 0}, ["threads", "0", "minimum"]),
        ({"protocol": {"num_sampels": 5}}, ["unknown key 'num_sampels'", "protocol", "did you mean 'num_samples'"]),
        ({"datasets": {"mnist": {"optinal": True}}}, ["'optinal'", "datasets.mnist", "did you mean 'optional'"]),
        ({"methods": {"alpha": {"stpes": 5}}}, ["unknown key 'stpes' under methods.alpha", "did you mean 'steps'"]),
        ({"methods": {"alhpa": {}}}, ["unknown method 'alhpa'", "did you mean 'alpha'", "alpha, beta"]),
        ({"runs": {"x": {"method": "gamma"}}}, ["unknown method 'gamma' of run 'x'", "alpha, beta"]),
        ({"runs": {"alpha": {"acounting": "sound"}}}, ["'acounting' under runs.alpha", "did you mean 'accounting'"]),
        ({"runs": {"alpha": {"accounting": "sonud"}}}, ["runs.alpha.accounting", "'sonud'", "sound"]),
        ({"runs": {"alpha": {"accounting": "none"}}}, ["run 'alpha'", "none", "epsilon 10"]),
        ({"runs": {"alpha": {"epsilons": [".inf"]}}}, ["run 'alpha'", "published", "epsilon inf"]),
        ({"runs": {"alpha": {"epsilons": [0]}}}, ["epsilon must be a number above 0"]),
        ({"runs": {"alpha": {"datasets": ["mnits"]}}}, ["unknown data set 'mnits' of run 'alpha'"]),
        ({"runs": {"alpha": {"per_dataset": {"mnist": {"rate": 1}}}}}, ["'rate'", "per_dataset.mnist", "steps, width"]),
        ({"runs": {"alpha": {"steps": 0}}}, ["alpha.steps must be at least 1"]),
        ({"runs": {"alpha": {"over_bugdet": True}}}, ["'over_bugdet' under runs.alpha", "did you mean 'over_budget'"]),
        ({"runs": {"alpha": {"over_budget": 1}}}, ["runs.alpha.over_budget", "1", "'boolean'", "refused otherwise"]),
        ({"runs": {"alpha": {"over_budget": "yes"}}}, ["runs.alpha.over_budget", "'yes'", "'boolean'"]),
        ({"runs": {"ceiling": {"over_budget": True}}}, ["run 'ceiling'", "over_budget", "accounting none"]),
        ({"over_budget": True}, ["unknown key 'over_budget' in tiny.yaml"]),
        ({"runs": {"real": {"method": "alpha"}}}, ["'real' is reserved"]),
        ({"runs": {"Alpha/x": {"method": "alpha"}}}, ["Alpha/x"]),
    ],
)
def test_wrong_input_names_the_key_the_value_and_what_is_valid(load, overrides, parts):
    with pytest.raises(UserError) as caught:
        load(overrides)
    for part in parts:
        assert part in str(caught.value)


def test_runs_limited_to_datasets_that_do_not_take_part_leave_nothing(load):
    with pytest.raises(UserError, match="nothing to run"):
        load({"datasets": "mnist"}, runs={"alpha": {"datasets": ["celeba"]}})


def test_a_preset_that_is_not_yaml_is_an_error(load, tmp_path):
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"broken\.yaml is not valid YAML"):
        load({"preset": "broken"})


def test_the_summary_is_json_without_infinities(load):
    summary = load().summary()
    assert '"epsilons":["inf"]' in config.canonical(summary)
    assert summary["runs"]["alpha"]["hyper"]["celeba"] == {"steps": 5, "width": 2}
