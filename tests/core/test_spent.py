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


def test_a_last_line_without_its_end_stays_a_line_of_its_own(tmp_path):
    spent.record(tmp_path, entry("a", 1.0, "replace_one"))
    path = tmp_path / "spent.jsonl"
    path.write_text(path.read_text().rstrip("\n"))
    spent.record(tmp_path, entry("b", 1.0, "replace_one"))
    assert [line["id"] for line in spent.entries(tmp_path)] == ["a", "b"]


def test_a_full_disk_leaves_the_record_as_it_was(tmp_path, monkeypatch):
    spent.record(tmp_path, entry("a", 1.0, "replace_one"))
    before = (tmp_path / "spent.jsonl").read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spent.os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        spent.record(tmp_path, entry("b", 1.0, "replace_one"))
    assert (tmp_path / "spent.jsonl").read_bytes() == before


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "a"}', '{"id": "a", "epsilon": "x", "delta": 1, "adjacency": []}',
    '{"id": "a", "epsilon": "10", "delta": 1, "adjacency": ["replace_one"]}',
    '{"id": "a", "epsilon": NaN, "delta": 1, "adjacency": ["replace_one"]}',
    '{"id": "a", "epsilon": 1, "delta": 1, "adjacency": [1]}', '{"id": "b", "published": true}'])  # fmt: skip
def test_a_damaged_record_is_not_read_over(tmp_path, line):
    (tmp_path / "spent.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match="damaged"):
        spent.record(tmp_path, entry("b", 1.0, "replace_one"))


def test_what_was_given_away_is_marked_once_and_cannot_be_begun_again(tmp_path):
    for name in ("a", "b"):
        spent.record(tmp_path, entry(name, 1.0, "replace_one"))
    for name in ("a", "a", "stranger"):
        spent.mark_published(tmp_path, name)
    assert len((tmp_path / "spent.jsonl").read_text().splitlines()) == 3
    assert [(line["id"], line.get("published")) for line in spent.entries(tmp_path)] == [("a", True), ("b", None)]
    spent.record(tmp_path, entry("b", 1.0, "replace_one"))
    with pytest.raises(UserError, match="given away before"):
        spent.record(tmp_path, entry("a", 1.0, "replace_one"))
