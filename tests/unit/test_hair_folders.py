"""Faces by hair colour, as folders of pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.hair_folders import COLOURS, main

SHADES = {"black": 20, "blond": 240, "brown": 120}


@pytest.fixture(scope="module")
def celeba(tmp_path_factory) -> Path:
    """Thirty faces in turn black, blond and brown, each of one shade, and three that have two colours or none."""
    folder = tmp_path_factory.mktemp("celeba")
    (folder / "img_align_celeba").mkdir()
    lines, colours = [], [*list(COLOURS) * 10, None, "both", None]
    for number, colour in enumerate(colours):
        name = f"{number:06}.jpg"
        marks = ["1" if colour in (one, "both") else "-1" for one in COLOURS]
        lines.append(f"{name} {' '.join(marks)} -1")
        shade = SHADES.get(colour, 0)
        Image.fromarray(np.full((55, 45, 3), shade, np.uint8)).save(folder / "img_align_celeba" / name)
    head = f"{len(lines)}\n{' '.join(COLOURS.values())} Male\n"
    (folder / "list_attr_celeba.txt").write_text(head + "\n".join(lines))
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def test_each_face_lies_once_in_the_folder_of_its_colour_in_sizes_and_formats_that_differ(celeba, tmp_path):
    assert main(["--celeba", str(celeba), "--count", "12", "--tests", "18", "--out", str(tmp_path / "out")]) == 0
    paths = sorted((tmp_path / "out").rglob("*.*"))
    assert [sum(part in path.parts for path in paths) for part in ("pictures", "test")] == [12, 18]
    sizes, suffixes = set(), set()
    for path in paths:
        with Image.open(path) as image:
            sizes.add(image.size)
            suffixes.add((path.suffix, image.format))
            assert abs(np.asarray(image).mean() - SHADES[path.parent.name]) < 3
    assert suffixes == {(".jpg", "JPEG"), (".png", "PNG")}
    assert len(sizes) > 10 and all(36 <= width <= 68 and 44 <= height <= 83 for width, height in sizes)
    # All thirty with one colour are there, so none is there twice.
    assert [sum(path.parent.name == colour for path in paths) for colour in COLOURS] == [10, 10, 10]


def test_the_seed_decides_which_faces(celeba, tmp_path):
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        command = ["--celeba", str(celeba), "--count", "6", "--tests", "6", "--seed", seed]
        assert main([*command, "--out", str(tmp_path / name)]) == 0
    assert files(tmp_path / "a") == files(tmp_path / "b") != files(tmp_path / "c")


def test_too_few_faces_and_a_folder_that_exists_are_told(celeba, tmp_path, capsys):
    assert main(["--celeba", str(celeba), "--out", str(tmp_path / "out")]) == 2
    assert "has 30 faces of one colour" in capsys.readouterr().err
    assert main(["--celeba", str(celeba), "--out", str(tmp_path)]) == 2
    assert "exists: name a new folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_out_below_a_file_is_told_and_not_blamed_on_celeba(celeba, tmp_path, capsys):
    zipped = tmp_path / "celeba"
    zipped.mkdir()
    shutil.copy(celeba / "list_attr_celeba.txt", zipped)
    shutil.make_archive(str(zipped / "img_align_celeba"), "zip", celeba, "img_align_celeba")
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    assert main(["--celeba", str(zipped), "--count", "3", "--tests", "3", "--out", str(out)]) == 2
    assert capsys.readouterr().err.startswith(f"error: cannot write {out / 'pictures'}")


def test_a_damaged_face_is_named_and_leaves_no_folder_behind(celeba, tmp_path, capsys):
    shutil.copytree(celeba, tmp_path / "celeba")
    (tmp_path / "celeba/img_align_celeba/000007.jpg").write_bytes(b"no picture")
    command = ["--celeba", str(tmp_path / "celeba"), "--count", "12", "--tests", "18", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "image 000007.jpg is missing or damaged: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_more_test_faces_leave_those_before_as_they_were(celeba, tmp_path):
    for name, tests in (("few", "6"), ("more", "12")):
        command = ["--celeba", str(celeba), "--count", "6", "--tests", tests, "--out", str(tmp_path / name)]
        assert main(command) == 0
    assert files(tmp_path / "few").items() < files(tmp_path / "more").items()
