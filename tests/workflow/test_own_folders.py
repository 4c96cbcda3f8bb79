"""Class folders and CSVs of a user's own pictures: what is read, what is passed over, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from made_pictures import classes, make, refusal, write_picture

from workflow.common.class_names import in_order, safe_name
from workflow.common.contracts import load_images
from workflow.common.errors import UserError
from workflow.common.files import read_json
from workflow.common.own_set import OwnSet, check_own_name
from workflow.datasets import NAMES
from workflow.datasets.__main__ import main
from workflow.datasets.own import content_hash, files, load


def levels(images: np.ndarray) -> list[int]:
    return sorted(images[:, 0, 0, 0].tolist())


def table(path: Path, rows: str, header: str = "file,label") -> Path:
    path.write_text(f"{header}\n{rows}", encoding="utf-8")
    return path


def test_a_folder_of_images_has_a_class_per_subfolder(tmp_path: Path, capsys) -> None:
    train, test, card = make(classes(tmp_path / "own", ("cats", "dogs"), 10), tmp_path / "out")
    assert train.images.shape == (16, 1, 28, 28) and np.bincount(test.labels).tolist() == [2, 2]
    assert levels(np.concatenate([train.images, test.images])) == [*range(10), *range(50, 60)]
    for split in (train, test):
        assert np.array_equal(split.images[:, 0, 0, 0] >= 50, split.labels == 1)
    assert capsys.readouterr().out == (
        "mine: 16 train, 4 test, 2 classes, 28x28 grey (size and mode deduced), from folder own\n"
    )
    own = OwnSet(folder=str(tmp_path / "own"))
    expected = {
        "dataset": "mine", "class_names": ["cats", "dogs"], "image_shape": [1, 28, 28], "num_classes": 2,
        "size": 28, "mode": "grey", "deduced": ["size", "mode"], "fit": "crop", "background": "#ffffff",
        "window": None, "test_split": "0.2 of each class, drawn with seed 0", "skipped": 0, "several_frames": 0,
        "public": False, "source": "folder own", "files": {"content": content_hash(own)}, "test_drawn": True,
    }  # fmt: skip
    assert {key: card[key] for key in expected} == expected
    assert [card["splits"][split]["count"] for split in ("train", "test")] == [16, 4]


def test_mixed_sizes_and_kinds_become_one_size(tmp_path: Path) -> None:
    for index, size in enumerate([(300, 200), (64, 64), (40, 90), (33, 32)]):
        for name in ("a", "b"):
            write_picture(tmp_path / f"own/{name}/{index}.png", np.full((*size, 3), 40 * index, np.uint8))
            write_picture(tmp_path / f"own/{name}/{index}.JPG", np.full(size, 40 * index, np.uint8))
    train, test, card = make(tmp_path / "own", tmp_path / "out")
    assert train.image_shape == (3, 32, 32) and len(train) + len(test) == 16 and card["size"] == 32
    found = np.concatenate([train.images, test.images])
    assert np.abs(np.array(levels(found)) - np.repeat([0, 40, 80, 120], 4)).max() <= 1
    assert np.ptp(found, axis=(1, 2, 3)).max() <= 2


def test_the_same_folder_gives_the_same_bytes_and_a_seed_another_split(tmp_path: Path) -> None:
    own = classes(tmp_path / "own", count=20)
    for name in ("x", "y"):
        assert main([name, "--folder", str(own), "--out", str(tmp_path / name)]) == 0
    for file in ("train.npz", "test.npz"):
        assert (tmp_path / "x" / file).read_bytes() == (tmp_path / "y" / file).read_bytes()
    _, test, _ = make(own, tmp_path / "seed", "--split-seed", "1")
    assert levels(test.images) != levels(load_images(tmp_path / "x/test.npz").images)
    small, _, _ = make(own, tmp_path / "half", "--test-fraction", "0.5")
    assert np.bincount(small.labels).tolist() == [10, 10]
    rest, _, _ = make(classes(tmp_path / "two", count=2), tmp_path / "most", "--test-fraction", "0.9")
    assert np.bincount(rest.labels).tolist() == [1, 1]


def test_the_old_name_with_source_still_works(tmp_path: Path, capsys) -> None:
    own = classes(tmp_path / "own")
    assert main(["image_folder", "--out", str(tmp_path / "out"), "--source", str(own)]) == 0
    assert read_json(tmp_path / "out/card.json")["dataset"] == "image_folder"
    assert main(["image_folder", "--out", str(tmp_path / "x")]) == 2
    assert "needs one existing folder as --folder, got []" in capsys.readouterr().err


def test_settings_come_as_json_or_as_options(tmp_path: Path) -> None:
    own = classes(tmp_path / "own", side=70)
    settings = {"folder": str(own), "size": 32, "mode": "rgb", "test_fraction": 0.34, "public": True}
    assert main(["mine", "--own", json.dumps(settings), "--out", str(tmp_path / "a")]) == 0
    options = ["--size", "32", "--mode", "rgb", "--test-fraction", "0.34", "--public"]
    train, _, card = make(own, tmp_path / "b", *options)
    assert card == read_json(tmp_path / "a/card.json")
    assert train.image_shape == (3, 32, 32) and card["public"] and card["deduced"] == []
    parsed = OwnSet.parse("mine", settings)
    assert OwnSet.parse("mine", json.loads(parsed.to_json())) == parsed
    assert np.array_equal(load("mine", parsed).train.images, train.images)


def test_hidden_and_other_files_are_passed_over_with_a_count(tmp_path: Path, capsys) -> None:
    own = classes(tmp_path / "own")
    for name in (".DS_Store", "a/._0.png", "a/Thumbs.db", "a/notes.txt", "b/.hidden.png", "README.md"):
        (own / name).write_bytes(b"\0")
    for name in ("__MACOSX", ".ipynb_checkpoints", "b/.thumbnails"):
        (own / name).mkdir()
        (own / name / "0.png").write_bytes(b"\0")
    train, test, card = make(own, tmp_path / "out")
    assert len(train) + len(test) == 6 and card["skipped"] == 9
    assert capsys.readouterr().out.count("; 9 hidden or other files skipped") == 1


def test_suffixes_may_be_upper_case_and_class_folders_nested(tmp_path: Path) -> None:
    own = classes(tmp_path / "own", ("a", "b", "c"))
    (own / "a/0.png").rename(own / "a/0.PNG")
    (own / "b/deep/er").mkdir(parents=True)
    (own / "b/1.png").rename(own / "b/deep/er/1.png")
    train, test, card = make(own, tmp_path / "out")
    assert levels(np.concatenate([train.images, test.images])) == [0, 1, 2, 50, 51, 52, 100, 101, 102]
    assert card["class_names"] == ["a", "b", "c"]


def test_a_test_folder_of_its_own(tmp_path: Path, capsys) -> None:
    own, held_out = classes(tmp_path / "own"), classes(tmp_path / "test", count=1, side=50)
    train, test, card = make(own, tmp_path / "out", "--test", str(held_out))
    assert (len(train), levels(test.images)) == (6, [0, 50]) and card["test_split"] == "a folder of its own"
    assert not card["test_drawn"]
    classes(held_out, ("d",))
    assert "class 'd' of " in (error := refusal(capsys, own, "--test", str(held_out)))
    assert f"has no picture in {own}; both splits must have the same classes" in error
    assert "is in both folder and test" in refusal(capsys, own, "--test", str(own))


@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_a_csv_names_the_classes(tmp_path: Path, bom: str) -> None:
    own = classes(tmp_path / "own", ("x", "y", "z"))
    labels = {"x": 10, "y": 9, "z": 2}
    rows = "".join(f"{name}/{index}.png,{label}\n" for name, label in labels.items() for index in range(3))
    csv = table(own / "labels.csv", f"\n{rows}\n", f"{bom}file,label")
    train, test, card = make(own, tmp_path / "out", "--labels", str(csv))
    assert card["class_names"] == ["2", "9", "10"] and card["skipped"] == 0
    for split in (train, test):
        assert np.array_equal(2 - split.images[:, 0, 0, 0] // 50, split.labels)


def test_two_csvs_may_share_a_folder(tmp_path: Path, capsys) -> None:
    own = classes(tmp_path / "own")
    first = table(tmp_path / "train.csv", "a/0.png,a\na/1.png,a\nb/0.png,b\n./b/1.png,b\n")
    second = table(tmp_path / "test.csv", "a/2.png,a\nb/2.png,b\n")
    options = ["--labels", str(first), "--test", str(own), "--test-labels", str(second)]
    train, test, _ = make(own, tmp_path / "out", *options)
    assert (levels(train.images), levels(test.images)) == ([0, 1, 50, 51], [2, 52])
    table(second, "a/1.png,a\nb/2.png,b\na/2.png,a\n")
    assert "a/1.png is in both folder and test" in refusal(capsys, own, *options)


GOOD_ROWS = "".join(f"{name}/{index}.png,{name}\n" for name in "ab" for index in range(3))
BAD_TABLES = {
    "missing": (GOOD_ROWS + "a/9.png,a\n", "line 8: {own}/a/9.png does not exist; mend the name or remove the row"),
    "no_picture": (GOOD_ROWS + "a/t.txt,a\n", "line 8: {own}/a/t.txt is no picture"),
    "twice": (GOOD_ROWS + "./a/0.png,b\n", "line 8: './a/0.png' has a row already; remove one"),
    "empty_label": (GOOD_ROWS.replace("a/1.png,a", "a/1.png, "), "line 3: 'a/1.png' has an empty label; fill it in"),
    "outside": (GOOD_ROWS + "../x.png,a\n", "line 8: '../x.png' leaves {own}"),
    "inside_out": (GOOD_ROWS + "a/../../x.png,a\n", "line 8: 'a/../../x.png' leaves {own}"),
    "absolute": (GOOD_ROWS + "/x.png,a\n", "line 8: '/x.png' leaves {own}"),
    "long": (GOOD_ROWS + f"a/{'x' * 10_000}.png,a\n", "does not exist"),
    "cells": (GOOD_ROWS + "a/0.png\n", "line 8: 1 cells instead of 2"),
    "one_class": (GOOD_ROWS.replace(",b", ",a"), "needs at least 2 labels; it has one, 'a'"),
    "one_picture": (GOOD_ROWS.replace("b/0.png,b", "b/0.png,c"), "class 'c' has one picture; it needs 2"),
    "collide": (GOOD_ROWS.replace(",a", ",T/t").replace(",b", ",t_T"), "classes 'T/t' and 't_T' would both be folder"),
}


@pytest.mark.parametrize("kind", BAD_TABLES)
def test_a_bad_csv_is_named_with_its_line(tmp_path: Path, capsys, kind: str) -> None:
    own = classes(tmp_path / "own")
    (own / "a/t.txt").write_text("no picture")
    rows, message = BAD_TABLES[kind]
    csv = table(tmp_path / "labels.csv", rows)
    error = refusal(capsys, own, "--labels", str(csv))
    assert str(csv) in error and message.format(own=own) in error


def test_a_csv_with_a_column_twice_is_refused(tmp_path: Path, capsys) -> None:
    own = classes(tmp_path / "own")
    csv = table(tmp_path / "labels.csv", GOOD_ROWS.replace("\n", ",z\n"), "file,label,label")
    assert "labels.csv has the column label twice" in refusal(capsys, own, "--labels", str(csv))


def test_a_csv_without_header_or_rows_or_a_picture_without_row_is_refused(tmp_path: Path, capsys) -> None:
    own = classes(tmp_path / "own")
    csv = table(tmp_path / "labels.csv", GOOD_ROWS, "name,class")
    assert f"{csv} lacks the columns file, label" in refusal(capsys, own, "--labels", str(csv))
    csv.write_text("file,label\n")
    assert f"{own}/a/0.png has no row in {csv}" in refusal(capsys, own, "--labels", str(csv))
    table(csv, GOOD_ROWS.replace("b/1.png,b\n", ""))
    assert f"{own}/b/1.png has no row in {csv}" in refusal(capsys, own, "--labels", str(csv))
    shutil.move(csv, own / "labels.csv")
    assert f"no such file: {csv}; did you mean {own}/labels.csv?" in refusal(capsys, own, "--labels", str(csv))


def bad_folder(root: Path, kind: str) -> str:
    """Makes a folder of some bad kind at `root`; returns what its refusal must say."""
    if kind == "missing":
        return f"{root} does not exist; fix folder (a relative path starts from {Path.cwd()})"
    if kind == "x" * 300:
        return f"{root} does not exist; fix folder"
    if kind == "file":
        root.write_text("")
        return f"{root} is a file, not a folder"
    if kind == "no_class":
        root.mkdir()
        return f"{root} needs at least 2 sub-folders, each a class; it has none"
    if kind == "one_class":
        classes(root, ("a",))
        return f"{root} needs at least 2 sub-folders, each a class; it has one, 'a'"
    if kind == "one_image":
        classes(root, ("a",), 1)
        return f"{root} needs at least 2 sub-folders, each a class; it has one, 'a'"
    classes(root)
    if kind == "two_images":
        classes(shutil.rmtree(root) or root, count=1)
        needs = "it needs 2, one to train on and one to test on"
        return f"{root}: class 'a' has one picture; {needs}: add another, or remove the class"
    if kind == "empty_class":
        (root / "c").mkdir()
        return f"{root}/c holds no picture (.bmp, .gif, "
    if kind == "loop":
        (root / "b/again").symlink_to(root / "b")
        return f"{root}/b/again leads to a folder that was read already (links in a circle?); remove that link"
    if kind == "linked_class":
        (root / "c").symlink_to(root / "b")
        return f"{root}/c leads to a folder that was read already"
    if kind == "circle":
        (root / "b/x.png").symlink_to(root / "b/x.png")
        return f"{root}/b/x.png leads to no file ("
    if kind == "dangling":
        (root / "b/x.png").symlink_to(root / "gone.png")
        return f"{root}/b/x.png leads to no file (No such file or directory); mend or remove that link"
    if kind == "pipe":
        os.mkfifo(root / "b/x.png")
        return f"{root}/b/x.png is named like a picture but is no file"
    if kind == "beside":
        (root / "a/0.png").rename(root / "0.png")
        return f"{root}/0.png is in no class; move it into a sub-folder named as its class, or give labels (a CSV)"
    if kind == "splits":
        (root / "a").rename(root / "train")
        (root / "b").rename(root / "Test")
        return f"{root} holds splits (Test, train), not classes; give one as folder and one as test"
    if kind == "case":
        classes(root, ("A",))
        return f"{root}: classes 'A' and 'a' would both be folder 'a'; rename one"
    if kind == "cleaned":
        classes(root, ("x y", "x:y"))
        return f"{root}: classes 'x y' and 'x:y' would both be folder 'x_y'; rename one"
    names = [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]
    if kind == "class_forms":
        classes(root, tuple(names))
        return "would both be folder 'é'; rename one"
    assert kind == "file_forms"
    for name in names:
        shutil.copy(root / "a/0.png", root / f"a/{name}.png")
    return f"{root}: 'a/e\\u0301.png' and 'a/\\xe9.png' are one name in two Unicode forms"


@pytest.mark.parametrize(
    "kind",
    [
        "missing", "file", "no_class", "one_class", "one_image", "two_images", "empty_class", "loop", "linked_class",
        "circle", "dangling", "pipe", "beside", "splits", "case", "cleaned", "class_forms", "file_forms", "x" * 300,
    ],
)  # fmt: skip
def test_a_bad_folder_is_named_with_its_mend(tmp_path: Path, capsys, kind: str) -> None:
    root = tmp_path / (kind if len(kind) > 255 else "own")
    message = bad_folder(root, kind)
    assert message in refusal(capsys, root)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mnist", [], "'mnist' is a data set of the suite's own; give yours another name, such as my_mnist"),
        ("My set", [], "data set name 'My set' must begin with a-z and hold only a-z, 0-9 and _"),
        ("mine", ["--size", "30"], "size must be one of 28, 32, 64, or 0 to deduce it; got 30"),
        ("mine", ["--size", "big"], "setting size of data set mine must be of type int, got 'big'"),
        ("mine", ["--mode", "gray"], "setting mode of data set mine must be auto, grey or rgb, got 'gray'; did you"),
        ("mine", ["--background", "whtie"], "background 'whtie' is no colour; use #rrggbb or a name such as white"),
        ("mine", ["--background", "#12345"], "background must be a colour's name or #rrggbb, got '#12345'"),
        ("mine", ["--window", "5"], "window must be LOW,HIGH with LOW below HIGH, such as 0,4095; got '5'"),
        ("mine", ["--window", "9,9"], "window must be LOW,HIGH with LOW below HIGH"),
        ("mine", ["--window", "0,inf"], "window must be LOW,HIGH with LOW below HIGH"),
        ("mine", ["--window=-1e308,1e308"], "window must be LOW,HIGH with LOW below HIGH"),
        ("mine", ["--test-split", "val"], "test_split: val is of an .npz with val_images"),
        ("mine", ["--test-labels", "x.csv"], "test_labels needs labels too"),
        ("mine", ["--labels", "x.csv", "--test-labels", "y.csv"], "test_labels needs test, the folder of its pictures"),
        ("mine", ["--labels", "a\0b"], "an argument holds a null character: 'a\\x00b'"),
        ("mine", ["--own", '{"sise": 32}'], "unknown setting of data set mine 'sise'; did you mean 'size'?"),
    ],
)
def test_wrong_settings_end_in_one_line(tmp_path: Path, capsys, name: str, options: list[str], message: str) -> None:
    assert f"error: {message}" in refusal(capsys, classes(tmp_path / "own"), *options, name=name)


def test_settings_without_a_folder_or_with_an_output_inside_it_are_refused(tmp_path: Path, capsys) -> None:
    own = classes(tmp_path / "own")
    assert main(["mine", "--own", '{"size": 32}', "--out", str(tmp_path / "out")]) == 2
    assert "data set mine needs folder: " in capsys.readouterr().err
    assert main(["mnist", "--size", "32", "--out", str(tmp_path / "out")]) == 2
    assert "--size describes pictures of your own; it needs --folder" in capsys.readouterr().err
    assert main(["mine", "--folder", str(own), "--out", str(own / "out")]) == 2
    assert "lies in" in capsys.readouterr().err and not (own / "out").exists()
    assert main(["mine", "--folder", str(own), "--check"]) == 0
    assert main(["mine", "--folder", str(tmp_path / "none"), "--check"]) == 1


def test_a_window_may_begin_below_zero(tmp_path: Path) -> None:
    for index in range(4):
        values = np.full((28, 28), -100 + index, np.float32)
        write_picture(tmp_path / f"own/{index % 2}/{index}.tif", values)
    train, test, card = make(tmp_path / "own", tmp_path / "out", "--window=-100,-97")
    assert levels(np.concatenate([train.images, test.images])) == [0, 85, 170, 255] and card["window"] == [-100, -97]


def test_failing_again_leaves_what_was_there_whole(tmp_path: Path, capsys) -> None:
    own = classes(tmp_path / "own")
    make(own, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (own / "b/0.png").write_bytes(b"")
    assert main(["mine", "--folder", str(own), "--out", str(tmp_path / "out")]) == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_card_never_stands_beside_other_splits(tmp_path: Path, monkeypatch) -> None:
    own = classes(tmp_path / "own")
    make(own, tmp_path / "out")

    def full(path: Path, mode: int, **_: object) -> None:
        if path.name == "test.npz":
            raise UserError("no space left")

    monkeypatch.setattr("workflow.datasets.store.write_npz", full)
    assert main(["mine", "--folder", str(own), "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out/card.json").exists()


def test_the_content_hash_follows_names_and_bytes_of_what_counts(tmp_path: Path) -> None:
    own = classes(tmp_path / "own")
    settings = OwnSet(folder=str(own))
    first = content_hash(settings)
    assert len(first) == 64 and sorted(files(settings))[0] == "train/a/0.png"
    (own / "a/notes.txt").write_text("of no account")
    (own / "a/.hidden.png").write_text("of no account")
    os.utime(own / "a/0.png", (0, 0))
    assert content_hash(settings) == first
    assert content_hash(OwnSet(folder=str(shutil.copytree(own, tmp_path / "elsewhere")))) == first
    (own / "a/0.png").rename(own / "a/00.png")
    renamed = content_hash(settings)
    shutil.copy(own / "a/1.png", own / "a/2.png")
    changed = content_hash(settings)
    table(
        tmp_path / "l.csv", "".join(f"{path.relative_to(own)},{path.parent.name}\n" for path in own.rglob("*[0-9].png"))
    )
    by_table = OwnSet(folder=str(own), labels=str(tmp_path / "l.csv"))
    with_table = content_hash(by_table)
    (tmp_path / "l.csv").write_text((tmp_path / "l.csv").read_text().replace("a/1.png,a", "a/1.png,b"))
    hashes = [first, renamed, changed, with_table, content_hash(by_table)]
    hashes.append(content_hash(OwnSet(folder=str(own), test=str(tmp_path / "elsewhere"))))
    assert len(set(hashes)) == 6


def test_many_files_are_all_hashed_and_read_in_order(tmp_path: Path) -> None:
    own = classes(tmp_path / "own", count=100)
    first = content_hash(OwnSet(folder=str(own)))
    shutil.copy(own / "b/1.png", own / "b/99.png")
    assert content_hash(OwnSet(folder=str(own))) != first
    train, test, _ = make(classes(tmp_path / "more", count=50), tmp_path / "out")
    assert levels(np.concatenate([train.images, test.images])) == list(range(100))


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("cats", "cats"), ("T-shirt/top", "T-shirt_top"), ("ça va 猫", "ça_va_猫"), ("e\u0301", "é"), ("..", "_"),
        (".x.", "x"), ("", "_"), ("a\nb\0", "a_b_"), ("हिन्दी", "हिन्दी"), ("con", "_con"), ("NUL.txt", "_NUL.txt"),
        ("x" * 99, "x" * 60), ("\udcff", "_"), ("a*?\"<>|:\\", "a________"),
    ],
)  # fmt: skip
def test_a_class_name_becomes_a_safe_folder(name: str, folder: str) -> None:
    assert safe_name(name) == folder and safe_name(folder) == folder


def test_classes_are_in_order_of_numbers_if_all_are_numbers() -> None:
    assert in_order(["10", "9", "2", "9"]) == ("2", "9", "10")
    assert in_order(["10", "9", "x"]) == ("10", "9", "x") and in_order(["-1", "1", "0"]) == ("-1", "0", "1")


def test_names_of_own_sets() -> None:
    assert check_own_name("lesions_2", NAMES) == "lesions_2"
    for name in ("mnist", "Lesions", "2x", "a-b", "a/b", "", "a b", "é"):
        with pytest.raises(UserError):
            check_own_name(name, NAMES)


@pytest.mark.parametrize("name", ["train.npz", "test.npz"])
def test_a_set_is_not_written_over_the_file_that_it_is_read_from(tmp_path: Path, capsys, name: str) -> None:
    source = tmp_path / name
    source.write_bytes(b"the owner's only copy")
    assert main(["mine", "--folder", str(source), "--out", str(tmp_path)]) == 2
    assert "would write over" in capsys.readouterr().err and source.read_bytes() == b"the owner's only copy"
