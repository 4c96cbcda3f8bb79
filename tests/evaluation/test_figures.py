"""The figures show the first image of each class, real data on top, every method; and the files are reproducible."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image as image_io
from matplotlib.backends.backend_agg import FigureCanvasAgg

from evaluation.report.figures import Panel, build_panels, draw, first_images, main, mosaic
from evaluation.report.layout import load_layout
from workflow.common.contracts import LabelledImages, RunFolder, run_folders
from workflow.common.files import write_json, write_npz

LAYOUT = str(Path(__file__).resolve().parents[2] / "workflow/config/report.yaml")
DEFAULT = load_layout(LAYOUT)


def save(path: Path, classes: int, shape: tuple[int, int, int], offset: int = 0) -> None:
    """Writes two images per class; the image of (class c, copy k) has the constant value offset + 2 c + k."""
    labels = np.tile(np.arange(classes), 2)[::-1].copy()
    copies = np.repeat([0, 1], classes)
    values = (offset + 2 * labels + copies).astype(np.uint8)
    images = np.broadcast_to(values[:, None, None, None], (len(labels), *shape)).copy()
    write_npz(path, images=images, labels=labels.astype(np.int64))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "quick"


def add(root: Path, run: str, dataset: str = "mnist", epsilon: float = 10.0, seed: int = 0, offset: int = 0) -> None:
    classes, shape = (2, (3, 32, 32)) if dataset.startswith("celeba") else (10, (1, 28, 28))
    save(RunFolder(root, dataset, run, epsilon, seed).path / "samples.npz", classes, shape, offset)
    save(root / "data" / dataset / "test.npz", classes, shape, 200)


def panels(root: Path, figure: str = "figure3"):
    return build_panels(DEFAULT.figures[figure], DEFAULT, run_folders(root), root / "data")


def test_the_first_image_of_each_class_is_taken_in_file_order():
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    data = LabelledImages(images, np.array([2, 0, 0, 2, 0, 2]))
    taken = [None if image is None else image.item() for image in first_images(data, 3, 2)]
    assert taken == [1, 2, None, None, 0, 3]


def test_real_data_on_top_then_methods_in_the_layout_s_order_then_references(root):
    for run, epsilon in (("zoo", 10.0), ("nonprivate", math.inf), ("dpac", 10.0), ("dpac", 1.0), ("dp_merf", 10.0)):
        add(root, run, epsilon=epsilon)
    add(root, "dpac_wo_g2r")  # an ablation belongs to Table 4 only
    labels, (panel,) = panels(root)
    assert labels == [
        "Real data", "DP-MERF\nε = 10", "DP-GAN-DPAC\nε = 10", "zoo\nε = 10", "DP-GAN-DPAC\nε = 1",
        "Same GAN without noise\nno privacy",
    ]  # fmt: skip
    assert list(panel.rows) == labels
    assert [image[0, 0, 0] for image in panel.rows["Real data"]] == [200 + 2 * c for c in range(10)]


def test_two_data_sets_stand_side_by_side_with_one_row_per_method(root):
    add(root, "dpac", "fashion_mnist")
    add(root, "dpac", "mnist")
    add(root, "dp_merf", "mnist")
    write_json(root / "data/fashion_mnist/card.json", {"class_names": [f"garment {c}" for c in range(10)]})
    labels, shown = panels(root)
    assert [panel.title for panel in shown] == ["MNIST", "F-MNIST"]
    assert shown[1].classes[0] == "garment 0" and shown[0].classes[0] == "0"
    assert "DP-MERF\nε = 10" in labels and "DP-MERF\nε = 10" not in shown[1].rows


def test_an_unknown_data_set_is_shown_in_figure_3(root):
    add(root, "dpac", "digits")
    assert [panel.title for panel in panels(root)[1]] == ["digits"]
    assert panels(root, "figure4") == ([], [])


def test_the_smallest_seed_is_shown(root):
    add(root, "dpac", seed=1, offset=100)
    add(root, "dpac", seed=0, offset=50)
    _, (panel,) = panels(root)
    assert panel.rows["DP-GAN-DPAC\nε = 10"][0][0, 0, 0] == 50


def test_faces_stand_female_left_and_male_right(root):
    add(root, "dpac", "celeba10k")
    _, (panel,) = panels(root, "figure4")
    assert (panel.title, panel.classes) == ("CelebA-10k", ["female", "male"])
    row = panel.rows["DP-GAN-DPAC\nε = 10"]
    assert [None if image is None else image[0, 0, 0] for image in row] == [0, 1, None, None, None, None] + [
        2, 3, None, None, None, None
    ]  # fmt: skip


def test_a_mosaic_places_each_image_and_leaves_missing_rows_white():
    grey, colour = np.full((1, 2, 2), 7, np.uint8), np.zeros((3, 2, 2), np.uint8)
    colour[1] = 9
    tiles = mosaic(Panel("t", ["a", "b"], 1, {"x": [grey, None]}), ["gone", "x"])
    assert tiles.shape == (6, 6, 3)
    assert (tiles[:3] == 255).all() and (tiles[3:, 3:] == 255).all()
    assert (tiles[3:5, :2] == 7).all() and (tiles[5] == 255).all() and (tiles[:, 2] == 255).all()
    tiles = mosaic(Panel("t", ["a"], 2, {"x": [None, colour]}), ["x"])
    assert tiles[0, 3].tolist() == [0, 9, 0]


def test_every_label_lies_on_the_page(root):
    for run in DEFAULT.runs:
        add(root, run)
    labels, shown = panels(root)
    figure = draw(DEFAULT.figures["figure3"], labels, shown)
    canvas = FigureCanvasAgg(figure)
    boxes = {text.get_text(): text.get_window_extent(canvas.get_renderer()) for text in figure.texts}
    assert set(labels) <= set(boxes)
    assert min(box.x0 for box in boxes.values()) >= 0


def test_few_classes_leave_room_for_title_and_caption_and_names_are_no_formulas(root):
    save(RunFolder(root, "lesions", "dpac", 10, 0).path / "samples.npz", 2, (3, 32, 32))
    save(root / "data/lesions/test.npz", 2, (3, 32, 32))
    write_json(root / "data/lesions/card.json", {"class_names": ["$benign$", r"$\\wrong{$"]})
    figure = draw(DEFAULT.figures["figure3"], *panels(root))
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = {text.get_text(): text.get_window_extent(renderer) for text in figure.texts}
    assert "$benign$" in boxes
    assert max(box.x1 for box in boxes.values()) <= figure.get_window_extent().x1


def test_the_command_writes_the_same_bytes_each_time(root, tmp_path):
    add(root, "dpac")
    names = [f"figure{n}.{suffix}" for n in (3, 4) for suffix in ("pdf", "png")]
    written = []
    for out in (tmp_path / "a", tmp_path / "b"):
        assert main(["--root", str(root), "--layout", LAYOUT, "--out", str(out)]) == 0
        assert sorted(path.name for path in out.iterdir()) == names
        written.append([(out / name).read_bytes() for name in names])
    assert written[0] == written[1]
    pixels = image_io.imread(tmp_path / "a/figure3.png")
    assert pixels.shape[1] > 1000  # 200 dpi
    assert pixels[:, :, :3].std() > 0.1  # the images are in it


def test_figure_4_without_faces_is_one_line_not_a_missing_file(root, tmp_path):
    add(root, "dpac")
    main(["--root", str(root), "--layout", LAYOUT, "--out", str(tmp_path)])
    assert "No face data set was configured" in DEFAULT.figures["figure4"].when_empty
    assert image_io.imread(tmp_path / "figure4.png").shape[:2] == (180, 1200)


def test_only_the_given_runs_are_drawn(root, tmp_path):
    add(root, "dpac")
    add(root, "dp_merf")
    folder = str(RunFolder(root, "mnist", "dpac", 10, 0).path)
    heights = []
    for extra in ([], ["--runs", folder]):
        assert main(["--root", str(root), "--layout", LAYOUT, "--out", str(tmp_path), *extra]) == 0
        heights.append(image_io.imread(tmp_path / "figure3.png").shape[0])
    assert heights[0] - heights[1] == 80  # one row of 0.4 inches


def test_a_broken_sample_file_is_bad_input(root, tmp_path, capsys):
    add(root, "dpac")
    (RunFolder(root, "mnist", "dpac", 10, 0).path / "samples.npz").write_bytes(b"PK")
    assert main(["--root", str(root), "--layout", LAYOUT, "--out", str(tmp_path)]) == 2
    assert "is not an npz" in capsys.readouterr().err
