"""An error of a configuration names the file, or --config, that set the value, and how to mend it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evaluation.protocol import Protocol
from methods.core import registry
from workflow import merging, presets
from workflow.common.errors import UserError
from workflow.datasets.sources import NAMES
from workflow.datasets.tree import Level, Tree

KEYS = [field.name for field in dataclasses.fields(Protocol)]
OWN = {"lesions": {"folder": "pictures"}}


def refused(file: Mapping[str, Any], command_line: Mapping[str, Any]) -> str:
    layer = presets.Layer("mine.yaml", {"extends": "own", **file})
    with pytest.raises(UserError) as refusal:
        presets.load(
            {"preset": "mine", **command_line}, datasets=NAMES, methods=registry, protocol_keys=KEYS, files=[layer]
        )
    return str(refusal.value)


@pytest.mark.parametrize("value", [3, "", " ", None, [1], 2.5, True])
def test_data_sets_of_no_form_are_refused_with_the_name_of_their_file(value) -> None:
    text = refused({"datasets": value}, {})
    assert text.startswith("mine.yaml: datasets holds") and "NAME: {folder: PATH}" in text


@pytest.mark.parametrize(
    ("file", "command_line", "starts"),
    [
        ({"datasets": "look"}, {}, "unknown data set 'look' in mine.yaml"),
        ({"datasets": OWN}, {"datasets": {"lesions": {"size": "29"}}}, "--config: datasets.lesions: size must be"),
        ({"datasets": {"lesions": {"folder": "p", "fit": "cut"}}}, {"datasets": {"lesions": {"size": 28}}},
         "mine.yaml: datasets.lesions: setting fit of data set lesions must be crop or pad, got "),
        ({"datasets": OWN}, {"datasets": {"lesions": {"fodler": "x"}}}, "--config: datasets.lesions: unknown setting"),
        ({"datasets": OWN}, {"epsilons": "1,nan"}, "--config: epsilons: epsilon must be a number above 0"),
        ({"datasets": OWN, "epsilons": [0]}, {"seeds": [0]}, "mine.yaml: epsilons: epsilon must be a number above 0"),
        ({"datasets": OWN}, {"seeds": "x"}, "--config: seeds: 'x' is no seed"),
        ({"datasets": OWN, "delta": 2}, {"threads": 1}, "mine.yaml: delta: must be below 1, got 2"),
        ({"datasets": OWN}, {"threads": 0}, "--config: threads: must be at least 1, got 0"),
        ({"datasets": OWN}, {"thraeds": 1}, "unknown key 'thraeds' in --config"),
        ({"datasets": OWN, "protocol": {"holdut": 1}}, {}, "unknown key 'holdut' in mine.yaml under protocol"),
        ({"datasets": OWN, "runs": {"dp_merf": {"steps": 0}}}, {}, "mine.yaml: runs.dp_merf: hyper-parameter"),
        ({"datasets": OWN}, {"runs": {"dp_merf": {"steps": "many"}}}, "--config: runs.dp_merf: hyper-parameter"),
        ({"datasets": OWN}, {"runs": "dp_merf,dp_mref"}, "unknown run 'dp_mref' in --config"),
    ],
)  # fmt: skip
def test_the_origin_of_a_wrong_value_is_named(file, command_line, starts) -> None:
    assert refused(file, command_line).startswith(starts)


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: [" * 2000, "datasets: {a: 1, a: 2}", "\ta: 1", "a: \0"])
def test_a_file_that_is_no_yaml_is_named(tmp_path: Path, text) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=r"mine\.yaml is not valid YAML: .*; "):
        merging.mapping(tmp_path / "mine.yaml")


def test_a_class_folder_that_may_be_listed_but_not_entered_is_said_to_be_one(tmp_path: Path) -> None:
    def stat() -> None:
        raise PermissionError(13, "Permission denied")

    entry = SimpleNamespace(name="0.png", path=str(tmp_path / "cats/0.png"), stat=stat)
    with pytest.raises(UserError, match=r"cats may be listed but not entered; change its permissions"):
        Tree(tmp_path)._place(entry, Level())
