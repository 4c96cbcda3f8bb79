"""What a command line asks for is checked before anything is read, trained or charged: one line, exit code 2."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from methods.__main__ import main
from workflow.common.contracts import LabelledImages, load_images
from workflow.common.files import read_json, write_json, write_npz

MERF = '{"features": 32, "steps": 3, "batch_size": 10, "hidden": 8, "channels": 4}'
SMALL = ["features=32", "steps=3", "batch_size=10", "hidden=8", "channels=4"]
COUNT = 40


def prepare(folder: Path, shape: tuple[int, ...] = (1, 28, 28), labels: np.ndarray | None = None, **card) -> Path:
    """Writes a data set of black images."""
    labels = np.arange(COUNT) % 10 if labels is None else labels
    records = LabelledImages(np.zeros((len(labels), *shape), np.uint8), labels)
    write_npz(folder / "train.npz", images=records.images, labels=records.labels)
    split = {"train": {"count": COUNT, "sha256": records.digest()}}
    facts = {"dataset": "toy", "image_shape": list(shape), "num_classes": 10, "splits": split}
    write_json(folder / "card.json", facts | card)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return prepare(tmp_path_factory.mktemp("data"))


def refused(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """Returns the one line with which a command is refused."""
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and len(error) < 600
    return error


PLAN = ["plan", "--method", "dp_merf"]
RUN = ["run", "dp_merf"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--seed", "-1"], "--seed must be at least 0, got -1"),
        (["--seed", "1.5"], "--seed must be a whole number, got '1.5'"),
        (["--seed", str(2**63)], "--seed must be at most 9223372036854775807"),
        (["--seed", "9" * 5000], "--seed must be at most 9223372036854775807, got 99999"),
        (["--delta", "0.5"], "--delta must be a number above 0 and at most 0.1, got 0.5"),
        (["--delta", "0"], "--delta must be a number above 0 and at most 0.1, got 0"),
        (["--delta=-1e-5"], "--delta must be a number above 0 and at most 0.1, got -1e-5"),
        (["--delta", "2"], "--delta must be a number above 0"),
        (["--delta", "nan"], "--delta must be a number above 0"),
        (["--delta", "small"], "--delta must be a number above 0 and at most 0.1, got 'small'"),
        (["--epsilon", "-3"], "epsilon must be a number above 0"),
        (["--epsilon", "nan"], "epsilon must be a number above 0"),
        (["--epsilon", "inf"], "epsilon inf takes accounting none"),
        (["--accounting", "none"], "does not go with accounting 'none'"),
        (["--run", ""], "--run is empty"),
        (["--run", "../x"], "--run: run name '../x' must consist of a-z, 0-9 and _"),
        (["--run", "a/b"], "--run: run name 'a/b'"),
        (["--run", "two\nlines"], "--run: run name 'two\\nlines'"),
        (["--run", "real"], "--run: run name 'real' is reserved"),
        (["--run", "nul"], "--run: run name 'nul' is reserved on some systems"),
        (["--run", "x" * 300], "at most 100 characters"),
        (["--over-budget=1"], "ignored explicit argument '1'"),
        (["--budget", "1"], "unrecognized arguments: --budget 1"),
    ],
)
def test_the_options_of_a_plan(data, tmp_path, capsys, arguments, says):
    rest = [] if "--epsilon" in arguments else ["--epsilon", "10"]
    plan = [*PLAN, *rest, "--card", data / "card.json", "--out", tmp_path / "plan.json"]
    run = [*RUN, *rest, "--data", data, "--out", tmp_path / "run"]
    for command in (plan, run):
        assert says in refused(capsys, *command, *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("method", "hyper", "says"),
    [
        ("dp_merf", '{"features": 0}', "dp_merf.features must be 2 to 100000, got 0"),
        ("dp_merf", '{"hidden": 0}', "dp_merf.hidden must be 1 to 8192, got 0"),
        ("dp_merf", '{"hidden": 1000000000}', "dp_merf.hidden must be 1 to 8192, got 1000000000"),
        ("dp_merf", '{"length_scale": -4}', "dp_merf.length_scale must be 0 to 1e+06, got -4.0"),
        ("dp_merf", '{"length_scale": 1e-300}', "dp_merf.length_scale must be 0, or at least 1e-06"),
        ("dp_merf", '{"learning_rate": NaN}', "NaN is no number of JSON"),
        ("dp_merf", '{"decay": 1e400}', "the number 1e400 is too large"),
        ("dp_cgan", '{"generator_every": 0}', "dp_cgan.generator_every must be 1 to 100000, got 0"),
        ("dp_cgan", '{"generator_every": 9, "steps": 8, "batch_size": 4}', "dp_cgan.generator_every must be at most"),
        ("dpgan", '{"generator_every": 9, "steps": 8, "batch_size": 4}', "dpgan.generator_every must be at most steps"),
        ("dp_cgan", '{"steps": 0}', "dp_cgan.steps must be 1 to 10000000, got 0"),
        ("dp_cgan", '{"ema": 7}', "dp_cgan.ema must be 0 to 0.9999, got 7.0"),
        ("dp_cgan", '{"batch_size": 0}', "dp_cgan.batch_size must be 1 to 65536, got 0"),
        ("dp_cgan", '{"batch_size": 41}', "dp_cgan.batch_size must be at most 40, the training records of toy"),
        ("dp_cgan", '{"batch_size": {"one_per": 1e-300}}', "one_per must be at least 1e-12"),
        ("gs_wgan", '{"num_shards": 2, "shards_per_step": 1e-300, "warm_start_steps": 0}', "0, or at least 0.01"),
        ("g_pate", '{"num_teachers": 2, "projected": 784, "batch_size": 4096}', "would hold 2517630976 numbers"),
        ("dp_merf", "[1]", "--hyper must be a mapping of names to values in braces, got [1]"),
        ("dp_merf", "7", "--hyper must be a mapping of names to values in braces, got 7"),
        ("dp_merf", "null", "--hyper must be a mapping of names to values in braces, got null"),
        ("dp_merf", '"x"', '--hyper must be a mapping of names to values in braces, got "x"'),
        ("dp_merf", "none.json", "no such file: none.json (--hyper takes JSON"),
        ("nonprivate", '{"num_shards": 2}', "nonprivate.num_shards must be 1, got 2"),
    ],
)  # fmt: skip
def test_the_settings_of_a_method(data, tmp_path, capsys, method, hyper, says):
    command = ["plan", "--method", method, "--epsilon", "10", "--card", data / "card.json"]
    assert says in refused(capsys, *command, "--hyper", hyper, "--out", tmp_path / "plan.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 100_000, "{a: " * 5000])
def test_a_setting_that_is_no_value_at_all(capsys, value):
    assert "dp_merf.steps must be of type int, got" in refused(capsys, "account", "dp_merf", "--set", f"steps={value}")


@pytest.mark.parametrize(
    ("method", "shape", "says"),
    [
        ("dp_merf", (1, 10, 16), "dp_merf needs image sides that are multiples of 4, toy has 10x16"),
        ("dp_merf", (1, 1, 1), "dp_merf needs image sides that are multiples of 4, toy has 1x1"),
        ("gs_wgan", (3, 27, 27), "the GAN's networks make images of 28x28, 32x32, 64x64, toy has 27x27"),
        ("dp_cgan", (5, 28, 28), "images are grey (1 channel) or colour (3), those of toy have 5"),
        ("dp_cgan", (1, 1025, 28), "data set toy is too large: at most 16 channels, 1024x1024 pixels"),
    ],
)
def test_the_shape_of_the_images(tmp_path, capsys, method, shape, says):
    card = {"dataset": "toy", "image_shape": shape, "num_classes": 10, "splits": {"train": {"count": COUNT}}}
    write_json(tmp_path / "card.json", card)
    command = ["plan", "--method", method, "--epsilon", "10", "--card", tmp_path / "card.json"]
    assert says in refused(capsys, *command, "--out", tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (np.arange(COUNT) % 10 - 1, "has the label -1; labels are 0 .. classes - 1"),
        (np.arange(COUNT) % 11, "has labels 0 .. 10, the card's 10 classes are 0 .. 9"),
        (np.arange(COUNT - 1) % 10, "holds 39 images of [1, 28, 28], the plan was made for 40"),
    ],
)
def test_records_that_are_not_the_plans_are_refused_before_a_charge(data, tmp_path, capsys, labels, says):
    other = prepare(tmp_path / "other", labels=labels)
    plan = [*PLAN, "--epsilon", "10", "--hyper", MERF, "--card", data / "card.json", "--out", tmp_path / "plan.json"]
    assert main([str(part) for part in plan]) == 0
    capsys.readouterr()
    train = ["train", "--plan", tmp_path / "plan.json", "--data", other / "train.npz", "--device", "cpu"]
    assert says in refused(capsys, *train, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("change", ["pixel", "label", "order"])
def test_records_that_were_changed_after_their_card_was_written_are_refused_before_a_charge(tmp_path, capsys, change):
    data = prepare(tmp_path / "data")
    plan = [*PLAN, "--epsilon", "10", "--hyper", MERF, "--card", data / "card.json", "--out", tmp_path / "plan.json"]
    assert main([str(part) for part in plan]) == 0
    records = load_images(data / "train.npz")
    if change == "pixel":
        records.images[7, 0, 3, 5] = 1
    elif change == "label":
        records.labels[11] = 4
    else:
        records = records.take(np.roll(np.arange(COUNT), 1))
    write_npz(data / "train.npz", images=records.images, labels=records.labels)
    capsys.readouterr()
    train = ["train", "--plan", tmp_path / "plan.json", "--data", data / "train.npz", "--device", "cpu"]
    run = [*RUN, "--data", data, "--epsilon", "10", "--device", "cpu", *(f"--set={one}" for one in SMALL)]
    for command in (train, run):
        says = "train.npz is not what the card.json beside it describes"
        assert says in refused(capsys, *command, "--out", tmp_path / "run")
    assert not (tmp_path / "run" / "private").exists()


def test_a_plan_without_its_costs_is_not_trained(data, tmp_path, capsys):
    plan = [*PLAN, "--epsilon", "10", "--hyper", MERF, "--card", data / "card.json", "--out", tmp_path / "plan.json"]
    assert main([str(part) for part in plan]) == 0
    content = read_json(tmp_path / "plan.json")
    del content["eps_published"]
    write_json(tmp_path / "plan.json", content)
    capsys.readouterr()
    train = ["train", "--plan", tmp_path / "plan.json", "--data", data / "train.npz", "--out", tmp_path / "run"]
    assert "plan.json does not say what its run costs; make it by python -m methods plan" in refused(capsys, *train)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sample", "--run", "x", "--out", "y", "--num", "0"], "--num must be at least 1, got 0"),
        (["sample", "--run", "x", "--out", "y", "--num", str(10**9)], "--num must be at most 10000000"),
        (["sample", "--run", "x", "--out", "y", "--num", "5", "--threads", "2000"], "--threads must be at most 1024"),
        (["sample", "--run", "x", "--out", "y"], "the following arguments are required: --num"),
        (["release", "dp_merf", "--data", "x", "--out", "y", "--delta", "0.5"], "--delta must be a number above 0"),
        (["release", "dp_merf", "--data", "x", "--out", "y", "--num", "-5"], "--num must be at least 1, got -5"),
        (["warm-start", "--method", "gs_wgan", "--settings", "{}", "--card", "x", "--data", "y", "--out", "z", "--seed",
          "-2"], "--seed must be at least 0, got -2"),
        (["account", "dp_merf", "--noise", "nan"], "--noise must be a number from 0 to 1e+06, got nan"),
        (["account", "dp_merf", "--noise", "1e300"], "--noise must be a number from 0 to 1e+06, got 1e300"),
        (["account", "dp_merf", "--records", "many"], "--records must be a whole number, got 'many'"),
        (["account", "dp_merf", "--records", str(2 * 10**9)], "data set mnist is too large"),
        (["account", "dp_merf", "--epsilon", "10,,1"], "epsilon must be a finite number above 0"),
        (["audit", "dp_merf", "--seconds", "inf"], "--seconds must be a number above 0 and at most 1e+06, got inf"),
        (["audit", "dp_merf", "--canaries", "0"], "--canaries must be at least 1, got 0"),
        (["audit", "dp_merf", "--confidence", "nan"], "--confidence must be a number above 0 and at most 1, got nan"),
        (["audit", "dp_merf", "--audit-seed", "-1"], "--audit-seed must be at least 0, got -1"),
        (["audit", "dp_merf", "--confidence", "sure"], "--confidence must be a number above 0 and at most 1"),
        (["run", "dp_merf", "--data", "x", "--out", "y", "--minutes", "abc"], "--minutes must be a number above 0"),
        (["run", "dp_merf", "--data", "x", "--out", "y", "--minutes", "-1"], "--minutes must be a number above 0"),
        (["run", "dp_merf", "--data", "x", "--out", ""], "--out is empty; give a value, or leave it out"),
        (["release", "dp_merf", "--data", "x", "--out", " "], "--out is empty"),
        (["release", "dp_merf", "--data=", "--out", "y"], "--data is empty"),
        (["join", "", "--out", "y"], "an argument is empty"),
        (["run", "dp_merf", "--data", "x", "--out", "y", "--seed", "1e3"], "got '1e3'; write 1000"),
        (["run", "dp_merf", "--data", "x", "--out", "y", "--num", "six"], "got 'six'; write it in digits, such as 10"),
        (["account", "dp_merf", "--set", "steps=3", "--set", "steps=4"],
         "--set gives steps twice, the second time as 'steps=4'"),
        (["audit-coverage", "--audits", "0"], "--audits must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_the_options_of_the_other_commands(tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    assert says in refused(capsys, *arguments)
    assert not list(tmp_path.iterdir())


def test_a_warm_start_for_a_method_without_one_is_refused_before_a_charge(data, tmp_path, capsys):
    plan = ["plan", "--method", "dp_merf", "--card", data / "card.json", "--epsilon", "10", "--hyper", MERF]
    assert main([str(word) for word in [*plan, "--out", tmp_path / "plan.json"]]) == 0
    capsys.readouterr()
    train = ["train", "--plan", tmp_path / "plan.json", "--data", data / "train.npz", "--out", tmp_path / "run"]
    told = refused(capsys, *train, "--warm-start", tmp_path / "critics")
    assert "dp_merf starts from no warm start with these settings; leave out" in told
    assert not list(tmp_path.rglob("ledger.jsonl"))


def test_a_run_is_not_begun_in_the_folder_of_its_data(data, capsys):
    before = sorted(data.iterdir())
    told = refused(capsys, *RUN, "--data", data, "--out", data / ".." / data.name)
    assert "is the folder of the data; choose another" in told
    assert sorted(data.iterdir()) == before


def test_a_delta_that_is_not_below_one_over_the_records_is_warned_of_with_one_that_would_do(data, tmp_path, capsys):
    why = "it allows giving one record away whole; use "
    told = f"warning: delta 0.05 is not below 1 / records = 0.025: {why}0.01, or less\n"
    plan = [*PLAN, "--epsilon", "10", "--hyper", MERF, "--card", data / "card.json", "--out", tmp_path / "plan.json"]
    settings = ["--set", "features=32", "--set", "steps=1", "--set", "hidden=8", "--num", "10", "--device", "cpu"]
    run = [*RUN, "--data", data, "--out", tmp_path / "run", *settings]
    account = ["account", "dp_merf", "--records", "40"]
    for command in (plan, run, account):
        assert main([str(part) for part in (*command, "--delta", "0.05")]) in (0, None)
        assert capsys.readouterr().err.count(told) == 1
    shutil.rmtree(tmp_path / "run")
    for command in (plan, account):
        assert main([str(part) for part in (*command, "--delta", "0.01")]) in (0, None)
        assert "warning" not in capsys.readouterr().err
    for command in (plan, account):
        assert main([str(part) for part in (*command, "--delta", "0.01", "--epsilon", "1e6")]) in (0, None)
        told = "warning: epsilon 1e+06 promises next to nothing: e^epsilon is at least 100,000"
        assert capsys.readouterr().err.count(told) == 1
    own = ["account", "dp_merf", "--preset", "own", "--records", "100000"]
    assert main(own) in (0, None)
    assert f"warning: delta 1e-05 is not below 1 / records = 1e-05: {why}1e-06" in capsys.readouterr().err
