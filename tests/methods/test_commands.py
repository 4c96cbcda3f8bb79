"""The command line of the methods: what there is, what is said of it, and how a broken file is reported."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

import methods
from methods.__main__ import VERBS, main
from methods.commands.describe import describe
from methods.core import registry
from workflow.common.departures import EVALUATION
from workflow.common.errors import UserError

COMMANDS = Path(registry.FOLDER) / "commands"


def test_every_verb_is_a_file_of_its_own():
    files = {path.stem.replace("_", "-") for path in COMMANDS.glob("*.py")} - {"--init--", "arguments"}
    assert set(VERBS) == files


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_describes_its_options(verb, capsys):
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    assert VERBS[verb].split(":")[0] in " ".join(capsys.readouterr().out.split())


def test_list_names_every_method(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == registry.names()


def test_describe_gives_each_setting_its_default_range_and_meaning(capsys):
    assert main(["describe", "dpac"]) == 0
    text = capsys.readouterr().out
    assert "batch_size (int, default 32, 1 to 16384): generated images per generator step" in text
    assert "generator (str, default 'resnet', resnet or dcgan): " in text
    assert "mnist, epsilon 10: the defaults" in text and "departure" in text
    for field in dataclasses.fields(registry.load("dpac").Hyper):
        assert f"  {field.name} (" in text


@pytest.mark.parametrize("name", registry.names())
def test_describe_shows_the_departures_of_training_and_under_a_heading_of_their_own_those_of_the_evaluation(name):
    training, evaluation = describe(name).split("\nsources:\n")[1].split("\n\nevaluation, ")
    assert training.split("\n") == [f"  {source}" for source in registry.load(name).SOURCES]
    assert evaluation.split("\n")[1:] == [f"  {source}" for source in EVALUATION]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("gs_wgan", ["16 iterations", "on every forward pass", "move v first"]),
        ("dpac", ["16 iterations", "on every forward pass"]),
        ("dp_sinkhorn", ["twice the divergence's", "cosine of 0.9 to 1.0", "16 iterations"]),
        ("datalens", ["TensorFlow's one and two", "labels of each teacher's own records"]),
        ("pate_gan", ["samples from N(0, 1)"]),
        ("dp_merf", ["rounded to 8 bits", "torch MLP", "no horizontal flips", "learns the test split"]),
    ],
)
def test_departures_that_were_once_silent_are_named(name, parts):
    text = describe(name)
    assert [part for part in parts if part not in text] == []


def test_a_misspelt_method_is_met_with_the_nearest_one(capsys):
    assert main(["describe", "dpca"]) == 2
    assert "unknown method 'dpca'; did you mean 'dpac'? valid: " in capsys.readouterr().err


@pytest.fixture(params=["def f(:", "import a_package_that_is_not_there", "raise ValueError('two\\nlines')"])
def broken(request, tmp_path, monkeypatch) -> str:
    """The name of a method file that cannot be imported, next to the real ones."""
    for name in registry.names():
        (tmp_path / f"{name}.py").touch()
    (tmp_path / "unlikely.py").write_text(request.param)
    monkeypatch.setattr(registry, "FOLDER", tmp_path)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    return "unlikely"


def test_a_method_file_that_cannot_be_loaded_is_one_line_and_the_others_are_listed(broken, capsys):
    assert main(["list"]) == 2
    shown = capsys.readouterr()
    assert [line.split(":")[0] for line in shown.out.splitlines()] == [n for n in registry.names() if n != broken]
    assert shown.err.startswith(f"error: methods/{broken}.py cannot be loaded: ") and shown.err.count("\n") == 1
    assert main(["describe", broken]) == 2
    error = capsys.readouterr().err
    assert "cannot be loaded" in error and " datalens, " in error and error.count("\n") == 1
    assert main(["describe", "dpac"]) == 0


def test_paper_is_refused_wherever_nothing_was_published_and_names_what_was(tmp_path, capsys):
    with pytest.raises(UserError, match="no published setting of dp_merf for mnist at epsilon 10; valid: mnist at eps"):
        registry.paper_settings("dp_merf", "mnist", 10.0)
    for verb in (["account", "dp_merf"], ["audit", "dp_merf"]):
        assert main([*verb, "--paper", "--dataset", "mnist"]) == 2
        assert "no published setting of dp_merf for mnist at epsilon 10" in capsys.readouterr().err


def test_the_command_line_itself_has_help_and_meets_a_misspelt_verb_with_the_nearest_one(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0 and all(verb in text for verb in VERBS)
    assert main(["lst"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown command 'lst'; did you mean 'list'? valid: account, ")


def test_a_method_without_settings_is_said_to_need_them(tmp_path, monkeypatch, capsys):
    (tmp_path / "unlikely.py").write_text("from methods.core.method import Method\n\n\nclass Foo(Method):\n    pass\n")
    monkeypatch.setattr(registry, "FOLDER", tmp_path)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    assert main(["describe", "unlikely"]) == 2
    assert "methods/unlikely.py: Foo needs a frozen dataclass `Hyper`" in capsys.readouterr().err


def test_noise_is_calibrated_by_the_sound_count_unless_something_else_is_asked_for(tmp_path):
    hyper = '{"steps": 2, "num_shards": 6, "warm_start_steps": 0}'
    arguments = ["plan", "--method", "gs_wgan", "--hyper", hyper, "--card", CARD % ("[1, 28, 28]", "10", WHOLE)]
    assert main([*arguments, "--epsilon", "10", "--out", str(tmp_path / "plan.json")]) == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["accounting"] == "sound" and plan["eps_sound"] <= 10


CARD = '{"dataset": "a", "image_shape": %s, "num_classes": %s, "splits": %s}'
WHOLE = '{"train": {"count": 60}}'


@pytest.mark.parametrize(
    ("card", "says"),
    [
        (CARD % ('"abc"', "2", WHOLE), "needs image_shape [C, H, W]"),
        (CARD % ("[1, 28]", "2", WHOLE), "needs image_shape [C, H, W]"),
        (CARD % ("[1, 28, 28]", "0", WHOLE), "whole numbers above 0"),
        (CARD % ("[1, 28, 28]", "2", '{"train": {"count": "5"}}'), "whole numbers above 0"),
        (CARD % ("[1, 28, 28]", "2", "5"), "not a data set card"),
        (CARD % ("[1, 28, 28]", "2", "{}"), "lacks 'train'"),
    ],
)
def test_a_malformed_card_is_one_line(card, says, tmp_path, capsys):
    arguments = ["plan", "--method", "dp_merf", "--card", card, "--epsilon", "10", "--out", str(tmp_path / "plan.json")]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and not (tmp_path / "plan.json").exists()


def test_an_output_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    card = CARD % ("[1, 28, 28]", "10", WHOLE)
    for out in (tmp_path, tmp_path / "file" / "plan.json"):
        assert main(["plan", "--method", "dp_merf", "--card", card, "--epsilon", "10", "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert f"cannot write {out}: " in error and error.count("\n") == 1
