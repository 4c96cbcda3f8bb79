"""Files that stages exchange: JSON given inline or by path, CSV, and one line for what cannot be read."""

from __future__ import annotations

import errno
import os
import re
import signal
import stat
import time
from pathlib import Path

import pytest

from workflow.common import files
from workflow.common.errors import UserError, command
from workflow.common.files import atomic, csv_text, json_or_path, read_csv, write_csv, write_json, write_text


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o002, 0o664), (0o027, 0o640)])
def test_a_written_file_may_be_read_by_whom_the_umask_lets(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_json(tmp_path / "new/a.json", {})
        folder = stat.S_IMODE((tmp_path / "new").stat().st_mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new/a.json").stat().st_mode) == mode and folder == 0o777 & ~umask


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


def stored(folder, text: str) -> None:
    """Writes a file as the next call does, in a process that has not looked at the folder yet."""
    files._cleared.clear()
    write_text(folder / "run.json", text)


def killed_while_writing(folder, name: str) -> Path:
    """Leaves what a process leaves that is killed while it writes a file; returns that."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        with atomic(folder / name) as temporary:
            temporary.write_text("half")
            os.write(writes, os.fsencode(temporary.name) + b"\n")
            time.sleep(60)
        os._exit(1)
    os.close(writes)
    with os.fdopen(reads) as said:
        left = folder / said.readline().strip()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert left.read_text() == "half"
    return left


def test_what_a_killed_process_was_writing_goes_with_the_next_write_to_the_folder(tmp_path):
    left = [killed_while_writing(tmp_path, name) for name in ("run.json", "samples.npz", "no_suffix", "a.b.csv")]
    stored(tmp_path, "whole")
    assert not any(path.exists() for path in left)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_what_another_process_is_writing_and_files_of_the_users_stay(tmp_path):
    names = (".hidden.json", ".run.abcdefgh.json", ".writing", "run.abcdefgh.writing.json")
    users = [tmp_path / name for name in names]
    for path in users:
        path.write_text("mine")
    with atomic(tmp_path / "run.json") as temporary:
        temporary.write_text("first")
        stored(tmp_path, "second")
        assert temporary.exists()
    assert (tmp_path / "run.json").read_text() == "first"
    assert all(path.read_text() == "mine" for path in users)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_disk_that_fails_while_a_file_is_written_is_named_with_what_is_free_and_the_old_file_stays(tmp_path, number):
    write_text(tmp_path / "run.json", "old")
    with pytest.raises(UserError) as error, atomic(tmp_path / "run.json"):
        raise OSError(number, os.strerror(number))
    assert re.fullmatch(
        rf"cannot write {re.escape(str(tmp_path))}/run.json: {os.strerror(number)} \(\d+\.\d GiB free on its disk\); "
        "the same command continues once that is mended",
        str(error.value),
    )
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert (tmp_path / "run.json").read_text() == "old"


def test_a_file_that_a_block_reads_is_not_taken_for_the_one_it_writes(tmp_path):
    with pytest.raises(FileNotFoundError), atomic(tmp_path / "run.json"):
        (tmp_path / "source").read_text()
    with pytest.raises(ConnectionResetError), atomic(tmp_path / "run.json"):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


@pytest.mark.parametrize(
    ("name", "says"),
    [("file/run.json", "file is a file, no folder; correct"), ("file/a/b.json", "file is a file, no folder; correct"),
     ("y" * 300, "File name too long; correct the path"), ("loop/x", "correct the path")],
)  # fmt: skip
def test_a_path_that_cannot_be_is_to_be_corrected_and_does_not_continue(tmp_path, name, says):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match=says) as error:
        write_text(tmp_path / name, "x")
    assert "continues" not in str(error.value)


@pytest.mark.parametrize("name", ["x" * 255, "in_the_way/run.json", "a\udcff.json"])
def test_a_name_that_cannot_be_is_one_line(tmp_path, name):
    (tmp_path / "in_the_way").write_text("a file")
    if "udcff" in ascii(name):
        write_text(tmp_path / name, "bytes that are no text are a name all the same")
        return
    with pytest.raises(UserError, match=r"cannot write .*correct the path"):
        write_text(tmp_path / name, "text")


def test_whatever_the_system_refuses_a_command_is_one_line(capsys):
    @command
    def main(argv=None):
        os.rename("/nowhere/a", "/nowhere/b")

    assert main([]) == 2
    told = "error: /nowhere/a -> /nowhere/b: No such file or directory; correct the path, or what is in its way\n"
    assert capsys.readouterr().err == told
