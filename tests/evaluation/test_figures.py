"""The figures show the first image of each class, real data on top, every method; and the files are reproducible."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image as image_io
from matplotlib.backends.backend_agg import FigureCanvasAgg

from evaluation.report.claims import claim, of_folder
from evaluation.report.figures import PAPER, REAL, build_panels, first_images, main
from evaluation.report.layout import load_layout
from evaluation.report.row_figure import Label, Panel, draw, mosaic
from workflow.common.contracts import LabelledImages, RunFolder, run_folders
from workflow.common.errors import UserError
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


def add(
    root: Path, run: str, dataset: str = "mnist", epsilon: float = 10.0, seed: int = 0, offset: int = 0,
    sound: float | None = None,
) -> None:  # fmt: skip
    """Writes a run that spends its budget by both counts, or `sound` by the sound one; 10 classes, of faces 2."""
    classes, shape = (2, (3, 32, 32)) if dataset.startswith("celeba") else (10, (1, 28, 28))
    folder = RunFolder(root, dataset, run, epsilon, seed).path
    save(folder / "samples.npz", classes, shape, offset)
    save(root / "data" / dataset / "test.npz", classes, shape, 200)
    if math.isfinite(epsilon):
        write_json(folder / "run.json", {"eps_published": epsilon, "eps_sound": sound or epsilon})


def panels(root: Path, figure: str = "figure3", rows: str = "all"):
    return build_panels(DEFAULT.figures[figure], DEFAULT, run_folders(root), root / "data", rows)


def at(name: str, epsilon: str = "10") -> Label:
    return Label(name, f"ε = {epsilon}, sound")


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
        REAL, at("DP-MERF"), at("DP-GAN-DPAC"), at("zoo"), at("DP-GAN-DPAC", "1"),
        Label("Same GAN without noise", "no privacy"),
    ]  # fmt: skip
    assert list(panel.rows) == labels
    assert [image[0, 0, 0] for image in panel.rows[REAL]] == [200 + 2 * c for c in range(10)]


def test_two_data_sets_stand_side_by_side_with_one_row_per_method(root):
    add(root, "dpac", "fashion_mnist")
    add(root, "dpac", "mnist")
    add(root, "dp_merf", "mnist")
    write_json(root / "data/fashion_mnist/card.json", {"class_names": [f"garment {c}" for c in range(10)]})
    labels, shown = panels(root)
    assert [panel.title for panel in shown] == ["MNIST", "F-MNIST"]
    assert shown[1].classes[0] == "garment 0" and shown[0].classes[0] == "0"
    assert at("DP-MERF") in labels and at("DP-MERF") not in shown[1].rows


def test_an_unknown_data_set_is_shown_in_figure_3(root):
    add(root, "dpac", "digits")
    assert [panel.title for panel in panels(root)[1]] == ["digits"]
    assert panels(root, "figure4") == ([], [])


def test_the_smallest_seed_is_shown(root):
    add(root, "dpac", seed=1, offset=100)
    add(root, "dpac", seed=0, offset=50)
    _, (panel,) = panels(root)
    assert panel.rows[at("DP-GAN-DPAC")][0][0, 0, 0] == 50


def test_faces_stand_female_left_and_male_right(root):
    add(root, "dpac", "celeba10k")
    _, (panel,) = panels(root, "figure4")
    assert (panel.title, panel.classes) == ("CelebA-10k", ["female", "male"])
    row = panel.rows[at("DP-GAN-DPAC")]
    assert [None if image is None else image[0, 0, 0] for image in row] == [0, 1, None, None, None, None] + [
        2, 3, None, None, None, None
    ]  # fmt: skip


def test_a_mosaic_places_each_image_and_leaves_missing_rows_white():
    grey, colour = np.full((1, 2, 2), 7, np.uint8), np.zeros((3, 2, 2), np.uint8)
    colour[1] = 9
    x = Label("x")
    tiles = mosaic(Panel("t", ["a", "b"], 1, {x: [grey, None]}), [Label("gone"), x])
    assert tiles.shape == (6, 6, 3)
    assert (tiles[:3] == 255).all() and (tiles[3:, 3:] == 255).all()
    assert (tiles[3:5, :2] == 7).all() and (tiles[5] == 255).all() and (tiles[:, 2] == 255).all()
    tiles = mosaic(Panel("t", ["a"], 2, {x: [None, colour]}), [x])
    assert tiles[0, 3].tolist() == [0, 9, 0]


@pytest.mark.parametrize(
    ("counts", "words", "marked"),
    [
        ((10.0, 9.99, 9.99), "ε = 10, sound", False),
        # As far as scores.csv rounds.
        ((1.0, 1.0, 1.000001), "ε = 1, sound", False),
        ((10.0, 9.99, 21.61), "▲ ε = 10 as its authors count,\nsound count: ε ≤ 21.7", True),
        ((10.0, 67.59, 2139.2), "▲ ε = 67.6 as its authors count,\nsound count: ε ≤ 2140", True),
        ((10.0, None, 12.0), "▲ ε = 10 as its authors count,\nsound count: ε ≤ 12.0", True),
        ((10.0, 9.99, None), "▲ ε = 10 claimed, no sound ε known", True),
        ((10.0, 9.99, math.inf), "▲ ε = 10 claimed, no sound ε known", True),
        ((math.inf, None, None), "no privacy", False),
    ],
)
def test_each_row_says_in_words_what_its_epsilon_is_worth_and_rounds_no_bound_down(counts, words, marked):
    found = claim(*counts)
    assert (found.words, found.marked) == (words, marked)


def test_one_row_of_two_data_sets_bears_the_worse_of_their_epsilons(root):
    add(root, "gs_wgan", "mnist", sound=20.0)
    add(root, "gs_wgan", "fashion_mnist", sound=30.0)
    add(root, "dp_merf", "mnist", sound=20.0)
    add(root, "dp_merf", "fashion_mnist")
    labels, _ = panels(root)
    assert [label.words.splitlines()[-1] for label in labels[1:]] == ["sound count: ε ≤ 20.0", "sound count: ε ≤ 30.0"]
    assert all(label.marked for label in labels[1:])


def test_a_run_without_a_record_is_not_taken_to_be_sound(root):
    add(root, "dpac")
    (RunFolder(root, "mnist", "dpac", 10, 0).path / "run.json").unlink()
    assert panels(root)[0][1] == Label("DP-GAN-DPAC", "▲ ε = 10 claimed, no sound ε known", True)


def test_the_paper_s_methods_alone_stand_in_its_order_at_its_epsilon(root):
    for run in ("dpac", "dpac_sound", "dp_gauss", "gs_wgan", "dp_sinkhorn", "datalens", "nonprivate", "pate_gan"):
        for dataset in ("mnist", "celeba10k"):
            add(root, run, dataset)
    add(root, "dpac", epsilon=1.0)
    assert [label.name for label in panels(root, rows=PAPER)[0]] == [
        "Real data", "PATE-GAN", "DataLens", "GS-WGAN", "DP-Sinkhorn", "DP-GAN-DPAC"
    ]  # fmt: skip
    assert [label.name for label in panels(root, "figure4", PAPER)[0]] == [
        "Real data", "DataLens", "DP-Sinkhorn", "GS-WGAN", "DP-GAN-DPAC"
    ]  # fmt: skip


def boxes(figure) -> dict[str, Any]:
    """Returns where each text of a figure stands, in pixels."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    return {text.get_text(): text.get_window_extent(renderer) for text in figure.texts}


