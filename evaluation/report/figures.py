"""Figures 3 and 4: the generated images themselves, a row per method, as png and pdf.

The images are never picked: each row shows the first images of each class in the run's sample file, and the real row
the first of each class in the test split. Each row says what its epsilon is worth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from evaluation.report import claims
from evaluation.report.layout import FigureSpec, Layout, add_layout, layout_of
from evaluation.report.row_figure import Label, Panel, draw
from evaluation.report.saved_figures import STYLE, save
from workflow.common.at_file import AtFile
from workflow.common.contracts import LabelledImages, RunFolder, load_images, run_folders
from workflow.common.errors import UserError, command
from workflow.common.files import read_object
from workflow.common.options import Parser

REAL = Label("Real data")
ALL, PAPER = "all", "paper"  # which rows


def first_images(data: LabelledImages, num_classes: int, per_class: int) -> list[np.ndarray | None]:
    """Returns the first `per_class` images (uint8 [C, H, W]) of classes 0..num_classes-1; None fills a short class."""
    images: list[np.ndarray | None] = []
    for label in range(num_classes):
        index = np.flatnonzero(data.labels == label)[:per_class]
        images += [*data.images[index], *[None] * (per_class - len(index))]
    return images


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


def _papers(spec: FigureSpec, folders: Iterable[RunFolder]) -> list[RunFolder]:
    """Returns the runs that the paper's own figure has, in its order, at its epsilon."""
    mine = (one for one in folders if one.run in spec.paper_rows and one.epsilon == spec.paper_epsilon)
    return sorted(mine, key=lambda one: spec.paper_rows.index(one.run))


def _first_seeds(folders: Iterable[RunFolder]) -> list[RunFolder]:
    """Keeps the smallest seed of each data set, run and epsilon that has samples."""
    kept: dict[tuple, RunFolder] = {}
    for folder in sorted(folders, key=lambda item: item.seed):
        if (folder.path / "samples.npz").is_file():
            kept.setdefault((folder.dataset, folder.run, folder.epsilon), folder)
    return list(kept.values())


def _labels(layout: Layout, folders: Iterable[RunFolder]) -> dict[RunFolder, Label]:
    """Returns each run's label: its name, and what its epsilon is worth on all data sets that are shown."""
    alike: dict[tuple, list[RunFolder]] = {}
    for folder in folders:
        alike.setdefault((folder.run, folder.epsilon), []).append(folder)
    found = {}
    for (run, _), several in alike.items():
        claim = claims.worst([claims.of_folder(folder) for folder in several])
        found |= dict.fromkeys(several, Label(layout.run_label(run), claim.words, claim.marked))
    return found


def _class_names(spec: FigureSpec, data: Path, dataset: str, num_classes: int) -> list[str]:
    if spec.class_labels:
        return spec.class_labels[:num_classes]
    card = data / dataset / "card.json"
    names = read_object(card, "a card").get("class_names") if card.is_file() else []
    names = names if isinstance(names, list) else []
    return [str(names[label] if label < len(names) else label) for label in range(num_classes)]


def _panel(spec: FigureSpec, layout: Layout, dataset: str, labels: dict[RunFolder, Label], data: Path) -> Panel:
    samples = {folder: load_images(folder.path / "samples.npz") for folder in labels}
    there = 1 + max(int(item.labels.max(initial=0)) for item in samples.values())
    num_classes = min(spec.max_classes, there)
    # Where there are few classes, as many images of each as fill the width of many.
    per_class = max(spec.images_per_class, spec.max_classes // num_classes)
    rows: dict[Label, list[np.ndarray | None]] = {}
    sides = {folder.path: item.image_shape[1:] for folder, item in samples.items()}
    if (real := data / dataset / "test.npz").is_file():
        originals = load_images(real)
        sides[real] = originals.image_shape[1:]
        rows[REAL] = first_images(originals, num_classes, per_class)
    _check_sides(sides)
    for folder, item in samples.items():
        rows[labels[folder]] = first_images(item, num_classes, per_class)
    title = layout.dataset_label(dataset) + (f", {num_classes} of {there} classes" if there > num_classes else "")
    return Panel(title, _class_names(spec, data, dataset, num_classes), per_class, rows)


def _check_sides(sides: Mapping[Path, Sequence[int]]) -> None:
    """Raises UserError where the runs of a data set have images of several sizes."""
    (first, side), *others = sides.items()
    for path, other in others:
        if other != side:
            sizes = f"{other[0]}x{other[1]}, those of {first} {side[0]}x{side[1]}"
            raise UserError(f"images of {path} are {sizes}: one is of another data set; make it again, or remove it")


def build_panels(
    spec: FigureSpec, layout: Layout, folders: Iterable[RunFolder], data: Path, rows: str = ALL
) -> tuple[list[Label], list[Panel]]:
    """Returns the row labels, top to bottom, and a panel per data set that has samples.

    `rows` is ALL, or PAPER for the paper's own rows; where none of those has samples, there are no panels.
    """
    folders = _first_seeds(folders)
    folders = _papers(spec, folders) if rows == PAPER else _ordered(spec, layout, folders)
    present = {folder.dataset for folder in folders}
    names = [name for name in spec.datasets if name in present]
    if spec.further_datasets:
        names += sorted(present - set(layout.datasets))
    labels = _labels(layout, [folder for folder in folders if folder.dataset in names])
    each = [{folder: label for folder, label in labels.items() if folder.dataset == name} for name in names]
    panels = [_panel(spec, layout, name, mine, data) for name, mine in zip(names, each, strict=True)]
    real = [REAL] if any(REAL in panel.rows for panel in panels) else []
    shown = dict.fromkeys(labels[folder] for folder in folders if folder in labels)
    return [*real, *shown], panels


def write_figures(
    layout: Layout, folders: Iterable[RunFolder], data: Path, out: Path, rows: str = ALL
) -> list[Path]:
    """Writes each figure of the layout as png (200 dpi) and pdf under `out`; returns the paths."""
    folders, written = list(folders), []
    for name, spec in layout.figures.items():
        with matplotlib.rc_context(STYLE):
            written += save(draw(*build_panels(spec, layout, folders, data, rows), spec.when_empty), out / name)
    return written


@command
def main(argv: list[str] | None = None) -> None:
    """Runs `python -m evaluation.report.figures`."""
    parser = Parser(prog="python -m evaluation.report.figures", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="results/<preset>")
    add_layout(parser)
    parser.add_argument("--runs", nargs="+", metavar="RUNDIR", action=AtFile,
                        help="run folders, or @FILE that lists them; default: all under ROOT/runs")  # fmt: skip
    parser.add_argument("--data", type=Path, help="folder with <dataset>/test.npz for the real row; default ROOT/data")
    parser.add_argument(
        "--rows", choices=(ALL, PAPER), default=ALL,
        help="paper: the methods of the paper's own figures alone, at its epsilon (default all runs)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="folder for figure*.{png,pdf}")
    options = parser.parse_args(argv)
    folders = run_folders(options.root, options.runs)
    write_figures(layout_of(options), folders, options.data or options.root / "data", options.out, options.rows)


if __name__ == "__main__":
    raise SystemExit(main())
