"""Samples of a method trained elsewhere and the real sets that they are held against: what is read, what refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpbench.__main__ import main
from workflow.common.contracts import LabelledImages, load_images
from workflow.common.errors import UserError
from workflow.common.files import read_json
from workflow.datasets.foreign_samples import LEAST_PER_CLASS, Wanted, read_samples
from workflow.datasets.real_sets import read_real
from workflow.datasets.store import Dataset, save

WANTED = Wanted("toy", (1, 28, 28), ("T-shirt/top", "bag", "coat"))
LABELS = np.tile(np.arange(3), LEAST_PER_CLASS)


def images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


GREY = images(len(LABELS), 1, 28, 28)


def stored(folder: Path, pixels: np.ndarray = GREY, labels: np.ndarray = LABELS) -> Path:
    np.savez(folder / "theirs.npz", images=pixels, labels=labels)
    return folder / "theirs.npz"


def pictures(folder: Path, names: list[str], pixels: np.ndarray, mode: str = "L") -> Path:
    for number, (image, label) in enumerate(zip(pixels, LABELS, strict=True)):
        path = folder / names[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0] if mode == "L" else image.transpose(1, 2, 0)).save(path)
    return folder


@pytest.mark.parametrize(
    ("pixels", "labels"),
    [
        (GREY, LABELS),
        (GREY[:, 0], LABELS.astype(np.uint8)),
        (GREY.transpose(0, 2, 3, 1), LABELS[:, None]),
        (GREY.astype(np.float32) / 255, LABELS.astype(np.float64)),
        (GREY / 255, LABELS.astype(np.int32)),
    ],
)
def test_any_usual_layout_gives_the_same_bytes(tmp_path: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    found = read_samples(stored(tmp_path, pixels, labels), WANTED)
    assert found.images.dtype == np.uint8 and (found.images == GREY).all()
    assert found.labels.dtype == np.int64 and (found.labels == LABELS).all()


@pytest.mark.parametrize("names", [["T-shirt_top", "bag", "coat"], ["0", "1", "2"]])
def test_a_folder_of_pictures_gives_the_same_bytes_whatever_names_its_classes(tmp_path: Path, names: list[str]) -> None:
    found = read_samples(pictures(tmp_path / "png", names, GREY), WANTED)
    for label in range(3):
        mine, theirs = found.images[found.labels == label], GREY[label == LABELS]
        assert {image.tobytes() for image in mine} == {image.tobytes() for image in theirs}


def nan() -> np.ndarray:
    broken = GREY / 255
    broken[4, 0, 3, 3] = np.nan
    return broken


@pytest.mark.parametrize(
    ("pixels", "labels", "says"),
    [
        (GREY[:, :, :20], LABELS, "has images of 20x28 grey, toy has 28x28 grey; resize them"),
        (np.repeat(GREY, 3, 1), LABELS, "has images of 28x28 RGB, toy has 28x28 grey; convert them"),
        (np.repeat(GREY, 4, 1), LABELS, "must have 1 channel (grey) or 3 (RGB), got 4"),
        (GREY[:, 0, 0], LABELS, "must be [N, C, H, W], [N, H, W] or [N, H, W, C]; got [30, 28]"),
        (nan(), LABELS, "number 4 holds NaN or an infinity"),
        (GREY / 127.5 - 1, LABELS, "scale them to 0 .. 1, or save uint8 in 0 .. 255"),
        (GREY.astype(np.float32), LABELS, "are floats in 0 .. 255"),
        (GREY.astype(np.int32), LABELS, "must be uint8, or floats in 0 .. 1; got int32"),
        (GREY, LABELS + 1, "has the label 3; labels of toy are 0 .. 2"),
        (GREY, LABELS - 1, "has the label -1"),
        (GREY, LABELS + 0.5, "must be whole numbers"),
        (GREY, np.eye(3)[LABELS], "(of one-hot rows: argmax)"),
        (GREY, LABELS[:-1], "has 30 images and 29 labels"),
        (GREY[:27], LABELS[:27], "too few images: class 'T-shirt/top' has 9, 'bag' has 9, 'coat' has 9; at least 10"),
        (GREY[LABELS != 1], LABELS[LABELS != 1], "too few images: class 'bag' has 0"),
        (GREY[:0], LABELS[:0], "too few images"),
    ],
)
def test_what_does_not_fit_is_one_error_that_says_what_and_how_to_mend_it(tmp_path, pixels, labels, says) -> None:
    with pytest.raises(UserError) as refusal:
        read_samples(stored(tmp_path, pixels, labels), WANTED)
    assert says in str(refusal.value) and "theirs.npz" in str(refusal.value)


def test_a_folder_that_does_not_fit_is_one_error(tmp_path: Path) -> None:
    cases = {
        "/a; valid: T-shirt/top, bag, coat (or name": pictures(tmp_path / "a", ["coat", "bag", "hat"], GREY),
        "is a picture of 20x28 grey": pictures(tmp_path / "b", ["0", "1", "2"], GREY[:, :, :20]),
        "holds pictures of 28x28 RGB": pictures(tmp_path / "c", ["0", "1", "2"], images(30, 3, 28, 28), "RGB"),
        "no such file or folder": tmp_path / "none",
    }
    for says, path in cases.items():
        with pytest.raises(UserError) as refusal:
            read_samples(path, WANTED)
        assert says in str(refusal.value)
    (tmp_path / "b.npz").write_text("no zip")
    with pytest.raises(UserError, match="is no npz of `images` and `labels`"):
        read_samples(tmp_path / "b.npz", WANTED)


@pytest.mark.parametrize("file", ["run.json", "plan.json"])
def test_the_folder_of_a_run_is_no_folder_of_pictures_and_nothing_of_it_is_to_be_removed(tmp_path, file) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / file).write_text("{}")
    with pytest.raises(UserError, match=r"is the folder of a run, .*; join its samples: dpbench join"):
        read_samples(tmp_path, WANTED)
    (tmp_path / "samples.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"; give .*samples\.npz$"):
        read_samples(tmp_path, WANTED)


def test_a_real_set_is_read_in_every_layout(tmp_path: Path) -> None:
    data = LabelledImages(GREY, LABELS)
    save(Dataset("toy", data, data, WANTED.class_names, "here", {}), tmp_path / "data")
    assert read_real(tmp_path / "data").wanted == WANTED
    drawn = read_real(stored(tmp_path))
    assert (len(drawn.train), len(drawn.test)) == (24, 6) and drawn.wanted.class_names == ("0", "1", "2")
    assert len(read_real(stored(tmp_path), stored(tmp_path)).test) == 30
    np.savez(tmp_path / "med.npz", train_images=GREY[:, 0], train_labels=LABELS[:, None],
             test_images=GREY[:6, 0], test_labels=LABELS[:6, None])  # fmt: skip
    assert len(read_real(tmp_path / "med.npz").test) == 6
    folder = read_real(pictures(tmp_path / "png", list("abc"), GREY))
    assert folder.wanted == Wanted("png", (1, 28, 28), ("a", "b", "c")) and len(folder.test) == 6


def test_a_real_set_that_is_none_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file or folder: .*none; give the real set"):
        read_real(tmp_path / "none")
    with pytest.raises(UserError, match="no image of class 1"):
        read_real(stored(tmp_path, GREY[LABELS != 1], LABELS[LABELS != 1]))
    with pytest.raises(UserError, match="one class alone"):
        read_real(stored(tmp_path, GREY[::3], LABELS[::3]))
    data = LabelledImages(GREY, LABELS)
    save(Dataset("toy", data, data, WANTED.class_names, "here", {}), tmp_path / "data")
    with pytest.raises(UserError, match="has a test split of its own; leave out --test"):
        read_real(tmp_path / "data", stored(tmp_path))


def test_score_refuses_before_it_trains_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real, bad = stored(tmp_path), tmp_path / "bad.npz"
    np.savez(bad, images=nan(), labels=LABELS)
    good = ["score", "--samples", str(real), "--real", str(real)]
    for argv, says in (
        (["score", "--samples", str(bad), "--real", str(real)], "number 4 holds NaN"),
        ([*good, "--preset", "smok"], "unknown preset 'smok'; did you mean 'smoke'?"),
        ([*good, "--out", "s.txt"], "--out must end in .json or .csv"),
        ([*good, "--out", "s.csv"], "--out .csv needs --claimed-epsilon"),
        ([*good, "--claimed-epsilon", "-1"], "epsilon must be a number above 0"),
        ([*good, "--run", "real"], "reserved"),
        ([*good, "--protocol", '{"epochs": 3}'], "unknown protocol setting 'epochs'"),
    ):
        assert main(argv) == 2
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1, error


def test_score_refuses_what_it_cannot_write_before_it_trains_anything(tmp_path: Path, capsys) -> None:
    samples, file = stored(tmp_path), tmp_path / "a.txt"
    file.write_text("mine")
    for named in (["--out", str(file / "s.json")], ["--classifiers", str(file)]):
        assert main(["score", "--samples", str(samples), "--real", str(samples), *named]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: cannot write ") and f"{file} is a file, no folder" in error
        assert error.count("\n") == 1


def test_a_label_beyond_all_images_is_refused_before_anything_is_made_for_each_class(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"has the label {10**12 + 2} among 30 images; labels are 0"):
        read_real(stored(tmp_path, labels=LABELS + 10**12))
    few = np.array([0, 1, 2])
    (tmp_path / "test").mkdir()
    assert len(read_real(stored(tmp_path), stored(tmp_path / "test", GREY[:3], few)).test) == 3


def test_export_writes_what_score_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = stored(tmp_path, GREY, LABELS)
    assert main(["export", str(source), "--out", str(tmp_path / "png")]) == 0
    assert "protect nobody" in capsys.readouterr().err
    found, before = read_samples(tmp_path / "png", WANTED), load_images(source)
    order = np.argsort(before.labels, kind="stable")
    assert (found.images == before.images[order]).all() and (found.labels == before.labels[order]).all()
    assert main(["export", str(source), "--out", str(tmp_path / "png")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "none"), "--out", str(tmp_path / "other")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_samples_join_a_grid_as_a_run_that_says_it_is_a_claim(tmp_path: Path, capsys) -> None:
    from workflow.datasets import external

    data = LabelledImages(GREY, LABELS)
    save(Dataset("toy", data, data, WANTED.class_names, "here", {}), tmp_path / "data")
    out = tmp_path / "runs/toy/theirs/eps10/seed0"
    call = ["--samples", str(stored(tmp_path)), "--card", str(tmp_path / "data/card.json"), "--out", str(out)]
    assert external.main([*call, "--claimed-epsilon", "10"]) == 0
    record = read_json(out / "run.json")
    assert {key: record[key] for key in ("run", "accounting", "epsilon")} == {
        "run": "theirs", "accounting": "claimed", "epsilon": "10",
    }  # fmt: skip
    assert not [key for key in record if key.startswith("eps_")] and len(load_images(out / "samples.npz")) == 30
    assert external.main([*call, "--claimed-epsilon", "1"]) == 2
    assert "--out says eps10, the claim is 1" in capsys.readouterr().err
