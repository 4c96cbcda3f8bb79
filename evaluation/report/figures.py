"""Figures 3 and 4: the generated images themselves, a row per method, as png and pdf.

The images are never picked: each row shows the first images of each class in the run's sample file, and the real row
the first of each class in the test split.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from evaluation.report.layout import FigureSpec, Layout, add_layout, layout_of
from workflow.common.contracts import LabelledImages, RunFolder, format_epsilon, load_images, run_folders
from workflow.common.errors import command
from workflow.common.files import atomic, read_object
from workflow.common.options import Parser

STYLE = {"font.family": "DejaVu Sans", "font.size": 8, "pdf.fonttype": 42, "svg.hashsalt": "report"}
# Dates and versions out of the files: equal images give equal bytes.
METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None, "ModDate": None, "Producer": None}}
CELL, LABEL, GAP, EDGE = 0.40, 1.6, 0.22, 0.1  # inches: one image, the row labels, between panels, margin
NARROWEST = 5.2  # inches: the caption, where a data set has few classes
LETTERS = 25  # most letters of a line next to an image, as LABEL is wide
TITLE, HEAD, CAPTION = 0.34, 0.40, 0.34  # inches: figure title, panel title with classes, caption
CAPTION_TEXT = "First images of each class in each sample file, not selected. Top row: first test images of each class."


@dataclass(frozen=True)
class Panel:
    """One data set of a figure: class names, and per row label the images (uint8 [C, H, W]) or None where not run."""

    title: str
    classes: list[str]
    per_class: int
    rows: dict[str, list[np.ndarray | None]]


def first_images(data: LabelledImages, num_classes: int, per_class: int) -> list[np.ndarray | None]:
    """Returns the first `per_class` images (uint8 [C, H, W]) of classes 0..num_classes-1; None fills a short class."""
    images: list[np.ndarray | None] = []
    for label in range(num_classes):
        index = np.flatnonzero(data.labels == label)[:per_class]
        images += [*data.images[index], *[None] * (per_class - len(index))]
    return images


def row_label(layout: Layout, folder: RunFolder) -> str:
    """Returns the label of a run's row: its name, and its epsilon below unless it has no privacy."""
    name = textwrap.fill(layout.run_label(folder.run), LETTERS)
    return f"{name}\nno privacy" if math.isinf(folder.epsilon) else f"{name}\nε = {format_epsilon(folder.epsilon)}"


def _ordered(spec: FigureSpec, layout: Layout, folders: Iterable[RunFolder]) -> list[RunFolder]:
    """Sorts runs as in the tables: the figure's rows, then runs the layout does not place, then references."""
    rows = [row.run for row in spec.rows]
    references = list(layout.references)

    def place(folder: RunFolder) -> tuple[int, int]:
        if folder.run in rows:
            return 0, rows.index(folder.run)
        return (2, references.index(folder.run)) if folder.run in references else (1, 0)

    def key(folder: RunFolder) -> tuple:
        return place(folder)[0] == 2, math.isinf(folder.epsilon), -folder.epsilon, *place(folder), folder.run

    elsewhere = layout.placed_runs - {*rows, *references}
    return sorted((folder for folder in folders if folder.run not in elsewhere), key=key)


def _first_seeds(folders: Iterable[RunFolder]) -> list[RunFolder]:
    """Keeps the smallest seed of each data set, run and epsilon that has samples."""
    kept: dict[tuple, RunFolder] = {}
    for folder in sorted(folders, key=lambda item: item.seed):
        if (folder.path / "samples.npz").is_file():
            kept.setdefault((folder.dataset, folder.run, folder.epsilon), folder)
    return list(kept.values())


def _class_names(spec: FigureSpec, data: Path, dataset: str, num_classes: int) -> list[str]:
    if spec.class_labels:
        return spec.class_labels[:num_classes]
    card = data / dataset / "card.json"
    names = read_object(card, "a card").get("class_names") if card.is_file() else []
    names = names if isinstance(names, list) else []
    return [str(names[label] if label < len(names) else label) for label in range(num_classes)]


def _panel(spec: FigureSpec, layout: Layout, dataset: str, folders: list[RunFolder], data: Path) -> Panel:
    samples = {folder: load_images(folder.path / "samples.npz") for folder in folders}
    num_classes = min(spec.max_classes, 1 + max(int(item.labels.max(initial=0)) for item in samples.values()))
    rows: dict[str, list[np.ndarray | None]] = {}
    if (real := data / dataset / "test.npz").is_file():
        rows["Real data"] = first_images(load_images(real), num_classes, spec.images_per_class)
    for folder, item in samples.items():
        rows[row_label(layout, folder)] = first_images(item, num_classes, spec.images_per_class)
    classes = _class_names(spec, data, dataset, num_classes)
    return Panel(layout.dataset_label(dataset), classes, spec.images_per_class, rows)


def build_panels(
    spec: FigureSpec, layout: Layout, folders: Iterable[RunFolder], data: Path
) -> tuple[list[str], list[Panel]]:
    """Returns the row labels, top to bottom, and a panel per data set that has samples."""
    folders = _ordered(spec, layout, _first_seeds(folders))
    present = {folder.dataset for folder in folders}
    names = [name for name in spec.datasets if name in present]
    if spec.further_datasets:
        names += sorted(present - set(layout.datasets))
    shown = [folder for folder in folders if folder.dataset in names]
    labels = list(dict.fromkeys(row_label(layout, folder) for folder in shown))
    panels = [_panel(spec, layout, name, [f for f in shown if f.dataset == name], data) for name in names]
    real = ["Real data"] if any("Real data" in panel.rows for panel in panels) else []
    return real + labels, panels


