"""A preset: what is merged into what, which jobs come out, and how wrong input is reported."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from workflow import grid, presets
from workflow.common.contracts import RunFolder
from workflow.common.errors import UserError

DATASETS = ("celeba", "digits", "mnist", "mnist_val")
FIELDS = {"alpha": {"steps", "width"}, "beta": {"steps", "rate"}}
PRESET: dict[str, Any] = {
    "preset": "tiny",
    "datasets": {"mnist": {}, "celeba": {"optional": True}},
    "delta": 1e-5,
    "epsilons": [10],
    "seeds": [0],
    "methods": {"alpha": {"steps": 5, "width": 1, "per_dataset": {"celeba": {"width": 2}}}},
    "runs": {"alpha": {"accounting": "published"}, "beta": {}, "ceiling": {"method": "alpha", "epsilons": [math.inf],
             "accounting": "none"}},
    "protocol": {"num_samples": 100},
}  # fmt: skip


class Methods:
    """Two methods, `alpha` and `beta`."""

    def names(self):
        return list(FIELDS)

    def fields(self, method):
        return FIELDS[method]

    def hyper(self, method, overrides):
        if overrides.get("steps", 1) < 1:
            raise UserError(f"{method}.steps must be at least 1")

    def has_paper_settings(self, method, dataset, epsilon):
        return (method, dataset, epsilon) == ("alpha", "mnist", 10.0)


@pytest.fixture
def load(tmp_path: Path):
    """Loads the preset `tiny`, with top-level keys replaced by `changes`, merged with `overrides`."""

    def loaded(overrides: dict[str, Any] | None = None, **changes: Any) -> grid.Config:
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**PRESET, **changes}, sort_keys=False))
        return presets.load(
            {"preset": "tiny", **(overrides or {})},
            datasets=DATASETS, methods=Methods(), protocol_keys=["num_samples", "batch_size"], folder=tmp_path,
        )  # fmt: skip

    return loaded


def names(loaded: grid.Config) -> list[str]:
    return [job.folder("r").removeprefix("r/runs/") for job in loaded.jobs]


def job(loaded: grid.Config, path: str) -> grid.Job:
    return loaded.job(RunFolder.parse(f"r/runs/{path}"))


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
    methods = {job.run: job.method for job in load().jobs}
    assert methods == {"alpha": "alpha", "beta": "beta", "ceiling": "alpha"}


def test_a_run_without_an_accounting_is_calibrated_by_the_sound_count(load):
    accountings = {job.run: job.accounting for job in load().jobs}
    assert accountings == {"alpha": "published", "beta": "sound", "ceiling": "none"}
    with pytest.raises(UserError, match="accounting 'sound' does not go with epsilon inf"):
        load(runs={"beta": {"epsilons": [math.inf]}})


def test_no_run_may_exceed_its_budget_unless_it_says_so(load):
    # Text, as Snakemake hands it over.
    loaded = load({"runs": {"beta": {"over_budget": "true"}, "other": {"method": "beta", "over_budget": False}}})
    assert {job.run for job in loaded.jobs if job.over_budget} == {"beta"}
    assert job(loaded, "mnist/beta/eps3/seed7").over_budget
    assert [name for name, run in loaded.summary()["runs"].items() if run["over_budget"]] == ["beta"]


def test_settings_merge_from_method_to_its_dataset_to_run_to_the_runs_dataset(load):
    methods = {"alpha": {"steps": 1, "width": 1, "per_dataset": {"celeba": {"steps": 2, "width": 2}}}}
    runs = {"base": {"method": "alpha"}, "wide": {"method": "alpha", "width": 3},
            "both": {"method": "alpha", "width": 3, "per_dataset": {"celeba": {"width": 4}}}}  # fmt: skip
    hyper = {(job.run, job.dataset): dict(job.hyper) for job in load(methods=methods, runs=runs).jobs}
    assert hyper["base", "mnist"] == {"steps": 1, "width": 1}
    assert hyper["base", "celeba"] == {"steps": 2, "width": 2}
    assert hyper["wide", "celeba"] == {"steps": 2, "width": 3}
    assert hyper["both", "celeba"] == {"steps": 2, "width": 4}
    assert hyper["both", "mnist"] == {"steps": 1, "width": 3}


def test_a_data_set_s_own_evaluation_settings_lie_above_the_shared_ones(load):
    loaded = load(protocol={"num_samples": 100, "batch_size": 8, "per_dataset": {"celeba": {"num_samples": 30}}})
    assert loaded.protocol_of("mnist") == loaded.protocol == {"num_samples": 100, "batch_size": 8}
    assert loaded.protocol_of("celeba") == {"num_samples": 30, "batch_size": 8}
    assert loaded.summary()["protocol"] == {**loaded.protocol, "per_dataset": {"celeba": {"num_samples": 30}}}
    assert loaded.sample_counts == "100 (mnist), 30 (celeba)"


def test_the_command_line_merges_into_a_data_set_s_own_evaluation_settings(load):
    own = {"protocol": {"per_dataset": {"celeba": {"batch_size": "64"}}}}
    loaded = load(own, protocol={"num_samples": 100, "per_dataset": {"celeba": {"num_samples": 30}}})
    assert loaded.protocol_of("celeba") == {"num_samples": 30, "batch_size": 64}


def test_evaluation_settings_of_a_data_set_that_takes_no_part_change_nothing(load):
    plain = load({"datasets": "mnist"})
    other = load({"datasets": "mnist"}, protocol={"num_samples": 100, "per_dataset": {"celeba": {"num_samples": 30}}})
    assert other.summary() == plain.summary() and plain.summary()["protocol"] == {"num_samples": 100}
    assert other.sample_counts == plain.sample_counts == 100


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
    other = job(load(), "celeba/alpha/eps2.5/seed9")
    assert (other.epsilon, other.seed, dict(other.hyper)) == (2.5, 9, {"steps": 5, "width": 2})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("mnist/alpah/eps10/seed0", "unknown run 'alpah'; did you mean 'alpha'"),
        ("mnits/alpha/eps10/seed0", "unknown data set 'mnits'; did you mean 'mnist'"),
        ("mnist/alpha/epsinf/seed0", "does not go with epsilon inf"),
    ],
)
def test_a_path_that_names_no_job_is_an_error(load, path, message):
    with pytest.raises(UserError, match=message):
        job(load(), path)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"preset": "tniy"}, ["unknown preset 'tniy'", "did you mean 'tiny'"]),
        ({"epsilns": 10}, ["unknown key 'epsilns' in --config", "did you mean 'epsilons'", "datasets, delta"]),
        ({"epsilons": 0}, ["epsilon must be a number above 0", "0"]),
        ({"epsilons": "1,-3"}, ["epsilon must be a number above 0", "-3"]),
        ({"epsilons": "ten"}, ["epsilon must be a number above 0", "'ten'"]),
        ({"datasets": "mnits"}, ["unknown data set 'mnits'", "did you mean 'mnist'", "celeba, digits, mnist"]),
        ({"runs": "alpah"}, ["unknown run 'alpah'", "did you mean 'alpha'"]),
        ({"seeds": -1}, ["seeds: -1 is no seed"]),
        ({"delta": 2}, ["delta", "2", "Failure probability"]),
        ({"threads": 0}, ["threads", "0", "must be at least 1"]),
        ({"protocol": {"num_sampels": 5}}, ["unknown key 'num_sampels'", "protocol", "did you mean 'num_samples'"]),
        ({"protocol": {"num_samples": 5, "per_dataset": {"mnits": {}}}}, ["'mnits'", "under protocol.per_dataset"]),
        (
            {"protocol": {"num_samples": 5, "per_dataset": {"mnist": {"per_dataset": {}}}}},
            ["unknown key 'per_dataset'", "under protocol.per_dataset.mnist"],
        ),
        ({"datasets": {"mnist": {"optinal": True}}}, ["'optinal'", "datasets.mnist", "did you mean 'optional'"]),
        (
            {"methods": {"alpha": {"stpes": 5}}},
            ["unknown key 'stpes' in --config under methods.alpha", "did you mean 'steps'"],
        ),
        ({"methods": {"alhpa": {}}}, ["unknown method 'alhpa'", "did you mean 'alpha'", "alpha, beta"]),
        ({"runs": {"x": {"method": "gamma"}}}, ["unknown method 'gamma' of run 'x' in --config; valid: alpha, beta"]),
        ({"runs": {"x": {"steps": 5}}}, ["unknown method 'x' of run 'x'", "alpha, beta (the run says none", "METHOD)"]),
        (
            {"runs": {"alpha": {"acounting": "sound"}}},
            ["'acounting' in --config under runs.alpha", "did you mean 'accounting'"],
        ),
        ({"runs": {"alpha": {"accounting": "sonud"}}}, ["runs.alpha.accounting", "'sonud'", "sound"]),
        ({"runs": {"alpha": {"accounting": "none"}}}, ["run 'alpha'", "none", "epsilon 10"]),
        ({"runs": {"alpha": {"epsilons": [".inf"]}}}, ["run 'alpha'", "'published'", "epsilon inf"]),
        ({"runs": {"alpha": {"epsilons": [0]}}}, ["epsilon must be a number above 0"]),
        ({"runs": {"alpha": {"datasets": ["mnits"]}}}, ["unknown data set 'mnits' of run 'alpha'"]),
        ({"runs": {"alpha": {"per_dataset": {"mnist": {"rate": 1}}}}}, ["'rate'", "per_dataset.mnist", "steps, width"]),
        ({"runs": {"alpha": {"steps": 0}}}, ["alpha.steps must be at least 1"]),
        (
            {"runs": {"alpha": {"over_bugdet": True}}},
            ["'over_bugdet' in --config under runs.alpha", "did you mean 'over_budget'"],
        ),
        (
            {"runs": {"alpha": {"over_budget": 1}}},
            ["runs.alpha.over_budget: must be true or false, got 1", "refused otherwise"],
        ),
        ({"runs": {"alpha": {"over_budget": "yes"}}}, ["runs.alpha.over_budget: must be true or false, got 'yes'"]),
        ({"runs": {"ceiling": {"over_budget": True}}}, ["run 'ceiling'", "over_budget", "accounting none"]),
        ({"over_budget": True}, ["unknown key 'over_budget' in --config"]),
        ({"methods": {"alpha": {"chosen_on": "mnist"}}}, ["methods.alpha.chosen_on: must be a list, got 'mnist'"]),
        ({"methods": {"alpha": {"chosen_on": ["mnist"]}}}, ["methods.alpha.chosen_on", "mnist (test split)"]),
        ({"runs": {"beta": {"chosen_on": ["mnits_val"]}}}, ["unknown place 'mnits_val' in runs.beta.chosen_on"]),
        ({"runs": {"beta": {"chosen_o": []}}}, ["'chosen_o' in --config under runs.beta", "did you mean 'chosen_on'"]),
        ({"runs": {"real": {"method": "alpha"}}}, ["'real' is reserved"]),
        ({"runs": {"Alpha/x": {"method": "alpha"}}}, ["--config: run name 'Alpha/x' under runs", "a-z"]),
        ({"runs": {"..": {"method": "alpha"}}}, ["run name '..' under runs"]),
        ({"runs": {"alpha\n": {"method": "alpha"}}}, ["run name 'alpha\\n' under runs"]),
        ({"runs": {"älpha": {"method": "alpha"}}}, ["run name 'älpha' under runs"]),
        ({"runs": {"aux": {"method": "alpha"}}}, ["'aux' under runs is reserved on some systems"]),
        ({"datasets": {"lpt1": {"folder": "p"}}}, ["data set 'lpt1' under datasets is reserved on some systems"]),
        ({"runs": {7: {"method": "alpha"}}}, ["--config: the key 7 under runs is no text (int)", "quote it"]),
        ({"protocol": {None: 5}}, ["the key None under protocol is no text"]),
        ({"runs": {"beta": {"per_dataset": {True: {}}}}}, ["the key True under runs.beta.per_dataset is no text"]),
        ({"epsilons": "3,3.0000001"}, ["--config: epsilons: 3 and 3.0000001 are one budget", "keep one"]),
        ({"epsilons": "4,4.0"}, ["--config: epsilons: 4 and 4 are one budget"]),
        ({"runs": {"beta": {"epsilons": [2, 2]}}}, ["--config: runs.beta.epsilons: 2 and 2 are one budget"]),
        ({"tuning": {"epsilons": [1, 1.0]}}, ["--config: tuning.epsilons: 1 and 1 are one budget"]),
        ({"epsilons": "nan"}, ["--config: epsilons: epsilon must be a number above 0", "nan"]),
        ({"epsilons": "1e-400"}, ["--config: epsilons: epsilon must be a number above 0"]),
        ({"epsilons": "1e400"}, ["--config: epsilons: epsilon must be a number above 0", "'1e400'"]),
        ({"epsilons": [True]}, ["--config: epsilons: epsilon must be a number above 0", "'True'"]),
        ({"seeds": "5,5"}, ["--config: seeds: 5 stands twice", "keep one"]),
        ({"seeds": "1e1,10"}, ["--config: seeds: 10 stands twice"]),
        ({"seeds": "0.5"}, ["--config: seeds: 0.5 is no seed", "from 0 to 9223372036854775807"]),
        ({"seeds": "nan"}, ["--config: seeds: 'nan' is no seed"]),
        ({"seeds": [True]}, ["--config: seeds: True is no seed"]),
        ({"seeds": "1e17"}, ["--config: seeds: 1e+17 is no seed"]),
        ({"seeds": "9223372036854775808"}, ["seeds: 9223372036854775808 is no seed", "(2^63 - 1)"]),
        ({"seeds": [2**63]}, ["seeds: 9223372036854775808 is no seed"]),
        ({"seeds": "12345678901234567890"}, ["seeds: 12345678901234567890 is no seed"]),
        ({"runs": {"beta": {"seeds": [4, 2**64]}}}, ["runs.beta.seeds: 18446744073709551616 is no seed"]),
        ({"seeds": ""}, ["--config: seeds holds nothing", "seeds: [0, 1]"]),
        ({"seeds": [None]}, ["--config: seeds holds nothing"]),
        ({"runs": None}, ["--config: runs holds nothing; give at least one, such as runs: [dpac, dpgan]"]),
        ({"epsilons": []}, ["--config: epsilons holds nothing"]),
        ({"runs": {"beta": {"seeds": []}}}, ["--config: runs.beta.seeds: is empty; give at least one"]),
        ({"protocol": None}, ["--config: protocol: must be a mapping of names to values, got nothing"]),
        ({"threads": 1.5}, ["threads: must be a whole number, got 1.5"]),
        ({"threads": True}, ["threads: must be a whole number, got true"]),
        ({"delta": 3}, ["delta: must be below 1, got 3"]),
        ({"audit_seconds": 0}, ["audit_seconds: must be above 0, got 0"]),
        ({"runs": {"alpha": {"accounting": "rdp"}}}, ["accounting: must be one of published, sound, none, got 'rdp'"]),
        ({"protocol": 7}, ["protocol: must be a mapping of names to values, got 7"]),
    ],
)
def test_wrong_input_names_the_key_the_value_and_what_is_valid(load, overrides, parts):
    with pytest.raises(UserError) as caught:
        load(overrides)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("seed", [0, 2**53 + 1, 2**63 - 1])
def test_a_seed_is_the_number_that_was_written(load, seed):
    assert load({"seeds": str(seed)}).seeds == load(seeds=[seed]).seeds == (seed,)


def test_seeds_and_epsilons_keep_every_digit_and_are_equal_however_they_are_written(load):
    written = load({"datasets": "mnist", "runs": "beta", "epsilons": "7654321,0.25", "seeds": "2e3,007"})
    assert names(written) == [
        f"mnist/beta/eps{epsilon}/seed{seed}" for epsilon in ("7654321", "0.25") for seed in (2000, 7)
    ]
    assert {type(one.seed) for one in written.jobs} == {int}


def test_a_value_of_the_preset_itself_is_blamed_on_the_preset(load):
    with pytest.raises(UserError, match=r"^tiny\.yaml: runs\.beta\.epsilons: 9 and 9 are one budget"):
        load({"epsilons": 3}, runs={"beta": {"epsilons": [9, 9.0]}})


def test_runs_limited_to_datasets_that_do_not_take_part_leave_nothing(load):
    with pytest.raises(UserError, match="nothing to run"):
        load({"datasets": "mnist"}, runs={"alpha": {"datasets": ["celeba"]}})


def test_a_preset_that_is_not_yaml_is_an_error(load, tmp_path):
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"broken\.yaml is not valid YAML"):
        load({"preset": "broken"})


def test_the_summary_is_json_without_infinities(load):
    summary = load().summary()
    assert '"epsilons":["inf"]' in grid.canonical(summary)
    assert summary["runs"]["alpha"]["hyper"]["celeba"] == {"steps": 5, "width": 2}


def test_published_settings_are_asked_for_where_the_method_has_them(load):
    loaded = load({"runs": {"ceiling": {"epsilons": [".inf"]}}}, paper_settings=True)
    assert {(job.run, job.dataset) for job in loaded.jobs if job.paper} == {("alpha", "mnist")}
    assert {(job.run, job.dataset) for job in loaded.without_published_settings} == {
        ("alpha", "celeba"), ("beta", "mnist"), ("beta", "celeba"), ("ceiling", "mnist"), ("ceiling", "celeba")
    }  # fmt: skip
    assert not job(loaded, "mnist/alpha/eps1/seed0").paper
    assert not load().without_published_settings and not any(job.paper for job in load().jobs)


CHOSEN = {"methods": {"alpha": {"steps": 5, "chosen_on": ["mnist (test split)"], "chosen_note": "steps were raised."},
                      "beta": {"chosen_on": ["mnist_val"]}},
          "runs": {"alpha": {}, "beta": {}, "other": {"method": "alpha", "chosen_on": ["mnist_val"]},
                   "paper": {"method": "beta", "chosen_on": ["published"]}}}  # fmt: skip


def test_where_settings_were_chosen_is_said_by_run_and_is_no_hyper_parameter(load):
    loaded = load(**CHOSEN, chosen_note="More was shortened.")
    assert loaded.chosen_on() == [
        "Settings of `alpha` were chosen by scores on the test split of `mnist`, which flatters these rows.",
        "Settings of `beta` and `other` were chosen on held-out images (`mnist_val`).",
        "Settings of `paper` were taken from their authors.",
        "`alpha`: steps were raised.",
        "More was shortened.",
    ]
    assert all(set(job.hyper) <= {"steps"} for job in loaded.jobs)
    summary = loaded.summary()
    assert summary["runs"]["alpha"]["chosen_on"] == ["mnist (test split)"]
    assert "chosen_note" not in summary["runs"]["other"]


@pytest.mark.parametrize("changed", [
    {"methods": {"alpha": {"steps": 6}}},
    {"methods": {"alpha": {"per_dataset": {"celeba": {"steps": 6}}}}},
    {"runs": {"alpha": {"steps": 6}, "beta": {}}},
])  # fmt: skip
def test_settings_that_the_user_changed_were_not_chosen_where_the_preset_says(load, changed):
    loaded = load(changed, **{**CHOSEN, "methods": {**CHOSEN["methods"], "alpha": {
        "steps": 5, "chosen_on": ["mnist_val"], "chosen_by": {"trials": 3, "core_minutes": 4, "commit": "abc"}}}})
    alpha, beta = loaded.runs["alpha"], loaded.runs["beta"]
    assert (alpha.chosen_on, alpha.chosen_by, beta.chosen_on) == ((), {}, ("mnist_val",))
    assert alpha.chosen_note == "settings were changed: steps by --config."


HELD_OUT = {**CHOSEN, "methods": {"alpha": {"steps": 5, "precision": "bf16", "chosen_on": ["mnist_val"]}},
            "runs": {"alpha": {}}}  # fmt: skip


@pytest.fixture
def alpha(load, tmp_path, monkeypatch):
    """Returns the row alpha of a preset that chose its settings, under files of the user's, by name, and --config."""

    monkeypatch.setitem(FIELDS, "alpha", {"steps", "width", "precision"})

    def loaded(given: dict[str, Any], chosen: dict[str, Any] = HELD_OUT, **files: Any) -> grid.Run:
        load(**chosen)
        layers = [presets.Layer(f"{name}.yaml", values) for name, values in files.items()]
        return presets.load({"preset": "tiny", **given}, datasets=DATASETS, methods=Methods(), protocol_keys=None,
                            folder=tmp_path, files=layers).runs["alpha"]  # fmt: skip

    return loaded


