"""A configuration of the user's own: what it extends, its name, its data sets, and how wrong input is reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from test_presets import PRESET, Methods

from workflow import grid, merging, presets
from workflow.common.chosen_on import places
from workflow.common.contracts import RunFolder
from workflow.common.errors import UserError
from workflow.dataset_entries import unprotected
from workflow.merging import Layer
from workflow.origins import with_origins

SHIPPED = ("celeba", "digits", "fashion_mnist", "mnist")
LESIONS = {"lesions": {"folder": "pictures", "size": 32}}
LIMITED = {"ablation": {"method": "alpha", "width": 3, "datasets": ["fashion_mnist"]}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Presets `tiny`, with two data sets, and `own`, without any."""
    runs = {**PRESET["runs"], **LIMITED}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**PRESET, "runs": runs}, sort_keys=False))
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**PRESET, "preset": "own", "datasets": {}}, sort_keys=False))
    return tmp_path


@pytest.fixture
def load(folder: Path):
    """Loads what mine.yaml and --config say."""

    def loaded(mine: dict[str, Any] | None = None, line: dict[str, Any] | None = None, name: str = "mine.yaml"):
        files = [] if mine is None else [Layer(name, {"extends": "tiny", **mine})]
        return presets.load(
            line or {}, files=files, datasets=SHIPPED, methods=Methods(), protocol_keys=["num_samples", "batch_size"],
            folder=folder,
        )  # fmt: skip

    return loaded


def jobs(loaded: grid.Config) -> set[str]:
    return {job.folder("r").removeprefix("r/runs/") for job in loaded.jobs}


def test_data_sets_replace_the_presets_and_the_results_have_a_folder_of_their_own(load):
    loaded = load({"datasets": LESIONS})
    assert (loaded.preset, loaded.extends, loaded.root) == ("mine", "tiny", "results/mine")
    assert loaded.datasets == ("lesions",) and loaded.optional == frozenset()
    assert (loaded.own["lesions"].folder, loaded.own["lesions"].size) == ("pictures", 32)
    expected = {"lesions/alpha/eps10/seed0", "lesions/beta/eps10/seed0", "lesions/ceiling/epsinf/seed0"}
    assert jobs(loaded) == expected
    assert loaded.job(RunFolder.parse("r/runs/lesions/alpha/eps3/seed2")).hyper == {"steps": 5, "width": 1}


def test_runs_limited_to_data_sets_that_are_absent_drop_out(load):
    assert set(load({"datasets": LESIONS}).summary()["runs"]) == {"alpha", "beta", "ceiling"}
    both = load({"datasets": {**LESIONS, "fashion_mnist": {}}})
    assert "fashion_mnist/ablation/eps10/seed0" in jobs(both)
    assert "lesions/ablation/eps10/seed0" not in jobs(both)


def test_several_own_sets_stand_next_to_shipped_ones_in_the_order_given(load):
    loaded = load({"datasets": {"moles": {"folder": "m"}, "mnist": {}, **LESIONS}})
    assert loaded.datasets == ("moles", "mnist", "lesions")
    assert set(loaded.own) == {"moles", "lesions"}


def test_the_command_line_chooses_among_and_changes_what_the_file_has(load):
    mine = {"datasets": {"moles": {"folder": "m"}, **LESIONS}, "runs": {"wide": {"method": "alpha", "width": 9}}}
    assert load(mine, {"datasets": "lesions", "runs": "wide", "epsilons": "1,10", "seeds": 3}).own == {
        "lesions": load(mine).own["lesions"]
    }
    line = {"datasets": "mnist,lesions", "runs": "wide", "epsilons": "1,10", "seeds": 3}
    assert jobs(load(mine, line)) == {f"{d}/wide/eps{e}/seed3" for d in ("mnist", "lesions") for e in (1, 10)}
    changed = load(mine, {"datasets": {"lesions": {"size": "64"}}})
    assert changed.own["lesions"].size == 64 and changed.own["lesions"].folder == "pictures"
    assert changed.datasets == ("moles", "lesions")


def test_a_list_of_runs_chooses_and_a_mapping_merges_and_adds(load):
    assert set(load({"datasets": LESIONS, "runs": ["beta"]}).runs) == {"beta"}
    loaded = load({"datasets": LESIONS, "runs": {"beta": {"rate": 0.5}, "wide": {"method": "alpha", "width": 9}}})
    hyper = {job.run: dict(job.hyper) for job in loaded.jobs}
    assert hyper["beta"] == {"rate": 0.5} and hyper["wide"] == {"steps": 5, "width": 9} and "alpha" in hyper


