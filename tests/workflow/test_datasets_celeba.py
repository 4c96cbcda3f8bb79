"""CelebA from a folder of a few generated faces."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workflow.common.contracts import load_images
from workflow.common.files import read_json
from workflow.datasets import available, celeba, sources
from workflow.datasets.__main__ import main

COUNT = 10
ATTRIBUTES = ["Bald", "Male", "Young"]


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources.CELEBA_SIZES, "celeba", COUNT)
    monkeypatch.setitem(sources.CELEBA_SIZES, "celeba10k", COUNT // 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten faces, plain grey of level 20 * index on the upper half and black below; odd ones are male; 6/2/2 split."""
    root = tmp_path / "faces"
    (root / "img_align_celeba").mkdir(parents=True)
    names = [f"{index:06}.jpg" for index in range(1, COUNT + 1)]
    for index, name in enumerate(names):
        pixels = np.zeros((218, 178, 3), np.uint8)
        pixels[:109] = 20 * index
        Image.fromarray(pixels).save(root / "img_align_celeba" / name, quality=95)
    rows = [f"{name} -1 {' 1' if index % 2 else '-1'}  1" for index, name in enumerate(names)]
    (root / "list_attr_celeba.txt").write_text("\n".join([str(COUNT), " ".join(ATTRIBUTES) + " ", *rows, ""]))
    split = [0] * 6 + [1] * 2 + [2] * 2
    (root / "list_eval_partition.txt").write_text("".join(f"{n} {s}\n" for n, s in zip(names, split, strict=True)))
    return root


def run(folder: Path, *more: str, name: str = "celeba") -> int:
    return main([name, "--out", str(folder.parent / "out"), "--source", str(folder), *more])


def zipped(folder: Path) -> None:
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for path in sorted((folder / "img_align_celeba").iterdir()):
            archive.write(path, f"img_align_celeba/{path.name}")
            path.unlink()
    (folder / "img_align_celeba").rmdir()


@pytest.mark.parametrize("as_zip", [False, True])
def test_faces_become_32x32_with_the_label_male(folder: Path, as_zip: bool) -> None:
    if as_zip:
        zipped(folder)
    assert run(folder) == 0
    train, test = (load_images(folder.parent / f"out/{split}.npz") for split in ("train", "test"))
    assert train.images.shape == (6, 3, 32, 32) and test.images.shape == (2, 3, 32, 32)
    assert train.labels.tolist() == [0, 1, 0, 1, 0, 1] and test.labels.tolist() == [0, 1]
    # The whole face is squashed, not cropped: the grey half fills 16 of 32 rows.
    assert np.abs(train.images[3, :, :15].astype(int) - 60).max() <= 3 and train.images[3, :, 17:].max() <= 3
    assert np.abs(test.images[1, :, :15].astype(int) - 180).max() <= 3
    card = read_json(folder.parent / "out/card.json")
    assert card["class_names"] == ["female", "male"] and card["splits"]["train"]["per_class"] == [3, 3]
    assert card["test_split"] == "test" and ("img_align_celeba.zip" in card["files"]) == as_zip


def test_the_resize_is_the_papers_torchvision_resize(folder: Path) -> None:
    import workflow.common.torchvision_guard  # noqa: F401 (before torchvision)
    from torchvision import transforms  # isort: skip

    path = folder / "img_align_celeba/000004.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (218, 178, 3), np.uint8)
    Image.fromarray(noise).save(path)
    expected = np.asarray(transforms.Resize((32, 32))(Image.open(path))).transpose(2, 0, 1)
    assert np.array_equal(celeba.decode([path.name], lambda _: path.read_bytes(), "faces")[0], expected)


def test_valid_can_serve_as_test(folder: Path) -> None:
    assert run(folder, "--test-split", "valid") == 0
    assert np.abs(load_images(folder.parent / "out/test.npz").images[0, :, :15].astype(int) - 120).max() <= 3
    assert read_json(folder.parent / "out/card.json")["test_split"] == "valid"


def without_attributes(folder: Path) -> None:
    (folder / "list_attr_celeba.txt").unlink()


def without_partition(folder: Path) -> None:
    (folder / "list_eval_partition.txt").unlink()


def truncated_attributes(folder: Path) -> None:
    path = folder / "list_attr_celeba.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:-3]))


def without_an_image(folder: Path) -> None:
    (folder / "img_align_celeba/000002.jpg").unlink()


def truncated_zip(folder: Path) -> None:
    zipped(folder)
    path = folder / "img_align_celeba.zip"
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_attributes, "no list_attr_celeba.txt; put CelebA's list_attr_celeba.txt next to"),
        (without_partition, "no list_eval_partition.txt"),
        (truncated_attributes, "7 rows where 10 are announced"),
        (without_an_image, "image 000002.jpg is missing"),
        (truncated_zip, "img_align_celeba.zip is truncated"),
    ],
)
def test_a_broken_folder_ends_in_one_line_and_exit_2(folder: Path, capsys, damage, message: str) -> None:
    damage(folder)
    assert run(folder) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert not (folder.parent / "out/card.json").exists()


def test_a_subset_does_not_pass_for_the_whole(folder: Path, capsys) -> None:
    sources.CELEBA_SIZES.update(celeba=2 * COUNT, celeba10k=COUNT)
    assert run(folder) == 2
    assert "lists 10 images, but celeba has 20; name it celeba10k" in capsys.readouterr().err
    assert not available("celeba", [folder])
    assert available("celeba10k", [folder]) and run(folder, name="celeba10k") == 0


def test_without_a_folder_the_error_says_what_to_put_where(tmp_path: Path, capsys) -> None:
    assert main(["celeba", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]) == 2
    error = capsys.readouterr().err
    assert "list_attr_celeba.txt" in error and "not reachable" in error and "DPAC_BENCH_DATA" in error


def test_available_sees_files_in_subfolders_and_what_is_missing(folder: Path) -> None:
    parent = folder.parent
    folder.rename(parent / "celeba")
    assert available("celeba", [parent]) and available("celeba", [parent / "celeba"])
    (parent / "celeba/list_attr_celeba.txt").unlink()
    assert not available("celeba", [parent]) and not available("celeba")
