"""A figure of images: a row per method with its label at the left, a panel per data set, nothing cut off."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from evaluation.report.saved_figures import FAINT, WARNING, message, text_width

# Inches: one image, between panels, margin, a panel's title, between images and the mark, the mark, and before it.
CELL, GAP, EDGE, TITLE, AWAY, BAR, BEFORE = 0.40, 0.22, 0.1, 0.26, 0.05, 0.035, 0.05
LETTERS = 34  # most letters of a line next to an image
NAME, WORDS, CLASS, HEAD = 7.0, 6.0, 6.5, 9.0  # points
_SLANT = 40.0  # degrees, of class names that do not fit side by side
_SMALLEST = 5.0  # points: smaller class names are slanted instead
_SHARP = 4  # a pixel becomes so many, for viewers that blur what they enlarge


@dataclass(frozen=True)
class Label:
    """What stands beside a row: a name, what its epsilon is worth, and whether that is marked."""

    name: str
    words: str = ""
    marked: bool = False


@dataclass(frozen=True)
class Panel:
    """One data set of a figure: class names, and per row label the images (uint8 [C, H, W]) or None where not run."""

    title: str
    classes: list[str]
    per_class: int
    rows: dict[Label, list[np.ndarray | None]]


def mosaic(panel: Panel, labels: list[Label]) -> np.ndarray:
    """Returns a panel's images as one array uint8 [rows * (H + 1), columns, 3] on white.

    A white line of one pixel ends each image; two more end each class that has several images. Rows without samples
    and missing images stay white.
    """
    images = [image for row in panel.rows.values() for image in row if image is not None]
    _, height, width = images[0].shape if images else (1, 1, 1)
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


@dataclass(frozen=True)
class _Slot:
    """Where a panel stands: its images, their width, the size and slant of class names, and all its width (inches)."""

    panel: Panel
    canvas: np.ndarray
    width: float
    size: float
    slanted: bool
    names: float
    room: float


def _slot(panel: Panel, labels: list[Label]) -> _Slot:
    canvas = mosaic(panel, labels)
    # Every panel has the same row height, so its width follows from its canvas.
    width = CELL * len(labels) * canvas.shape[1] / canvas.shape[0]
    step, longest = width / len(panel.classes), max(text_width(name, CLASS) for name in panel.classes)
    size = CLASS * min(1.0, 0.95 * step / longest) if longest else CLASS
    slanted = size < _SMALLEST
    names, beyond = 0.12, 0.0
    if slanted:
        size = CLASS
        names = longest * math.sin(math.radians(_SLANT)) + 0.12
        beyond = max(0.0, longest * math.cos(math.radians(_SLANT)) - step / 2)
    return _Slot(panel, canvas, width, size, slanted, names, max(width + beyond, text_width(panel.title, HEAD)))


def draw(labels: list[Label], panels: list[Panel], when_empty: str) -> Figure:
    """Returns the figure; one line of text, `when_empty`, without panels."""
    if not panels:
        return message(when_empty)
    slots = [_slot(panel, labels) for panel in panels]
    head = TITLE + max(slot.names for slot in slots) + 0.05
    left = EDGE + max(_label_width(label) for label in labels) + BEFORE + BAR + AWAY
    width = left + sum(slot.room for slot in slots) + GAP * (len(slots) - 1) + EDGE
    height = EDGE + head + CELL * len(labels) + EDGE
    figure, top = Figure(figsize=(width, height)), height - EDGE - head
    for row, label in enumerate(labels):
        _draw_label(figure, label, left, top - CELL * (row + 0.5))
    for slot in slots:
        _draw_panel(figure, slot, labels, left, top, height - EDGE)
        left += slot.room + GAP
    return figure


def _lines(label: Label) -> list[tuple[str, float, str]]:
    """Returns the lines of a label, each with its size in points and its colour."""
    lines = [(text, NAME, "black") for text in textwrap.wrap(label.name, LETTERS)]
    return lines + [(text, WORDS, WARNING if label.marked else FAINT) for text in label.words.splitlines()]


def _label_width(label: Label) -> float:
    return max(text_width(text, size) for text, size, _ in _lines(label))


def _draw_label(figure: Figure, label: Label, left: float, middle: float) -> None:
    """Draws a row's name, and below it what its epsilon is worth, before `left`; `middle` in inches from below."""
    width, height = figure.get_size_inches()
    lines, mark = _lines(label), left - AWAY - BAR
    steps = [size * 1.2 / 72 for _, size, _ in lines]
    shrink = min(1.0, 0.96 * CELL / sum(steps))
    y = middle + sum(steps) * shrink / 2
    for (text, size, colour), step in zip(lines, steps, strict=True):
        y -= step * shrink
        figure.text(
            (mark - BEFORE) / width, (y + 0.25 * step * shrink) / height, text, ha="right", va="baseline",
            size=size * shrink, color=colour, parse_math=False,
        )  # fmt: skip
    if label.marked:
        place = (mark / width, (middle - 0.46 * CELL) / height)
        figure.add_artist(Rectangle(place, BAR / width, 0.92 * CELL / height, color=WARNING, lw=0))


def _draw_panel(figure: Figure, slot: _Slot, labels: list[Label], left: float, top: float, ceiling: float) -> None:
    """Draws one data set: `left` and `top` of its images, and `ceiling`, the top of its title, in inches."""
    width, height = figure.get_size_inches()
    bottom = top - CELL * len(labels)
    axes = figure.add_axes((left / width, bottom / height, slot.width / width, (top - bottom) / height))
    axes.set_axis_off()
    sharp = slot.canvas.repeat(_SHARP, axis=0).repeat(_SHARP, axis=1)
    axes.imshow(sharp, interpolation="none", aspect="auto")
    figure.text(left / width, ceiling / height, slot.panel.title, va="top", size=HEAD, parse_math=False)
    step = slot.width / len(slot.panel.classes)
    placed = {"ha": "left", "rotation": _SLANT, "rotation_mode": "anchor"} if slot.slanted else {"ha": "center"}
    for number, name in enumerate(slot.panel.classes):
        x = (left + step * (number + 0.5)) / width
        figure.text(
            x, (top + 0.05) / height, name, va="bottom", size=slot.size, color=FAINT, parse_math=False, **placed
        )
    for row, label in enumerate(labels):
        if label not in slot.panel.rows:
            y = (top - CELL * (row + 0.5)) / height
            figure.text((left + slot.width / 2) / width, y, "not run", ha="center", va="center", color="0.6")