def test_a_value_that_was_there_before_is_no_change(alpha):
    for same in (5, "5"):
        assert alpha({"methods": {"alpha": {"steps": same}}}).chosen_on == ("mnist_val",)
        assert alpha({"runs": {"alpha": {"steps": same}}}).chosen_on == ("mnist_val",)
    changed = alpha({"methods": {"alpha": {"steps": 5}}}, mine={"methods": {"alpha": {"steps": 5, "width": 3}}})
    assert changed.chosen_note == "settings were changed: width by mine.yaml."


def test_a_file_may_be_called_as_the_preset_s_own_is(alpha):
    changed = alpha({}, tiny={"methods": {"alpha": {"steps": 6}}})
    assert changed.chosen_note == "settings were changed: steps by tiny.yaml."
    stated = {"methods": {"alpha": {"steps": 6, "chosen_on": ["mnist_val"]}}}
    assert alpha({}, mine=stated).chosen_on == ("mnist_val",)
    assert alpha({"runs": {"alpha": {"steps": 7}}}, mine=stated).chosen_on == ()


def test_what_equal_tuning_chose_is_no_change_of_the_user_s(alpha, tmp_path):
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "tiny.yaml").write_text("methods: {alpha: {steps: 7}}")
    assert alpha({}).chosen_on == alpha({"methods": {"alpha": {"steps": 7}}}).chosen_on == ("mnist_val",)
    assert alpha({"methods": {"alpha": {"steps": 5}}}).chosen_on == ()