def inside(figure) -> bool:
    page = figure.get_window_extent()
    return all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= page.x1 and b.y1 <= page.y1 for b in boxes(figure).values())


def test_every_label_lies_on_the_page_and_in_its_row(root):
    for run in DEFAULT.runs:
        add(root, run, sound=2139.2)
    labels, shown = panels(root)
    figure = draw(labels, shown, "")
    found = boxes(figure)
    assert inside(figure) and {label.name for label in labels if len(label.name) < 30} <= set(found)
    row = 0.40 * figure.dpi
    names = [found[label.name] for label in labels if len(label.name) < 30]
    assert max(box.height for box in names) < row
    # Images begin right of every label.
    assert max(box.x1 for box in names) < figure.axes[0].get_window_extent().x0
    assert "Figure" not in " ".join(found) and figure._suptitle is None


@pytest.mark.parametrize("names", [["$benign$", r"$\\wrong{$"], ["a", "b", "c"], ["malignant melanoma, nodular"] * 7])
def test_no_class_name_or_title_is_cut_off_and_none_is_a_formula(root, names):
    dataset = "a_set_of_pictures_with_a_rather_long_name"
    for path in (RunFolder(root, dataset, "dpac", 10, 0).path / "samples.npz", root / "data" / dataset / "test.npz"):
        save(path, len(names), (3, 32, 32))
    write_json(root / "data" / dataset / "card.json", {"class_names": names})
    labels, shown = panels(root)
    figure = draw(labels, shown, "")
    assert inside(figure) and set(names) <= set(boxes(figure))


