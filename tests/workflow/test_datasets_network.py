"""The real files from the registries; off by default."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflow.common.files import read_json
from workflow.datasets.__main__ import main


@pytest.mark.network
@pytest.mark.parametrize(
    ("name", "first_class"), [("mnist", (5923, 980)), ("fashion_mnist", (6000, 1000))], ids=["mnist", "fashion_mnist"]
)
def test_the_full_data_set_arrives(tmp_path: Path, name: str, first_class: tuple[int, int]) -> None:
    assert main([name, "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]) == 0
    splits = read_json(tmp_path / "out/card.json")["splits"]
    assert (splits["train"]["count"], splits["test"]["count"]) == (60_000, 10_000)
    assert (splits["train"]["per_class"][0], splits["test"]["per_class"][0]) == first_class
