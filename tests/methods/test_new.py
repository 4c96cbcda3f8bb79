"""`new`: what it refuses, and that what it writes is a whole method of at most 80 lines."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import methods
from methods.__main__ import main
from methods.commands import new
from methods.core import registry
from methods.core.privacy.private_data import PrivateData
from methods.core.release import Budget, PublicSpec
from methods.core.runs import generator
from methods.core.runs.plan import Plan
from methods.core.runs.sample import draw
from methods.core.runs.train import train
from workflow.common.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of methods that stands beside the real one."""
    monkeypatch.setattr(registry, "FOLDER", tmp_path)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    return tmp_path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Foo", "run name 'Foo' must consist of a-z, 0-9 and _, a letter first"),
        ("1st", "must consist of"),
        ("a-b", "must consist of"),
        ("foo.py", "must consist of"),
        ("../foo", "must consist of"),
        ("_foo", "must consist of"),
        ("a" * 101, "at most 100 characters"),
        ("class", "'class' is taken by Python or the suite; choose another, such as class_gan"),
        ("core", "'core' is taken by Python or the suite"),
        ("external", "'external' is taken"),
        ("real", "'real' is reserved"),
        ("con", "'con' is reserved on some systems"),
        ("there", "there is a method 'there' already"),
    ],
)
def test_a_name_that_cannot_be_is_one_line_and_nothing_is_written(name, says, folder, capsys) -> None:
    (folder / "there.py").write_text("mine = 1\n")
    assert main(["new", name]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error and error.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["there.py"]
    assert (folder / "there.py").read_text() == "mine = 1\n"


def test_what_is_written_is_short_clean_and_says_what_to_do_next(folder, capsys) -> None:
    assert main(["new", "two_words"]) == 0
    shown = capsys.readouterr().out
    text = (folder / "two_words.py").read_text()
    assert len(text.splitlines()) <= 80 and "class TwoWords(Method):" in text and "$" not in text
    assert "two_words: {}" in shown and "tests/contract -k two_words" in shown
    for check in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *check, "--config", str(ROOT / "pyproject.toml")]
        done = subprocess.run([*command, str(folder / "two_words.py")], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_the_commands_it_prints_are_those_of_the_walk_through(folder, capsys) -> None:
    assert main(["new", "class_means"]) == 0
    shown = capsys.readouterr().out
    page = (ROOT / "docs/add-a-method.md").read_text()
    commands = re.findall(r"(?:dpbench|python -m) .*class_means$|dpbench graph.*", shown, re.MULTILINE)
    assert [command for command in commands if command not in page] == []
    assert len(commands) == 3 and "  class_means: {}\n" in page and "class_means: {}\n" in shown
    assert set(re.findall(r"dpbench \w+|python -m \w+", shown)) <= set(re.findall(r"dpbench \w+|python -m \w+", page))


@pytest.mark.parametrize("name", ["true", "none", "release", "method", "private_data", "hyper"])
def test_a_class_takes_no_name_that_means_something_else_in_its_file(name, folder) -> None:
    new.write(name)
    spec = PublicSpec("toy", (1, 8, 8), 2, 900)
    (release,) = registry.load(name).releases(registry.load(name).Hyper(), spec, 1.0)
    assert release.name == "sums"


def test_it_trains_at_a_sound_epsilon_and_its_images_are_near_their_classes(folder, tmp_path) -> None:
    new.write("fresh_one")
    spec = PublicSpec("toy", (3, 20, 16), 3, 900)
    plan = Plan.make("fresh_one", "fresh_one", {"side": 8}, spec, Budget(5.0, 1e-5, "sound"), 0)
    assert 4.9 < plan.costs["sound"] <= 5.0
    labels = torch.arange(900) % 3
    # Each class has one channel that is bright.
    images = torch.full((900, 3, 20, 16), 20, dtype=torch.uint8)
    images[torch.arange(900), labels] = 220
    train(plan, PrivateData(images, labels), tmp_path / "run", CPU, None)
    drawn, of = draw(plan, generator.load(tmp_path / "run"), 300, CPU)
    assert drawn.shape == (300, 3, 20, 16)
    for label in range(3):
        brightest = drawn[of == label].astype(float).mean((0, 2, 3)).argmax()
        assert brightest == label


@pytest.mark.parametrize(
    ("old", "changed", "says"),
    [
        ("max_uses=1", "uses=1", "`releases` ended with TypeError: Release.__init__() got an unexpected keyword"),
        ("max_uses=1", "max_uses=(_ for _ in ()).throw(ValueError('two\\nlines'))", "with ValueError: two lines ("),
        ("max_uses=1", "max_uses=hp.steps", "no attribute 'steps' (at wrong.py line "),
        ("max_uses=1", "max_uses=3 / 2", "max_uses of release sums must be a whole number, got 1.5"),
        ("max_uses=1", "max_uses=float('nan')", "max_uses of release sums must be a whole number, got nan"),
        ("max_uses=1", "max_uses=None", "max_uses of release sums must be a whole number, got None"),
        ("rows=public.num_train", "rows=public.num_train / 1", "rows of release sums must be a whole number"),
        ("clip=1.0", "clip='1'", "clip of release sums must be a number, got '1'"),
        ("max_uses=1),)", "max_uses=1))", "`releases` must return a tuple of Release, (Release(...),) for one"),
        ("        return (Release", "        _ = (Release", "for one; got None"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("budget", [Budget(10.0, 1e-5, "sound"), Budget(math.inf, 1e-5, "none")], ids=["10", "inf"])
def test_a_wrong_declaration_is_one_line_that_says_what_is_wrong(
    old, changed, says, budget, folder, monkeypatch
) -> None:
    path = new.write("wrong")
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, changed))
    monkeypatch.delitem(sys.modules, "methods.wrong", raising=False)
    with pytest.raises(UserError, match=re.escape(says)) as refusal:
        Plan.make("wrong", "wrong", {}, PublicSpec("toy", (1, 8, 8), 2, 900), budget, 0)
    assert "\n" not in str(refusal.value)


def test_releases_may_be_declared_by_a_function_that_needs_no_class(folder, monkeypatch) -> None:
    path = new.write("plain")
    text = path.read_text()
    declared = re.search(r"    @classmethod\n    def releases\(cls, ", text)
    assert declared
    path.write_text(text.replace(declared[0], "    @staticmethod\n    def releases("))
    monkeypatch.delitem(sys.modules, "methods.plain", raising=False)
    for budget in (Budget(10.0, 1e-5, "sound"), Budget(math.inf, 1e-5, "none")):
        assert Plan.make("plain", "plain", {}, PublicSpec("toy", (1, 8, 8), 2, 900), budget, 0).releases
