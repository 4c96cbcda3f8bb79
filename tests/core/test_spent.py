"""The owner's record of releases: added once, summed for each kind of neighbour, refused where it is damaged."""

from __future__ import annotations

import pytest

from methods.core.runs import spent
from workflow.common.errors import UserError


def entry(name: str, epsilon: float, *adjacency: str) -> dict:
    return {"id": name, "epsilon": epsilon, "delta": 1e-5, "adjacency": list(adjacency)}


def test_a_release_is_recorded_once(tmp_path):
    for name in ("a", "b", "a"):
        spent.record(tmp_path, entry(name, 1.0, "replace_one"))
    assert [line["id"] for line in spent.entries(tmp_path)] == ["a", "b"]


def test_kinds_of_neighbours_are_summed_apart():
    kinds = [("a", 1.0, "replace_one"), ("b", 2.5, "replace_one"), ("c", 4.0, "add_or_remove")]
    assert spent.total([entry(*kind) for kind in kinds]) == (
        "epsilon 3.5 at delta 2e-05 against replacing one picture, and epsilon 4 at delta 1e-05 against adding or"
        " removing one picture"
    )


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "a"}', '{"id": "a", "epsilon": "x", "delta": 1, "adjacency": []}'])
def test_a_damaged_record_is_not_read_over(tmp_path, line):
    (tmp_path / "spent.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match="damaged"):
        spent.record(tmp_path, entry("b", 1.0, "replace_one"))