def test_settings_and_choices_may_name_an_own_set(load):
    loaded = load({
        "datasets": LESIONS,
        "methods": {"alpha": {"per_dataset": {"lesions": {"width": 7}}, "chosen_on": ["lesions (test split)"]}},
        "runs": {"beta": {"datasets": ["lesions"]}},
        "protocol": {"per_dataset": {"lesions": {"num_samples": 30}}},
    })  # fmt: skip
    assert {job.run: job.hyper.get("width") for job in loaded.jobs} == {"alpha": 7, "ceiling": 7, "beta": None}
    assert loaded.protocol_of("lesions") == {"num_samples": 30}
    assert "`lesions`" in loaded.chosen_on()[0] and "lesions (test split)" in places(["lesions"])


def test_a_number_that_follows_the_records_is_replaced_whole(load, monkeypatch):
    monkeypatch.setattr(Methods, "hyper", lambda self, method, overrides: None)
    scaled = {"one_per": 60, "at_least": 4}
    mine = {"datasets": LESIONS, "methods": {"alpha": {"steps": scaled}}}
    assert load(mine).jobs[0].hyper["steps"] == scaled
    assert load(mine, {"methods": {"alpha": {"steps": {"one_per": "9"}}}}).jobs[0].hyper["steps"] == {"one_per": 9}


def test_paths_stay_text_and_numbers_of_the_command_line_become_numbers(load):
    entry = {"folder": "007", "size": "64", "public": "true", "test_fraction": "0.5", "window": "0,4095"}
    own = load(None, {"preset": "own", "datasets": {"scans": entry}}).own["scans"]
    assert (own.folder, own.size, own.public, own.test_fraction, own.window) == ("007", 64, True, 0.5, "0,4095")
    assert load({"datasets": {"scans": {"folder": 2024}}}).own["scans"].folder == "2024"


def test_a_preset_without_data_sets_takes_own_ones_from_the_command_line(load):
    loaded = load(None, {"preset": "own", "datasets": {"lesions": {"folder": "p"}, "mnist": ""}})
    assert (loaded.preset, loaded.extends, loaded.datasets) == ("own", None, ("lesions", "mnist"))


def test_a_name_comes_from_the_file_or_from_what_is_stated(load):
    assert load({"datasets": LESIONS}, name="skin-2.yaml").preset == "skin-2"
    assert load({"datasets": LESIONS, "preset": "other"}).preset == "other"
    assert load({"datasets": LESIONS}, {"preset": "third"}).preset == "third"
    assert load(None, {"extends": "tiny", "preset": "typed", "datasets": LESIONS}).preset == "typed"