@pytest.mark.parametrize(("classes", "per_class"), [(2, 5), (3, 3), (6, 1)])
def test_where_there_are_few_classes_more_images_of_each_are_shown(root, classes, per_class):
    for path in (RunFolder(root, "lesions", "dpac", 10, 0).path / "samples.npz", root / "data/lesions/test.npz"):
        save(path, classes, (1, 28, 28))
    _, (panel,) = panels(root)
    assert panel.per_class == per_class and len(panel.rows[REAL]) == classes * per_class


def test_a_panel_says_how_many_of_many_classes_it_shows(root):
    for path in (RunFolder(root, "signs", "dpac", 10, 0).path / "samples.npz", root / "data/signs/test.npz"):
        save(path, 43, (1, 28, 28))
    assert panels(root)[1][0].title == "signs, 10 of 43 classes"


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
    assert pixels.shape[1] > 900  # 200 dpi
    assert pixels[:, :, :3].std() > 0.1  # the images are in it
    # Its letters are embedded, as TrueType, and it bears no title.
    (pdf,) = (content for name, content in zip(names, written[0], strict=True) if name == "figure3.pdf")
    assert b"/FontFile2" in pdf and b"/CIDFontType2" in pdf and b"/Type3" not in pdf


def test_figure_4_without_faces_is_one_line_not_a_missing_file(root, tmp_path):
    add(root, "dpac")
    main(["--root", str(root), "--layout", LAYOUT, "--out", str(tmp_path)])
    assert "No face data set was configured" in DEFAULT.figures["figure4"].when_empty
    assert image_io.imread(tmp_path / "figure4.png").shape[:2] == (120, 1200)


def test_only_the_given_runs_are_drawn(root, tmp_path):
    add(root, "dpac")
    add(root, "dp_gauss")
    folder = str(RunFolder(root, "mnist", "dpac", 10, 0).path)
    heights = []
    for extra in ([], ["--runs", folder], ["--rows", "paper"]):
        assert main(["--root", str(root), "--layout", LAYOUT, "--out", str(tmp_path), *extra]) == 0
        heights.append(image_io.imread(tmp_path / "figure3.png").shape[0])
    assert heights[0] - heights[1] == 80  # one row of 0.4 inches
    assert heights[0] - heights[2] == 80


def test_a_broken_sample_file_is_bad_input(root, tmp_path, capsys):
    add(root, "dpac")
    (RunFolder(root, "mnist", "dpac", 10, 0).path / "samples.npz").write_bytes(b"PK")
    assert main(["--root", str(root), "--layout", LAYOUT, "--out", str(tmp_path)]) == 2
    assert "is not an npz" in capsys.readouterr().err


def test_what_an_external_run_says_of_a_sound_epsilon_is_no_count(tmp_path):
    folder = RunFolder(tmp_path, "mnist", "theirs", 10.0, 0)
    write_json(folder.path / "run.json", {"accounting": "claimed", "eps_published": 2.0, "eps_sound": 2.0})
    assert of_folder(folder) == claim(10.0, None, None) and of_folder(folder).marked


def test_a_count_without_end_is_said_to_be_one():
    assert claim(10.0, math.inf, 80.0).words == "▲ ε = ∞ as its authors count,\nsound count: ε ≤ 80.0"


def test_a_panel_without_any_image_is_white():
    panel = Panel("none", ["0", "1"], 2, {REAL: [None] * 4})
    assert (mosaic(panel, [REAL]) == 255).all()


def test_runs_of_a_data_set_that_was_made_anew_at_another_size_are_one_error(tmp_path):
    folders = [RunFolder(tmp_path, "mine", run, 10.0, 0) for run in ("dpac", "dp_merf")]
    for folder, side in zip(folders, (28, 32), strict=True):
        write_npz(folder.path / "samples.npz", images=np.zeros((4, 1, side, side), np.uint8), labels=np.arange(4))
    (spec,) = (spec for spec in DEFAULT.figures.values() if spec.further_datasets)
    with pytest.raises(UserError, match=r"images of .*dpac.* are 28x28, those of .*dp_merf.* 32x32: one is"):
        build_panels(spec, DEFAULT, folders, tmp_path)
