"""The list of mutants fits the code, and the command tells a caught one from one that survives."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest
from toys import ROOT

from methods.core import registry
from tests.faults.mutate import Mutant, caught_by, mutants, tree

MUTANTS = mutants()


def test_each_mutant_is_one_change_that_python_can_read():
    for mutant in MUTANTS:
        ast.parse(mutant.text(ROOT))
        assert mutant.new != mutant.old and mutant.breaks
        assert mutant.tests and all((ROOT / test).exists() for test in mutant.tests)


def test_the_privacy_core_and_every_method_have_mutants():
    files = {mutant.file for mutant in MUTANTS}
    core = [*(ROOT / "methods/core/privacy").glob("*.py"), *(ROOT / "methods/core/accounting").glob("*.py")]
    wanted = [path for path in core if path.name != "__init__.py"]
    wanted += [ROOT / "methods" / f"{name}.py" for name in registry.names()]
    assert not {path.relative_to(ROOT).as_posix() for path in wanted} - files
    assert len(MUTANTS) >= 80


@pytest.fixture
def copy(tmp_path) -> Path:
    """A checkout of one module and one test."""
    origin = tmp_path / "origin"
    (origin / "tests").mkdir(parents=True)
    (origin / "double.py").write_text("def double(x):\n    unused = 1\n    return 2 * x\n")
    test = "from double import double\n\n\ndef test_double():\n    assert double(3) == 6\n"
    (origin / "tests" / "test_double.py").write_text(test)
    (origin / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n')
    subprocess.run(["git", "init", "-q"], cwd=origin, check=True)
    return tree(origin, tmp_path / "copy")


def mutant(old: str, new: str) -> Mutant:
    return Mutant("double.py", old, new, "the sum", ("tests/test_double.py",))


def test_a_fault_that_a_test_sees_is_caught_and_one_that_none_sees_survives(copy):
    before = (copy / "double.py").read_text()
    assert caught_by(mutant("2 * x", "3 * x"), copy) == "tests/test_double.py::test_double"
    assert caught_by(mutant("unused = 1", "unused = 2"), copy) is None
    assert (copy / "double.py").read_text() == before


def test_a_mutant_whose_line_is_gone_is_an_error(copy):
    with pytest.raises(ValueError, match="holds 0 times: 4 \\* x"):
        caught_by(mutant("4 * x", "3 * x"), copy)