@pytest.mark.parametrize(
    ("mine", "line", "parts"),
    [
        ({"extends": "tinny"}, {}, ["unknown preset 'tinny' in mine.yaml under extends", "did you mean 'tiny'"]),
        ({"datasets": LESIONS, "preset": "tiny"}, {}, ["preset: tiny in mine.yaml is taken", "preset: NAME"]),
        ({"datasets": LESIONS, "preset": "published"}, {}, ["results/published"]),
        ({"datasets": LESIONS, "preset": "My set"}, {}, ["preset: My set in mine.yaml", "a letter first"]),
        ({"datasets": {"lesions": {"foldr": "p"}}}, {}, ["'foldr'", "mine.yaml", "lesions", "did you mean 'folder'"]),
        ({"datasets": {"lesions": {"size": 32}}}, {}, ["data set lesions needs folder"]),
        ({"datasets": {"lesions": {"folder": "p", "size": 33}}}, {}, ["datasets.lesions", "28, 32, 64", "got 33"]),
        ({"datasets": {"lesions": {"folder": "p", "size": "big"}}}, {}, ["size of data set lesions", "int", "'big'"]),
        ({"datasets": {"lesions": {"folder": ["p"]}}}, {}, ["folder of data set lesions must be of type str", "['p']"]),
        ({"datasets": {"lesions": {"folder": "p", "fit": "corp"}}}, {}, ["did you mean 'crop'"]),
        ({"datasets": {"lesions": {"folder": "p", "optional": True}}}, {}, ["'optional'", "valid: background"]),
        ({"datasets": {"lesions": "pictures"}}, {}, ["datasets.lesions", "'pictures'", "{folder: PATH, size: 32}"]),
        ({"datasets": {"lesions": {}}}, {}, ["unknown data set 'lesions' in mine.yaml", "{folder: PATH}"]),
        ({"datasets": {"mnits": {}}}, {}, ["unknown data set 'mnits'", "did you mean 'mnist'"]),
        ({"datasets": {"mnist": {"folder": "p"}}}, {}, ["mnist is the name of a shipped data set"]),
        ({"datasets": {"mnist": {"size": 32}}}, {}, ["unknown key 'size' in mine.yaml under datasets.mnist"]),
        ({"datasets": {"Lesions": {"folder": "p"}}}, {}, ["'Lesions' must consist of a-z"]),
        ({"datasets": None, "lesions": {"folder": "p"}}, {}, ["datasets holds None", "indent below it"]),
        ({"datasets": [{"lesions": {"folder": "p"}}]}, {}, ["datasets holds [{'lesions'", "NAME: {folder: PATH}"]),
        ({"datasets": LESIONS, "seeds": [0, 0]}, {}, ["mine.yaml: seeds", "stands twice"]),
        ({"datasets": {}}, {}, ["mine.yaml has no data set", "datasets={NAME: {folder: PATH}}"]),
        ({"datasets": LESIONS}, {"datasets": "lesoins"}, ["unknown data set 'lesoins'", "did you mean 'lesions'"]),
        ({"datasets": LESIONS, "runs": {"x": {"method": "alpha", "datasets": ["moles"]}}}, {}, ["'moles' of run 'x'"]),
        ({"datasets": LESIONS, "epsilns": 1}, {}, ["unknown key 'epsilns' in mine.yaml", "did you mean 'epsilons'"]),
        (None, {"preset": "own"}, ["own.yaml has no data set", "datasets={NAME: {folder: PATH}}"]),
        (None, {"preset": "tiny", "datasets": LESIONS}, ["(lesions) would mix with preset tiny's", "extends: tiny"]),
        (None, {"preset": "mine", "datasets": LESIONS}, ["unknown preset 'mine'", "needs extends: PRESET"]),
        (None, {"extends": "tiny", "datasets": LESIONS}, ["give preset: NAME"]),
    ],
)
def test_wrong_input_names_the_file_the_key_and_what_is_valid(load, mine, line, parts):
    with pytest.raises(UserError) as caught:
        load(mine, line)
    for part in parts:
        assert part in str(caught.value)


def test_each_setting_says_where_it_came_from(folder):
    mine = {"extends": "tiny", "datasets": {"moles": {"folder": "m"}, **LESIONS}, "seeds": [4],
            "methods": {"alpha": {"width": 8}}, "runs": ["alpha", "beta"]}  # fmt: skip
    line = {"epsilons": "1,3", "datasets": "lesions"}
    merged = merging.read([Layer("mine.yaml", mine), Layer("--config", line)], SHIPPED, folder)
    text = with_origins(
        merged, {**presets.DEFAULTS, "protocol": {"batch_size": 128}, "runs": {"beta": {"accounting": "sound"}}}
    )
    lines = {tuple(part.strip() for part in line.split("#")) for line in text.splitlines() if "#" in line}
    assert lines >= {
        ("preset: mine", "the name of mine.yaml"), ("seeds: [4]", "mine.yaml"), ("epsilons: [1, 3]", "--config"),
        ("folder: pictures", "mine.yaml"), ("size: 32", "mine.yaml"), ("test_fraction: 0.2", "default"),
        ("width: 8", "mine.yaml"), ("steps: 5", "preset tiny"), ("accounting: published", "preset tiny"),
        ("accounting: sound", "default"), ("num_samples: 100", "preset tiny"), ("batch_size: 128", "default"),
        ("threads: 1", "default"), ("delta: 1.0e-05", "preset tiny"),
    }  # fmt: skip
    shown = yaml.safe_load(text)
    assert list(shown["datasets"]) == ["lesions"] and list(shown["runs"]) == ["alpha", "beta"]
    assert shown["extends"] == "tiny" and shown["methods"]["alpha"]["per_dataset"] == {"celeba": {"width": 2}}