def test_what_no_trial_of_equal_tuning_chose_is_still_said_of_a_changed_row(load):
    by = {"trials": 3, "core_minutes": 4, "commit": "abc"}
    tuned = {"steps": 5, "chosen_on": ["mnist_val"], "chosen_by": by, "chosen_note": "at first on the test split."}
    chosen = {**CHOSEN, "methods": {**CHOSEN["methods"], "alpha": tuned}}
    assert load({"methods": {"alpha": {"steps": 6}}}, **chosen).runs["alpha"].chosen_note == (
        "settings were changed: steps by --config; the others were chosen by equal tuning; at first on the test split."
    )


BY = {"trials": 3, "core_minutes": 4, "commit": "abc"}
TUNED = {**HELD_OUT, "methods": {"alpha": {"steps": 5, "chosen_on": ["mnist_val"], "chosen_by": BY}},
         "runs": {"alpha": {}, "old": {"method": "alpha"}}}  # fmt: skip


@pytest.fixture
def big(load, tmp_path, monkeypatch):
    """Returns the rows of a preset that extends the one that was tuned, by what its file holds and the user gives."""
    monkeypatch.setitem(FIELDS, "alpha", {"steps", "width", "precision"})

    def loaded(content: str, /, **given: Any) -> Mapping[str, grid.Run]:
        load(**TUNED)
        (tmp_path / "big.yaml").write_text(f"extends: tiny\n{content}\n")
        return presets.load({"preset": "big", **given}, datasets=DATASETS, methods=Methods(), protocol_keys=None,
                            folder=tmp_path).runs  # fmt: skip

    return loaded


