"""Files that stages exchange: JSON given inline or by path, CSV, and one line for what cannot be read."""

from __future__ import annotations

import pytest

from workflow.common.errors import UserError
from workflow.common.files import csv_text, json_or_path, read_csv, write_csv


def test_json_is_taken_inline_or_from_a_file(tmp_path):
    (tmp_path / "a.json").write_text('{"steps": 3}')
    assert json_or_path(str(tmp_path / "a.json")) == {"steps": 3}
    assert json_or_path(tmp_path / "a.json") == json_or_path(' {"steps": 3}') == {"steps": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"steps": ', "--hyper is not readable: Expecting value"),
        ("nowhere.json", "no such file: nowhere.json (--hyper takes JSON in braces, or the path of a file)"),
        ("list.json", "--hyper must be a mapping of names to values, but list.json holds [1]"),
        ("cut.json", "cut.json is not readable"),
        ("binary.json", "binary.json is not readable"),
        (".", "cannot read .: Is a directory"),
    ],
)
def test_what_is_no_json_object_is_one_line(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "cut.json").write_text('{"a": 1')
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError) as error:
        json_or_path(text, "--hyper")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_csv_has_one_form_whether_rows_are_lists_or_mappings(tmp_path):
    text = 'a,b\n1,"x, y"\n,0.5\n'
    assert csv_text(("a", "b"), [[1, "x, y"], [None, 0.5]]) == text
    assert csv_text(("a", "b"), [{"b": "x, y", "a": 1}, {"b": 0.5}]) == text
    write_csv(tmp_path / "t.csv", ("a", "b"), [[1, "x, y"], [None, 0.5]])
    assert (tmp_path / "t.csv").read_bytes() == text.encode()
    assert read_csv(tmp_path / "t.csv", ["b"]) == [{"a": "1", "b": "x, y"}, {"a": "", "b": "0.5"}]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (None, {}, "no such file"),
        ("", {}, "is empty; it is written by make"),
        ("a,b\n", {"columns": ["c", "a", "d"]}, "lacks the columns c, d; it has a, b; it is written by make"),
        ("a,b\n", {"columns": ["b", "a"], "exact": True}, "the first line must be b,a; found a,b"),
        ("a,b\n1,2\n3\n", {}, "line 3: 1 cells instead of 2"),
    ],
)
def test_a_csv_file_that_is_missing_or_of_another_shape_is_named(tmp_path, text, options, message):
    path = tmp_path / "t.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError) as error:
        read_csv(path, maker="make", **options)
    assert str(path) in str(error.value) and message in str(error.value)


def test_a_header_alone_is_no_rows(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n")
    assert read_csv(tmp_path / "t.csv", ["a"]) == []