def mosaic(panel: Panel, labels: list[str]) -> np.ndarray:
    """Returns a panel's images as one array uint8 [rows * (H + 1), columns, 3] on white.

    A white line of one pixel ends each image; two more end each class that has several images. Rows without samples
    and missing images stay white.
    """
    images = [image for row in panel.rows.values() for image in row if image is not None]
    _, height, width = images[0].shape
    between = 2 if panel.per_class > 1 else 0
    block = panel.per_class * (width + 1) + between
    canvas = np.full((len(labels) * (height + 1), len(panel.classes) * block, 3), 255, np.uint8)
    for row, label in enumerate(labels):
        for column, image in enumerate(panel.rows.get(label, [])):
            if image is not None:
                x = column // panel.per_class * block + column % panel.per_class * (width + 1)
                y = row * (height + 1)
                canvas[y : y + height, x : x + width] = image.transpose(1, 2, 0)
    return canvas


def draw(spec: FigureSpec, labels: list[str], panels: list[Panel]) -> Figure:
    """Returns the figure: labels at the left, a panel per data set, the caption below; one line of text if empty."""
    if not panels:
        figure = Figure(figsize=(6, 0.9))
        figure.text(0.5, 0.66, spec.title, ha="center", va="center", size=10, weight="bold")
        figure.text(0.5, 0.28, spec.when_empty, ha="center", va="center")
        return figure
    canvases = [mosaic(panel, labels) for panel in panels]
    # Every panel has the same row height, so its width follows from its canvas.
    widths = [CELL * len(labels) * canvas.shape[1] / canvas.shape[0] for canvas in canvases]
    width = max(EDGE * 2 + LABEL + sum(widths) + GAP * (len(panels) - 1), NARROWEST)
    height = TITLE + HEAD + CELL * len(labels) + CAPTION
    figure = Figure(figsize=(width, height))
    figure.text(EDGE / width, 1 - TITLE / 2 / height, spec.title, va="center", size=10, weight="bold")
    figure.text(EDGE / width, CAPTION / 2 / height, CAPTION_TEXT, va="center", size=6.5, color="0.35")
    top = height - TITLE - HEAD
    for row, label in enumerate(labels):
        middle = (top - CELL * (row + 0.5)) / height
        figure.text((EDGE + LABEL - 0.1) / width, middle, label, ha="right", va="center", size=7, linespacing=1.1)
    left = EDGE + LABEL
    for panel, canvas, panel_width in zip(panels, canvases, widths, strict=True):
        _draw_panel(figure, panel, canvas, labels, (left, top, panel_width))
        left += panel_width + GAP
    return figure


def _draw_panel(
    figure: Figure, panel: Panel, canvas: np.ndarray, labels: list[str], place: tuple[float, float, float]
) -> None:
    """Draws one data set at `place`: left, top and width in inches."""
    left, top, panel_width = place
    width, height = figure.get_size_inches()
    bottom = top - CELL * len(labels)
    axes = figure.add_axes((left / width, bottom / height, panel_width / width, (top - bottom) / height))
    axes.set_axis_off()
    axes.imshow(canvas, interpolation="nearest", aspect="auto")
    figure.text(left / width, (top + HEAD - 0.1) / height, panel.title, va="center", size=9)
    step = panel_width / len(panel.classes)
    longest = max(map(len, panel.classes))
    size = min(6.5, 110 * step / longest)  # points: a letter is about 0.6 of the size wide
    for number, name in enumerate(panel.classes):
        x = (left + step * (number + 0.5)) / width
        figure.text(
            x, (top + 0.05) / height, name, ha="center", va="bottom", size=size, color="0.35", parse_math=False
        )
    for row, label in enumerate(labels):
        if label not in panel.rows:
            y = (top - CELL * (row + 0.5)) / height
            figure.text((left + panel_width / 2) / width, y, "not run", ha="center", va="center", color="0.6")


def write_figures(layout: Layout, folders: Iterable[RunFolder], data: Path, out: Path) -> list[Path]:
    """Writes each figure of the layout as png (200 dpi) and pdf under `out`; returns the paths."""
    folders, written = list(folders), []
    for name, spec in layout.figures.items():
        with matplotlib.rc_context(STYLE):
            figure = draw(spec, *build_panels(spec, layout, folders, data))
            for suffix, metadata in METADATA.items():
                written.append(out / f"{name}.{suffix}")
                with atomic(written[-1]) as temporary:
                    figure.savefig(temporary, dpi=200, metadata=metadata)
    return written


@command
def main(argv: list[str] | None = None) -> None:
    """Runs `python -m evaluation.report.figures`."""
    parser = Parser(prog="python -m evaluation.report.figures", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="results/<preset>")
    add_layout(parser)
    parser.add_argument("--runs", nargs="+", metavar="RUNDIR", help="run folders; default: all under ROOT/runs")
    parser.add_argument("--data", type=Path, help="folder with <dataset>/test.npz for the real row; default ROOT/data")
    parser.add_argument("--out", type=Path, required=True, help="folder for figure*.{png,pdf}")
    options = parser.parse_args(argv)
    folders = run_folders(options.root, options.runs)
    write_figures(layout_of(options), folders, options.data or options.root / "data", options.out)


if __name__ == "__main__":
    raise SystemExit(main())