CHANGED_BY_BIG = "settings were changed: steps by preset big; the others were chosen by equal tuning."


@pytest.mark.parametrize("content", [
    "methods: {alpha: {steps: 50}}", "methods: {alpha: {per_dataset: {mnist: {steps: 50}}}}",
    "runs: {alpha: {steps: 50}, old: {steps: 50}}",
])  # fmt: skip
def test_no_trial_chose_what_a_preset_has_in_place_of_what_was_chosen_for_the_one_it_extends(big, content):
    for name in ("alpha", "old"):
        row = big(content)[name]
        assert (row.chosen_on, row.chosen_by, row.chosen_note) == (("mnist_val",), {}, CHANGED_BY_BIG)


def test_a_row_that_an_extending_preset_adds_has_what_it_says_itself_by_no_trial(big):
    runs = big("runs: {new: {method: alpha, width: 3, chosen_note: by eye.}}")
    assert runs["alpha"].chosen_by == BY
    said = "settings were changed: width by preset big; the others were chosen by equal tuning; by eye."
    assert (runs["new"].chosen_by, runs["new"].chosen_note) == ({}, said)


def test_what_equals_the_trials_choice_is_theirs_and_each_change_beside_it_is_said_of_its_own_place(big):
    assert big("methods: {alpha: {steps: 5}}")["alpha"].chosen_by == BY
    assert big("methods: {alpha: {steps: 50}}", methods={"alpha": {"steps": 5}})["alpha"].chosen_by == BY
    row = big("methods: {alpha: {steps: 50}}", methods={"alpha": {"width": 3}})["alpha"]
    assert (row.chosen_on, row.chosen_by) == ((), {})
    assert row.chosen_note == "settings were changed: width by --config and steps by preset big."


