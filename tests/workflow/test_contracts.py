"""The folder of a run: five names to a path, and a path back to the five."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from workflow.common.contracts import RunFolder, format_epsilon, parse_epsilon, run_folders
from workflow.common.errors import UserError


@pytest.mark.parametrize(
    ("folder", "path"),
    [
        (RunFolder(Path("results/quick"), "mnist", "dpac", 10.0, 0), "results/quick/runs/mnist/dpac/eps10/seed0"),
        (RunFolder(Path("r"), "mnist", "real", math.inf, 12), "r/runs/mnist/real/epsinf/seed12"),
        (RunFolder(Path("r"), "celeba", "dp_merf", 0.2, 1), "r/runs/celeba/dp_merf/eps0.2/seed1"),
    ],
)
def test_a_run_folder_and_its_path_are_the_same(folder, path):
    assert str(folder.path) == path
    assert RunFolder.parse(path) == folder == RunFolder.parse(Path(path))


def test_the_folder_one_stands_in_is_read_from_its_absolute_path(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path, "mnist", "dpac", 10.0, 0)
    folder.path.mkdir(parents=True)
    monkeypatch.chdir(folder.path)
    assert RunFolder.parse(".") == folder


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("runs/mnist/dpac/seed0", "not a run folder: runs/mnist/dpac/seed0; expected .../runs/<dataset>/<run>"),
        ("results/quick/rnus/mnist/dpac/eps10/seed0", "not a run folder"),
        ("r/runs/mnist/dpac/eps10/sed0", "not a run folder"),
        ("r/runs/mnist/dpac/eps0/seed0", "epsilon must be a number above 0"),
        ("r/runs/mnist/dpac/epsten/seed0", "epsilon must be a number above 0"),
        ("r/runs/mnist/dpac/eps10.0/seed0", "eps10.0 in a path must be written eps10"),
        ("r/runs/mnist/dpac/eps10/seedx", "seed in a path must be an integer from 0, such as seed0; got 'seedx'"),
        ("r/runs/mnist/dpac/eps10/seed007", "seed007 in a path must be written seed7"),
        ("r/runs/mnist/dpac/eps1234568.0/seed1", "eps1234568.0 in a path must be written eps1234568"),
        ("r/runs/mnist/dpac/eps1e400/seed1", "epsilon must be a number above 0, or inf"),
    ],
)
def test_a_path_of_another_shape_is_refused(path, message):
    with pytest.raises(UserError) as error:
        RunFolder.parse(path)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("epsilon", "name"),
    [
        (10.0, "10"), (0.5, "0.5"), (math.inf, "inf"), (1e6, "1e+06"), (1234567.0, "1234567"),
        (10.0000001, "10.0000001"), (math.nextafter(1.0, 2.0), "1.0000000000000002"), (2.5e-9, "2.5e-09"),
    ],
)  # fmt: skip
def test_an_epsilon_has_one_name_that_reads_back_as_itself(epsilon, name):
    assert format_epsilon(epsilon) == name
    assert parse_epsilon(name) == epsilon


def test_all_run_folders_under_a_root_are_listed_by_path(tmp_path):
    folders = [RunFolder(tmp_path, "mnist", run, epsilon, 0) for run, epsilon in (("b", 1.0), ("a", math.inf))]
    for folder in folders:
        folder.path.mkdir(parents=True)
    (tmp_path / "data/mnist").mkdir(parents=True)
    assert run_folders(tmp_path) == folders[::-1]
    assert run_folders(tmp_path, [str(folders[0].path)]) == folders[:1]
    assert run_folders(tmp_path / "nowhere") == []
