"""The command line of the methods: what there is, what is said of it, and how a broken file is reported."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import methods
from methods.__main__ import VERBS, main
from methods.core import registry
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
    assert "batch_size (int, default 32, at least 1): generated images per generator step" in text
    assert "generator (str, default 'resnet', resnet or dcgan): " in text
    assert "mnist, epsilon 10: the defaults" in text and "Departure" in text
    for field in dataclasses.fields(registry.load("dpac").Hyper):
        assert f"  {field.name} (" in text


def test_a_misspelt_method_is_met_with_the_nearest_one(capsys):
    assert main(["describe", "dpca"]) == 2
    assert "unknown method 'dpca'; did you mean 'dpac'? valid: " in capsys.readouterr().err


@pytest.fixture(params=["def f(:", "import a_package_that_is_not_there", "raise ValueError('two\\nlines')"])
def broken(request, tmp_path, monkeypatch) -> str:
    """The name of a method file that cannot be imported, next to the real ones."""
    for name in registry.names():
        (tmp_path / f"{name}.py").touch()
    (tmp_path / "foo.py").write_text(request.param)
    monkeypatch.setattr(registry, "FOLDER", tmp_path)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    return "foo"


def test_a_method_file_that_cannot_be_loaded_is_one_line_and_the_others_are_listed(broken, capsys):
    assert main(["list"]) == 2
    shown = capsys.readouterr()
    assert [line.split(":")[0] for line in shown.out.splitlines()] == [n for n in registry.names() if n != broken]
    assert shown.err.startswith(f"error: methods/{broken}.py cannot be loaded: ") and shown.err.count("\n") == 1
    assert main(["describe", broken]) == 2
    error = capsys.readouterr().err
    assert "cannot be loaded" in error and "other methods: datalens, " in error and error.count("\n") == 1
    assert main(["describe", "dpac"]) == 0


def test_paper_is_refused_wherever_nothing_was_published_and_names_what_was(tmp_path, capsys):
    with pytest.raises(UserError, match="no published setting of dp_merf for mnist at epsilon 10; valid: mnist at eps"):
        registry.paper_settings("dp_merf", "mnist", 10.0)
    for verb in (["account", "dp_merf"], ["audit", "dp_merf"]):
        assert main([*verb, "--paper", "--dataset", "mnist"]) == 2
        assert "no published setting of dp_merf for mnist at epsilon 10" in capsys.readouterr().err
