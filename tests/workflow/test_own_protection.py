"""Private pictures, when they are made into a data set: who can read it, and what no release of it could promise."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_pictures import classes, make, refusal, write_picture


def modes(*paths: Path) -> list[int]:
    return [path.stat().st_mode & 0o777 for path in paths]


@pytest.mark.parametrize(("before", "options", "folder", "file"), [
    ((), [], 0o700, 0o600),
    (("card.json", "spent.jsonl", ".train.a1b2c3d_.writing.npz"), [], 0o700, 0o600),
    (("notes.txt",), [], 0o755, 0o600),
    # A home may hold hidden files alone.
    ((".profile",), [], 0o755, 0o600),
    ((), ["--public"], 0o755, 0o644),
])  # fmt: skip
def test_private_pictures_are_their_owners_alone(tmp_path: Path, capsys, before, options, folder, file) -> None:
    """Whatever the umask, and in a folder made beforehand too; one that others use as well is not closed to them."""
    own, out = classes(tmp_path / "own"), tmp_path / "out/mine"
    mask = os.umask(0o022)
    try:
        for name in before:
            out.mkdir(parents=True, exist_ok=True)
            (out / name).touch()
        make(own, out, *options)
    finally:
        os.umask(mask)
    assert modes(out) == [folder]
    assert modes(*(out / name for name in ("train.npz", "test.npz", "card.json"))) == [file] * 3
    assert capsys.readouterr().err == ""


def test_a_folder_that_all_may_write_in_stays_theirs_though_it_is_empty(tmp_path: Path) -> None:
    own, out = classes(tmp_path / "own"), tmp_path / "out"
    out.mkdir()
    out.chmod(0o1777)
    make(own, out)
    assert out.stat().st_mode & 0o7777 == 0o1777
    assert modes(*(out / name for name in ("train.npz", "test.npz", "card.json"))) == [0o600] * 3


@pytest.mark.parametrize("refuses", [False, True], ids=["passes over", "refuses"])
def test_a_disk_that_keeps_no_modes_is_told_in_one_line(tmp_path: Path, capsys, monkeypatch, refuses: bool) -> None:
    own, out, chmod = classes(tmp_path / "own"), tmp_path / "out", os.chmod
    out.mkdir(mode=0o755)

    def of_a_stick(path, mode, **more) -> None:
        if Path(path) != out:
            chmod(path, mode, **more)
        elif refuses:
            raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(os, "chmod", of_a_stick)
    make(own, out)
    said = capsys.readouterr().err
    assert said.startswith(f"notice: {out} cannot be closed to other users") and said.count("\n") == 1


def test_a_class_whose_name_is_no_text_is_refused_before_anything_is_written(tmp_path: Path, capsys) -> None:
    own = classes(tmp_path / "own")
    (own / "a").rename(own / os.fsdecode(b"caf\xe9"))
    assert r"caf\udce9 has a name that is not UTF-8" in refusal(capsys, own)


def test_the_folder_of_all_pictures_may_have_any_name(tmp_path: Path, capsys) -> None:
    own = classes(tmp_path / "own")
    make(own.rename(tmp_path / os.fsdecode(b"caf\xe9")), tmp_path / "out")
    assert r"from folder caf\udce9" in capsys.readouterr().out


@pytest.mark.parametrize(("copied", "options", "told"), [
    ([], [], None),
    (["a/9.png"], [], (2, 2)),
    (["a/9.bmp"], [], (2, 2)),
    (["a/8.png", "b/9.png"], [], (3, 3)),
    (["a/8.png", "b/9.png"], ["--public"], None),
    (["../test/a/0.png", "../test/b/0.png"], ["--test", "TEST"], None),
])  # fmt: skip
def test_a_picture_that_is_there_twice_is_told(tmp_path: Path, capsys, copied, options, told) -> None:
    """Byte for byte, or in another format; what is scored on alone costs nobody."""
    own = classes(tmp_path / "own")
    for name in copied:
        if name.endswith(".bmp"):
            write_picture(own / name, np.full((28, 28), 0, np.uint8))
        else:
            (own / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(own / "a/0.png", own / name)
    _, _, card = make(own, tmp_path / "out", *(option.replace("TEST", str(tmp_path / "test")) for option in options))
    said = capsys.readouterr().err
    if told is None:
        assert said == ""
        return
    assert card["alike"] == {"pictures": told[0], "most": told[1]} and said.count("\n") == 1
    assert said.startswith(f"notice: {told[0]} pictures are equal to others once they are 28x28, up to {told[1]} of")
    assert "k copies of a picture cost k times the epsilon" in said
