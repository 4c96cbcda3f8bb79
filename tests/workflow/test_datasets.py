"""The data stage's command, the bundled digits, folders of images and the card."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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
    # A release takes both splits of such a set.
    assert card["test_drawn"] is True
    for name, described in card["splits"].items():
        split = load_images(tmp_path / f"{name}.npz")
        content = hashlib.sha256(split.images.tobytes() + split.labels.tobytes()).hexdigest()
        per_class = np.bincount(split.labels).tolist()
        assert described == {"count": len(split), "per_class": per_class, "sha256": content}


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