def test_what_was_tuned_for_the_extending_preset_itself_is_chosen(big, tmp_path):
    (tmp_path / "tuned").mkdir()
    chosen = "{steps: 70, chosen_on: [mnist_val], chosen_by: {trials: 9, core_minutes: 1, commit: def}}"
    (tmp_path / "tuned/big.yaml").write_text(f"methods: {{alpha: {chosen}}}")
    row = big("methods: {alpha: {steps: 50}}")["alpha"]
    assert (row.hyper["mnist"]["steps"], row.chosen_by["trials"], row.chosen_note) == (70, 9, "")


@pytest.mark.parametrize("place", ["mnist_val", "mnist (test split)"])
def test_who_says_anew_where_settings_were_chosen_says_nothing_of_trials_and_remarks_of_before(big, place):
    chosen = {"steps": 50, "chosen_on": [place]}
    for rows in (big("seeds: [0]", methods={"alpha": chosen}), big(f"methods: {{alpha: {chosen}}}")):
        assert (rows["alpha"].chosen_on, rows["alpha"].chosen_by, rows["alpha"].chosen_note) == ((place,), {}, "")


def test_a_row_that_the_preset_has_no_more_is_not_made_anew_by_what_it_was_tuned_to(load, tmp_path):
    (tmp_path / "tuned").mkdir()
    tuned = "{methods: {alpha: {steps: 7}}, runs: {other: {steps: 8}, gone: {steps: 9}}}"
    (tmp_path / "tuned/tiny.yaml").write_text(tuned)
    runs = load(**CHOSEN).runs
    assert set(runs) == set(CHOSEN["runs"])
    assert [runs[name].hyper["mnist"]["steps"] for name in ("alpha", "other")] == [7, 8]
    assert set(load({"runs": ["alpha"]}, **CHOSEN).runs) == {"alpha"}
    own = load({"extends": "tiny", "preset": "mine", "runs": {"theirs": {"method": "alpha"}}}, **CHOSEN).runs
    assert set(own) == {*CHOSEN["runs"], "theirs"} and own["theirs"].hyper["mnist"]["steps"] == 7


