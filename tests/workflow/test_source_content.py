"""What data sets are made from: other raw files are seen, the same ones in another place are the same."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy_project import Project

from workflow import own_content, source_content
from workflow.common.errors import UserError
from workflow.datasets import mnist, sources

RUN = "results/quick/runs/celeba10k/alpha/eps10/seed0/run.json"


def faces(folder: Path) -> Path:
    """Makes lists of three faces, and the faces; a fourth picture stands in no list."""
    pictures = folder / "img_align_celeba"
    pictures.mkdir(parents=True)
    for number in range(4):
        (pictures / f"{number}.jpg").write_bytes(bytes([number]) * 9)
    rows = "".join(f"{number}.jpg {(-1) ** number}\n" for number in range(3))
    (folder / "list_attr_celeba.txt").write_text(f"3\nMale\n{rows}")
    (folder / "list_eval_partition.txt").write_text("0.jpg 0\n1.jpg 0\n2.jpg 2\n")
    return folder


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture
def three(monkeypatch):
    monkeypatch.setitem(sources.CELEBA_SIZES, "celeba10k", 3)


def test_celeba_follows_its_lists_and_the_pictures_they_name_and_not_its_place(three, tmp_path):
    folder, cache = faces(tmp_path / "a"), tmp_path / "cache.json"

    def now(where: Path = folder) -> str:
        return source_content.content("celeba10k", [str(where)], cache)

    first = now()
    shutil.copytree(folder, tmp_path / "b")
    assert now(tmp_path / "b") == first
    (folder / "img_align_celeba/3.jpg").write_bytes(b"no list names it")
    (folder / "readme.txt").write_text("hello")
    assert now() == first
    seen = [first]
    for change in (
        lambda: replace(folder / "list_attr_celeba.txt", "1.jpg -1", "1.jpg 1"),
        lambda: replace(folder / "list_eval_partition.txt", "1.jpg 0", "1.jpg 2"),
        lambda: (folder / "img_align_celeba/2.jpg").write_bytes(b"\7" * 9),
    ):
        change()
        seen.append(now())
    assert len(set(seen)) == 4


def test_unchanged_files_are_not_read_again_and_a_spoilt_memory_is_no_answer(three, tmp_path, monkeypatch):
    folder, cache = faces(tmp_path / "a"), tmp_path / "cache.json"
    first = source_content.content("celeba10k", [str(folder)], cache)
    with monkeypatch.context() as patch:
        patch.setattr(source_content, "_celeba_hash", lambda folder: pytest.fail("was read again"))
        assert source_content.content("celeba10k", [str(folder)], cache) == first
    for text in ("[1]", "{", '{"listing": 3}', ""):
        cache.write_text(text)
        assert source_content.content("celeba10k", [str(folder)], cache) == first


def test_a_file_changed_within_one_tick_and_of_equal_size_is_seen_by_its_change_time(tmp_path):
    file, cache = tmp_path / "a", tmp_path / "cache.json"
    file.write_text("one")
    then = file.stat().st_mtime_ns

    def now() -> str:
        return own_content.remembered(cache, "", [tmp_path / "a"], file.read_text)

    assert now() == "one"
    file.write_text("two")
    os.utime(file, ns=(then, then))
    assert now() == "two"


def test_two_folders_that_change_places_are_seen_although_no_file_in_them_changed(tmp_path, monkeypatch):
    for name in ("benign", "melanoma"):
        (tmp_path / "all" / name).mkdir(parents=True)
        (tmp_path / "all" / name / "0.png").write_text(f"{name:>8}")
    cache = tmp_path / "cache.json"

    def of_one_tick(path):
        # As two files that were unpacked within one tick of the clock.
        found = os.stat(path)
        times = {"st_mtime_ns": 7, "st_ctime_ns": 7}
        return SimpleNamespace(**{key: times.get(key, getattr(found, key)) for key in dir(found) if key[:3] == "st_"})

    def now() -> str:
        read = (tmp_path / "all/benign/0.png").read_text
        return own_content.remembered(cache, "", [tmp_path / "all"], lambda: read().strip())

    system = {name: getattr(os, name) for name in ("walk", "path", "fspath", "fsencode")}
    monkeypatch.setattr(own_content, "os", SimpleNamespace(stat=of_one_tick, **system))
    assert now() == "benign"
    (tmp_path / "all/benign").rename(tmp_path / "other")
    (tmp_path / "all/melanoma").rename(tmp_path / "all/benign")
    (tmp_path / "other").rename(tmp_path / "all/melanoma")
    assert now() == "melanoma"


def test_other_files_than_the_published_ones_are_refused_also_where_the_data_are_made(tmp_path):
    folder, cache = tmp_path / "mnist", tmp_path / "cache.json"
    assert source_content.content("mnist", [str(tmp_path)], cache) == "published"
    folder.mkdir()
    for name in mnist.FILES:
        (folder / name).write_bytes(b"\0\0\x08\x01" + (3).to_bytes(4, "big") + b"abc")
    with pytest.raises(UserError, match="mnist"):
        source_content.content("mnist", [str(tmp_path)], cache)
    assert source_content.content("digits", [str(tmp_path)], cache) == "published"


def test_other_lists_make_the_data_and_what_follows_again_and_another_place_does_not(fresh: Project):
    folder = faces(fresh.folder / "faces")
    # As many as the name promises; most of them have no picture, which the toy stage does not miss.
    numbers = range(10_000)
    (folder / "list_attr_celeba.txt").write_text("10000\nMale\n" + "".join(f"{n}.jpg 1\n" for n in numbers))
    (folder / "list_eval_partition.txt").write_text("".join(f"{n}.jpg {2 * (n % 5 == 0)}\n" for n in numbers))

    def call(where: str, *more: str) -> str:
        config = ("--config", "datasets=celeba10k", f"data_sources={where}")
        done = fresh.snakemake("--quiet", "host", *more, *config, "--", RUN)
        assert done.returncode == 0, done.stdout
        return done.stdout

    call("faces")
    shutil.copytree(folder, fresh.folder / "moved elsewhere")
    assert "Nothing to be done" in call("moved elsewhere", "-n")
    replace(fresh.folder / "moved elsewhere/list_attr_celeba.txt", "\n7.jpg 1\n", "\n7.jpg -1\n")
    planned = call("moved elsewhere", "-n")
    for rule in ("rule data:", "rule train:"):
        assert rule in planned
    shutil.rmtree(fresh.folder / "moved elsewhere")
    left = call("moved elsewhere", "-n")
    assert "Nothing to be done" in left and "moved elsewhere does not exist; the images in results" in left
