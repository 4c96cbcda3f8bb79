"""An .npz in MedMNIST's layout: any numbers, its own splits, and one line for what is wrong with it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_pictures import RAMP, make, refusal

from workflow.common.own_set import OwnSet
from workflow.datasets.own import content_hash


def med(path: Path, shape: tuple[int, ...] = (28, 28), **changes: Any) -> Path:
    """Writes 30 training, 10 validation and 20 test pictures of 3 classes; a change of None leaves an array out."""
    arrays: dict[str, Any] = {}
    for split, count in (("train", 30), ("val", 10), ("test", 20)):
        arrays[f"{split}_images"] = np.random.default_rng(count).integers(0, 256, (count, *shape), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % 3)[:, None]
    arrays |= changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def stored(path: Path, key: str) -> np.ndarray:
    with np.load(path) as arrays:
        return arrays[key]


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 1), (28, 28, 3)])
def test_pictures_of_the_right_size_are_taken_as_they_are(tmp_path: Path, capsys, shape: tuple[int, ...]) -> None:
    path = med(tmp_path / "m.npz", shape)
    train, test, card = make(path, tmp_path / "out")
    for split, key in ((train, "train"), (test, "test")):
        images = stored(path, f"{key}_images")
        images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
        assert np.array_equal(split.images, images)
        assert np.array_equal(split.labels, stored(path, f"{key}_labels")[:, 0])
    assert card["class_names"] == ["0", "1", "2"] and card["source"] == "file m.npz"
    assert card["test_split"] == "test_images" and card["files"] == {"content": content_hash(OwnSet(folder=str(path)))}
    mode = "rgb" if shape[-1] == 3 else "grey"
    line = f"mine: 30 train, 20 test, 3 classes, 28x28 {mode} (size and mode deduced), from file m.npz"
    assert capsys.readouterr().out == f"{line}; 10 val images left out\n"


def test_val_serves_as_test_where_it_is_asked_for(tmp_path: Path, capsys) -> None:
    path = med(tmp_path / "m.npz")
    train, test, card = make(path, tmp_path / "out", "--test-split", "val")
    assert (len(train), len(test), card["test_split"]) == (30, 10, "val_images")
    assert np.array_equal(test.images[:, 0], stored(path, "val_images"))
    path = med(tmp_path / "m.npz", val_images=None)
    assert f"{path} has no val_images; leave out test_split: val" in refusal(capsys, path, "--test-split", "val")


def test_without_a_test_split_one_is_drawn(tmp_path: Path) -> None:
    path = med(tmp_path / "m.npz", test_images=None, test_labels=None)
    train, test, card = make(path, tmp_path / "out", "--test-fraction", "0.3")
    assert np.bincount(test.labels).tolist() == [3, 3, 3] and len(train) == 21
    assert card["test_split"] == "0.3 of each class, drawn with seed 0"
    both = np.concatenate([train.images, test.images])[:, 0]
    assert {image.tobytes() for image in both} == {image.tobytes() for image in stored(path, "train_images")}


def test_labels_with_gaps_are_renumbered(tmp_path: Path) -> None:
    labels = {"train_labels": np.arange(30) % 3 * 5 - 1, "test_labels": (np.arange(20) % 3 * 5 - 1).astype(float)}
    _, test, card = make(med(tmp_path / "m.npz", **labels), tmp_path / "out")
    assert card["class_names"] == ["-1", "4", "9"] and test.labels[:4].tolist() == [0, 1, 2, 0]


def ramps(values: np.ndarray, channels: int = 0) -> dict[str, np.ndarray]:
    values = np.repeat(values[..., None], channels, 2) if channels else values
    return {f"{split}_images": np.stack([values] * count) for split, count in (("train", 30), ("test", 20))}


@pytest.mark.parametrize("channels", [0, 3])
@pytest.mark.parametrize(
    ("values", "window", "expected"),
    [
        ((RAMP * 83).astype(np.uint16), "", RAMP * 83 / 257),
        ((RAMP * 83 - 32768).astype(">i2"), "", RAMP * 83 / 257),
        ((RAMP / 783).astype(np.float64), "", RAMP * 255 / 783),
        ((RAMP / 783).astype(np.float16), "", RAMP * 255 / 783),
        (RAMP > 300, "", (RAMP > 300) * 255.0),
        (RAMP.astype(np.int64), "100,600", ((RAMP - 100) * 255 / 500).clip(0, 255)),
        ((RAMP / 10).astype(np.float32), "0,78.3", RAMP * 255 / 783),
    ],
)
def test_other_numbers_are_scaled_as_pictures_are(
    tmp_path: Path, values: np.ndarray, window: str, expected: np.ndarray, channels: int
) -> None:
    path = med(tmp_path / "m.npz", val_images=None, **ramps(values, channels))
    train, _, _ = make(path, tmp_path / "out", *(["--window", window] if window else []))
    assert train.image_shape == (channels or 1, 28, 28)
    assert np.abs(train.images[7] - expected).max() <= 0.6
    if channels:
        grey, _, _ = make(path, tmp_path / "grey", "--mode", "grey", *(["--window", window] if window else []))
        assert grey.image_shape[0] == 1 and np.abs(grey.images[7] - expected).max() <= 1


def test_large_pictures_are_resized_in_blocks(tmp_path: Path) -> None:
    images = np.repeat(np.arange(300) % 256, 60 * 64).reshape(300, 60, 64).astype(np.uint8)
    changes = {"train_images": images, "train_labels": np.arange(300) % 2, "test_images": None}
    train, test, card = make(med(tmp_path / "m.npz", val_images=None, **changes), tmp_path / "out", "--mode", "rgb")
    assert card["size"] == 32 and train.image_shape == (3, 32, 32)
    levels = np.sort(np.concatenate([train.images, test.images])[:, 1, 9, 9].astype(int))
    assert np.array_equal(levels, np.sort(np.arange(300) % 256))


def of(split: str, images: Any, labels: Any) -> dict[str, Any]:
    return {f"{split}_images": images, f"{split}_labels": labels}


PICTURES = np.zeros((30, 28, 28), np.float32)
NAN_PICTURES = PICTURES.copy()
NAN_PICTURES[29, 3, 3] = np.nan
NO_OTHERS = of("val", None, None) | of("test", None, None)
BAD_ARRAYS = {
    "nan": (NO_OTHERS | {"train_images": NAN_PICTURES}, "train_images holds NaN or infinity"),
    "nan_labels": ({"train_labels": np.full(30, np.nan)}, "train_labels holds NaN or fractions"),
    "fractions": ({"train_labels": np.arange(30) / 2}, "train_labels holds NaN or fractions"),
    "objects": ({"train_images": np.array([None] * 30)}, "train_images holds Python objects, which are not loaded"),
    "object_labels": ({"test_labels": np.array(["a", None] * 10, object)}, "test_labels holds Python objects"),
    "texts": ({"train_labels": np.array(["a"] * 30)}, "train_labels is of type <U1; save numbers"),
    "no_train": (of("train", None, None), "has no train_images"),
    "no_labels": ({"test_labels": None}, "test_labels is missing; each test_images needs its labels"),
    "several_labels": ({"train_labels": np.zeros((30, 14), int)}, "train_labels is [30, 14]: several labels a picture"),
    "short_labels": ({"train_labels": np.zeros(29, int)}, "train_labels is [29]; it must be [30], one for each of"),
    "flat": ({"train_images": np.zeros((30, 784), np.uint8)}, "train_images is uint8 [30, 784]; it must be [N, height"),
    "channels_first": (
        {"train_images": np.zeros((30, 3, 28, 28), np.uint8)},
        "train_images is uint8 [30, 3, 28, 28]; it must be [N, height, width] or, channels last,",
    ),
    "val_shape": (
        {"val_images": np.zeros((10, 32, 32), np.uint8)},
        "val_images is uint8 [10, 32, 32] but train_images is uint8 [30, 28, 28]; make them alike",
    ),
    "test_shape": (
        {"test_images": np.zeros((20, 28, 28, 3), np.uint8)},
        "test_images is uint8 [20, 28, 28, 3] but train_images is uint8 [30, 28, 28]; make them alike",
    ),
    "test_type": (
        {"test_images": np.zeros((20, 28, 28), np.uint16)},
        "test_images is uint16 [20, 28, 28] but train_images is uint8 [30, 28, 28]; make them alike",
    ),
    "small": (NO_OTHERS | {"train_images": np.zeros((30, 4, 28), np.uint8)}, "at least 8 pixels on each side"),
    "fortran": ({"train_images": np.asfortranarray(np.zeros((30, 28, 28), np.uint8))}, "is in Fortran's order"),
    "unknown_test": ({"test_labels": np.arange(20) % 4}, "label 3 is not in train_labels; both splits need the same"),
    "missing_test": ({"test_labels": np.arange(20) % 2}, "label 2 is not in test_labels; both splits need the same"),
    "one_class": ({"train_labels": np.zeros(30, int)}, "train_labels needs at least 2 classes; it has 1"),
    "one_picture": (
        NO_OTHERS | {"train_labels": np.arange(30) == 3},
        "class 1 has one picture; it needs 2, one to train on and one to test on: add another, or remove the class",
    ),
    "wide": (
        {f"{split}_images": np.zeros((count, 28, 28), np.int64) for split, count in (("train", 30), ("test", 20))}
        | of("val", None, None),
        "train_images holds int64 integers (0 to 0); state window: LOW,HIGH",
    ),
    "empty": (
        of("train", np.zeros((0, 28, 28), np.uint8), np.zeros(0, int)),
        "train_labels needs at least 2 classes; it has 0",
    ),
}


@pytest.mark.parametrize("kind", BAD_ARRAYS)
def test_a_bad_array_is_named(tmp_path: Path, capsys, kind: str) -> None:
    changes, message = BAD_ARRAYS[kind]
    path = med(tmp_path / "m.npz", **changes)
    error = refusal(capsys, path)
    assert error.startswith(f"error: {path}") and message in error
    if kind == "nan":
        assert message in refusal(capsys, path, "--window", "0,1")


def test_a_damaged_file_is_named(tmp_path: Path, capsys) -> None:
    path = med(tmp_path / "m.npz")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert f"error: {path} is damaged or no .npz" in refusal(capsys, path)
    path.write_bytes(b"")
    assert f"error: {path} is damaged or no .npz" in refusal(capsys, path)
    flipped = bytearray(content)
    flipped[3000] ^= 255
    path.write_bytes(flipped)
    assert f"error: {path} is damaged or no .npz: Bad CRC-32" in refusal(capsys, path)
    with zipfile.ZipFile(path, "w") as archive, np.load(med(tmp_path / "whole.npz")) as arrays:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array)
                member.write(b"too much" if name == "test_labels" else b"")
    assert f"{path}: test_labels holds 28 bytes, which uint8 [20, 1] is not" in refusal(capsys, path)
    path.unlink()
    assert f"error: no such file: {path}; fix folder" in refusal(capsys, path)


@pytest.mark.parametrize("option", ["labels", "test", "test-labels"])
def test_a_file_brings_its_own_labels_and_splits(tmp_path: Path, capsys, option: str) -> None:
    path = med(tmp_path / "m.npz")
    message = f"brings its own labels and splits; leave out {option.replace('-', '_')}"
    assert message in refusal(capsys, path, f"--{option}", "x")
    assert "is for 16-bit, integer and float pictures" in refusal(capsys, path, "--window", "0,9")


def test_the_hash_is_of_the_files_bytes_alone(tmp_path: Path) -> None:
    first = content_hash(OwnSet(folder=str(med(tmp_path / "m.npz"))))
    (tmp_path / "m.npz").rename(tmp_path / "n.npz")
    assert content_hash(OwnSet(folder=str(tmp_path / "n.npz"))) == first
    assert content_hash(OwnSet(folder=str(med(tmp_path / "m.npz", val_images=None)))) != first


@pytest.mark.parametrize(
    "label", [np.uint64(2**63), np.uint64(2**64 - 1), np.float64(1e300), np.float64(-1e300)], ids=str
)
def test_labels_beyond_whole_numbers_of_64_bits_are_refused_and_not_wrapped(tmp_path: Path, capsys, label: Any) -> None:
    labels = (np.arange(30) % 3).astype(type(label))
    labels[4] = label
    error = refusal(capsys, med(tmp_path / "m.npz", train_labels=labels))
    assert "m.npz: train_labels holds" in error and "number classes" in error
