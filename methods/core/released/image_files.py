"""Images as PNG files, a folder per class, and a contact sheet of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from workflow.common.class_names import safe_name

_SHEET_ROWS, _SHEET_COLUMNS = 20, 10
# Pixels of the sheet: the least side of a shown image, the gap around it, the column of names.
_SHOWN_SIDE, _GAP, _NAMES = 64, 4, 120


def picture(image: np.ndarray) -> Image.Image:
    """Returns an image uint8 [C, H, W], C 1 (grey) or 3 (RGB), for Pillow; it carries no text and no time."""
    return Image.fromarray(np.ascontiguousarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)))


def paths(class_names: Sequence[str], labels: np.ndarray) -> list[str]:
    """Returns `<class>/00000.png` for each image: numbered within its class, in the order of `labels`."""
    folders = [safe_name(name) for name in class_names]
    # One width for all, so that order by name is order by number.
    width = max(5, len(str(len(labels))))
    seen = [0] * len(folders)
    names = []
    for label in labels.tolist():
        names.append(f"{folders[label]}/{seen[label]:0{width}}.png")
        seen[label] += 1
    return names


def write_images(folder: Path, names: Sequence[str], images: np.ndarray) -> None:
    """Writes images uint8 [N, C, H, W] as PNG, lossless, at the paths `names` under `folder`."""
    for name, image in zip(names, images, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(image).save(path, format="PNG")


def write_contact_sheet(path: Path, class_names: Sequence[str], images: np.ndarray, labels: np.ndarray) -> None:
    """Writes one PNG: a row for each of the first 20 classes, with label, name and first 10 images."""
    shown = range(min(len(class_names), _SHEET_ROWS))
    times = max(1, -(-_SHOWN_SIDE // max(images.shape[2:])))
    high, wide = images.shape[2] * times, images.shape[3] * times
    size = (_NAMES + _SHEET_COLUMNS * (wide + _GAP) + _GAP, len(shown) * (high + _GAP) + _GAP)
    sheet = Image.new("L" if images.shape[1] == 1 else "RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for label in shown:
        top = _GAP + label * (high + _GAP)
        draw.text((_GAP, top), _row_name(label, class_names[label]), fill="black")
        for column, index in enumerate(np.flatnonzero(labels == label)[:_SHEET_COLUMNS]):
            enlarged = picture(images[index]).resize((wide, high), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (_NAMES + _GAP + column * (wide + _GAP), top))
    sheet.save(path, format="PNG")


def _row_name(label: int, class_name: str) -> str:
    # Pillow's own font knows few other letters; the number tells the row of any script.
    plain = unicodedata.normalize("NFKD", safe_name(class_name)).encode("ascii", "ignore").decode()
    return f"{label} {plain[:16]}".strip()