def test_that_the_other_settings_were_chosen_on_a_test_split_is_still_said(load):
    note = load({"methods": {"alpha": {"steps": 6}}}, **CHOSEN).runs["alpha"].chosen_note
    assert note == ("settings were changed: steps by --config; the others were chosen by scores on the test split of"
                    " `mnist`, which flatters these rows.")  # fmt: skip


def test_what_the_user_says_of_a_change_is_kept(alpha):
    own = alpha({"runs": {"alpha": {"steps": 6, "chosen_note": "by eye."}}})
    assert own.chosen_note == "settings were changed: steps by --config; by eye."


def test_published_settings_and_another_precision_are_changes_too(alpha):
    assert alpha({"paper_settings": "true"}).chosen_note == "settings were changed: paper_settings by --config."
    assert alpha({"paper_settings": False}).chosen_on == ("mnist_val",)
    assert alpha({"paper_settings": True, "epsilons": [1]}).chosen_on == ("mnist_val",)
    assert alpha({"reproducible": True}).chosen_note == "settings were changed: precision by reproducible: true."
    assert alpha({}, {**HELD_OUT, "reproducible": True}).chosen_on == ("mnist_val",)


def test_who_changes_settings_may_say_where_they_were_chosen(load):
    own = {"steps": 6, "chosen_on": ["mnist_val"], "chosen_note": "by eye."}
    alpha = load({"methods": {"alpha": own}}, **CHOSEN).runs["alpha"]
    assert (alpha.chosen_on, alpha.chosen_note) == (("mnist_val",), "by eye.")


def test_settings_chosen_for_a_row_were_chosen_for_its_method_alone(load):
    beta = {"method": "beta"}
    runs = load({"runs": {"other": beta, "new": {**beta, "accounting": "sound"}}}, **CHOSEN).runs
    assert runs["other"].chosen_on == () and runs["other"].chosen_note == "settings were changed: method by --config."
    assert runs["new"].chosen_on == ("mnist_val",)
    assert load({"runs": {"other": {"method": "alpha"}}}, **CHOSEN).runs["other"].chosen_on == ("mnist_val",)


def test_nothing_is_said_where_no_preset_says_it(load):
    assert load().chosen_on() == []
    assert "chosen_on" not in load().summary()["runs"]["alpha"]