def test_every_value_of_a_preset_that_extends_another_is_listed_with_whose_it_is(folder):
    (folder / "big.yaml").write_text("preset: big\nextends: tiny\nseeds: [5]\nmethods: {alpha: {steps: 50}}\n")
    merged = merging.read([Layer("--config", {"preset": "big", "epsilons": 3})], SHIPPED, folder)
    lines = {tuple(part.strip() for part in line.split("#")) for line in with_origins(merged, {}).splitlines()}
    assert lines >= {
        ("preset: big", "--config"), ("seeds: [5]", "preset big"), ("steps: 50", "preset big"),
        ("epsilons: [3]", "--config"), ("num_samples: 100", "preset tiny"),
    }  # fmt: skip
    assert merged.extends is None and not [line for line in lines if line[0].startswith("extends")]


def test_a_wrong_value_of_a_preset_that_extends_another_is_said_of_its_file(folder):
    (folder / "big.yaml").write_text("preset: big\nextends: tiny\ndelta: 2\n")
    with pytest.raises(UserError, match=r"^big\.yaml: delta"):
        merging.read([Layer("--config", {"preset": "big"})], SHIPPED, folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extends: big", "preset 'big' in big.yaml under extends would extend itself: big -> big"),
        ("extends: other", "preset 'big' in other.yaml under extends would extend itself: big -> other -> big"),
        ("extends: tinny", "unknown preset 'tinny' in big.yaml under extends; did you mean 'tiny'"),
        ("extends: [tiny]", "big.yaml: extends must be the name of a preset, got ['tiny']"),
        ("extends:", "big.yaml: extends must be the name of a preset, got None"),
        ("extends: tuned/tiny", "unknown preset 'tuned/tiny' in big.yaml under extends"),
    ],
)
def test_a_preset_extends_one_that_is_there_and_not_itself(folder, text, said):
    (folder / "big.yaml").write_text(text)
    (folder / "other.yaml").write_text("extends: big")
    with pytest.raises(UserError) as caught:
        merging.read([Layer("--config", {"preset": "big"})], SHIPPED, folder)
    assert str(caught.value).startswith(said) and "nested" not in str(caught.value)


@pytest.mark.parametrize("entries", ["{digits: {}, celeba: {optional: true}}", "[digits, celeba]"])
def test_data_sets_of_a_preset_that_extends_another_are_replaced_as_any_preset_s_are(folder, entries):
    (folder / "big.yaml").write_text(f"extends: tiny\ndatasets: {entries}\n")
    (folder / "biggest.yaml").write_text("extends: big\ndatasets: {mnist: {}}\n")

    def datasets(*layers: Layer) -> dict[str, Any]:
        return merging.read(layers, SHIPPED, folder).content["datasets"]

    assert list(datasets(Layer("--config", {"preset": "big"}))) == ["digits", "celeba"]
    assert list(datasets(Layer("--config", {"preset": "biggest"}))) == ["mnist"]
    assert datasets(Layer("--config", {"preset": "big", "datasets": "celeba"})) == {"celeba": {}}
    assert list(datasets(Layer("mine.yaml", {"extends": "big", "datasets": LESIONS}))) == ["lesions"]
    with pytest.raises(UserError, match=r"\(lesions\) would mix with preset big's results; write extends: big"):
        datasets(Layer("--config", {"preset": "big", "datasets": LESIONS}))
    # Whoever looks at presets without loading them sees the same.
    assert list(merging.shipped_content("big", folder)["datasets"]) == ["digits", "celeba"]


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_row_or_method_with_nothing_below_its_name_is_as_it_was(load, nothing):
    before = load({}).runs["alpha"]
    for given in ({"runs": {"alpha": nothing}}, {"methods": {"alpha": nothing}}):
        for after in (load(given), load({}, given)):
            assert after.runs["alpha"] == before and before.accounting == "published" and before.hyper["mnist"]


def test_one_line_warns_of_own_pictures_that_are_not_public(load):
    loaded = load({"datasets": {**LESIONS, "toys": {"folder": "t", "public": True}, "mnist": {}}})
    warning = unprotected(loaded.own, loaded.datasets)
    assert "protects nobody in lesions:" in warning and "python -m methods release" in warning
    assert "spends privacy of its own" in warning and "\n" not in warning
    assert unprotected(loaded.own, ["toys", "mnist"]) == ""
