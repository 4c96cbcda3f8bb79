"""The data stage's command, the bundled digits, folders of images and the card."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workflow.common.contracts import load_images
from workflow.common.files import read_json
from workflow.datasets import NAMES, available
from workflow.datasets.__main__ import main


def test_digits_fill_the_frame_and_keep_their_levels(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    assert main(["digits", "--out", str(tmp_path)]) == 0
    train, test = load_images(tmp_path / "train.npz"), load_images(tmp_path / "test.npz")
    assert len(train) + len(test) == 1797 and train.image_shape == (1, 28, 28)
    shares = np.bincount(test.labels) / np.bincount(np.concatenate([train.labels, test.labels]))
    assert np.all(np.abs(shares - 0.2) < 0.01)
    pixels = np.concatenate([train.images, test.images])[:, 0]
    assert pixels.max() == 255 and not pixels[:, :2].any() and not pixels[:, :, -2:].any()
    small = {image.tobytes() for image in load_digits().images}
    assert all((image[3:27:3, 3:27:3] * (16 / 255)).round().tobytes() in small for image in pixels[:50])


def test_the_same_call_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert main(["digits", "--out", str(tmp_path / name)]) == 0
    for file in ("train.npz", "test.npz", "card.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_card_describes_the_npz(tmp_path: Path) -> None:
    assert main(["digits", "--out", str(tmp_path)]) == 0
    card = read_json(tmp_path / "card.json")
    assert card["num_classes"] == 10 and card["class_names"] == list("0123456789")
    for name, described in card["splits"].items():
        split = load_images(tmp_path / f"{name}.npz")
        content = hashlib.sha256(split.images.tobytes() + split.labels.tobytes()).hexdigest()
        per_class = np.bincount(split.labels).tolist()
        assert described == {"count": len(split), "per_class": per_class, "sha256": content}


def picture(path: Path, level: int, mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, level if mode == "L" else (level, 0, 0)).save(path)


def test_a_folder_of_images_has_a_class_per_subfolder(tmp_path: Path) -> None:
    for index in range(10):
        picture(tmp_path / f"own/cats/{index}.png", index)
        picture(tmp_path / f"own/dogs/{index}.png", 100 + index)
    command = ["image_folder", "--out", str(tmp_path / "out"), "--source", str(tmp_path / "own")]
    assert main(command) == 0
    train, test = (load_images(tmp_path / f"out/{split}.npz") for split in ("train", "test"))
    assert train.images.shape == (16, 3, 4, 6) and np.bincount(test.labels).tolist() == [2, 2]
    levels = np.concatenate([train.images, test.images])[:, 0, 0, 0]
    assert sorted(levels) == [*range(10), *range(100, 110)]
    assert np.array_equal(train.images[:, 0, 0, 0] >= 100, train.labels == 1)
    assert read_json(tmp_path / "out/card.json")["class_names"] == ["cats", "dogs"]


def test_grey_images_keep_one_channel(tmp_path: Path) -> None:
    for index in range(4):
        picture(tmp_path / f"own/{index % 2}/{index}.png", index, "L")
    assert main(["image_folder", "--out", str(tmp_path / "out"), "--source", str(tmp_path / "own")]) == 0
    assert load_images(tmp_path / "out/train.npz").image_shape == (1, 4, 6)


def test_mixed_sizes_and_broken_images_are_refused(tmp_path: Path, capsys) -> None:
    for index in range(4):
        picture(tmp_path / f"own/{index % 2}/{index}.png", index)
    command = ["image_folder", "--out", str(tmp_path / "out"), "--source", str(tmp_path / "own")]
    picture(tmp_path / "own/1/9.png", 0, size=(7, 4))
    assert main(command) == 2 and "is 4x7 but" in capsys.readouterr().err
    (tmp_path / "own/1/9.png").write_text("no image")
    assert main(command) == 2 and "9.png is not a readable image" in capsys.readouterr().err
    assert main(command[:3]) == 2 and "needs one existing folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnits", "--out", "x"], f"unknown dataset 'mnits'; did you mean 'mnist'? valid: {', '.join(NAMES)}"),
        (["mnist", "--out", "x", "--source", "/no/such/folder"], "no such data folder: /no/such/folder"),
        (["celeba", "--out", "x", "--test-split", "val"], "unknown test split 'val'; did you mean 'valid'? valid: "),
        (["digits"], "--out DIR is required"),
    ],
)
def test_wrong_input_ends_in_one_line_and_exit_2(capsys, arguments: list[str], message: str) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1


def test_check_answers_by_exit_code(tmp_path: Path) -> None:
    assert main(["digits", "--check"]) == 0
    assert main(["celeba", "--check", "--source", str(tmp_path)]) == 1
    assert main(["nothing", "--check"]) == 2
    assert available("mnist") and not available("image_folder") and available("image_folder", [tmp_path])


def test_asking_what_is_available_loads_no_heavy_library() -> None:
    code = "import sys; from workflow.datasets import available; available('celeba'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "torchvision", "sklearn", "PIL", "pandas"} & set(done.stdout.split())
