"""The lists of runs that stand for thousands of arguments."""

from __future__ import annotations

import argparse
import dataclasses
import math
import shlex
from pathlib import Path

import pytest

from workflow.common.at_file import AtFile
from workflow.common.errors import UserError
from workflow.grid import Job, canonical
from workflow.run_list import compact, folders, main


def jobs(dataset: str, run: str, epsilons: list[float], seeds: list[int], external: str = "") -> list[Job]:
    one = Job(dataset, run, "m", 1.0, 0, "sound", False, {}, False, external)
    return [dataclasses.replace(one, epsilon=epsilon, seed=seed) for epsilon in epsilons for seed in seeds]


GRID = [
    *jobs("mnist", "b", [10, 0.5], [3, 0]),
    *jobs("mnist", "a", [math.inf], [3, 0]),
    *jobs("mnist", "theirs", [2.0], [0], external="samples.npz"),
    *jobs("digits", "b", [10, 0.5], [3, 0]),
]


def test_the_lists_name_every_run_in_the_order_of_the_grid(tmp_path):
    root = tmp_path / "results/p"
    grid = canonical(compact(GRID))
    lists = [tmp_path / name for name in ("runs.txt", "plans.txt")]
    assert main(["--root", str(root), "--grid", grid, "--runs", str(lists[0]), "--plans", str(lists[1])]) == 0
    assert lists[0].read_text().splitlines() == [job.folder(root) for job in GRID]
    trained = [f"{job.folder(root)}/plan.json" for job in GRID if not job.external]
    assert lists[1].read_text().splitlines() == trained


def test_a_grid_of_1240_runs_is_a_short_argument():
    names = [f"a_run_with_a_longish_name_{number}" for number in range(16)]
    pairs = [(data, name) for name in names for data in ("mnist", "fashion_mnist")][:31]
    many = [one for pair in pairs for one in jobs(*pair, [1, 3, 5, 10], list(range(10)))]
    assert len(many) == len(list(folders(Path("r"), compact(many)))) == 1240
    assert len(shlex.quote(canonical(compact(many)))) < 2500


@pytest.mark.parametrize(
    "grid",
    [
        {},
        {"sweeps": [], "runs": [["mnist/a", 0, True]]},
        {"sweeps": [[["1"], [0]]], "runs": [["mnist", 0, True]]},
        {"sweeps": [[["1"], [0]]], "runs": ["mnist/a"]},
        {"sweeps": [[["1"], 0]], "runs": [["mnist/a", 0, True]]},
        {"sweeps": [[["none"], [0]]], "runs": [["mnist/a", 0, True]]},
        {"sweeps": [[["1"], [-1]]], "runs": [["mnist/a", 0, True]]},
        {"sweeps": [[["1"], ["x"]]], "runs": [["mnist/a", 0, True]]},
    ],
)
def test_a_grid_of_another_shape_is_refused(grid):
    with pytest.raises(UserError):
        list(folders(Path("r"), grid))


def parsed(*arguments: str) -> list[str]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", nargs="+", action=AtFile)
    parser.add_argument("more", nargs="*", action=AtFile)
    options = parser.parse_args(arguments)
    return options.more or options.runs


def test_a_file_stands_for_its_lines_among_other_values(tmp_path):
    (tmp_path / "list.txt").write_text("two words\n\n three \n")
    given = ["one", f"@{tmp_path}/list.txt", "four"]
    assert parsed("--runs", *given) == parsed(*given) == ["one", "two words", "three", "four"]


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"\xff\xfe\x00"])
def test_a_list_that_names_nothing_is_refused_by_its_name(tmp_path, content):
    if content is not None:
        (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"list\.txt"):
        parsed("--runs", f"@{tmp_path}/list.txt")
