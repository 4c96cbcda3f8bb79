"""Small pictures of many kinds, class folders of them, and the data stage's command on them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from workflow.common.contracts import LabelledImages, load_images
from workflow.common.files import read_json
from workflow.datasets.__main__ import main

SIDE = 28
RAMP = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)  # 0..783, row by row


def write_picture(path: Path, content: np.ndarray | Image.Image, **options: Any) -> Path:
    """Writes a picture in the format of the path's suffix, and makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = content if isinstance(content, Image.Image) else Image.fromarray(content)
    image.save(path, **options)
    return path


def classes(root: Path, names: tuple[str, ...] = ("a", "b"), count: int = 3, side: int = SIDE) -> Path:
    """Makes a folder of flat grey PNGs; picture i of class number k has level 50 * k + i."""
    for number, name in enumerate(names):
        for index in range(count):
            write_picture(root / name / f"{index}.png", np.full((side, side), 50 * number + index, np.uint8))
    return root


def chunk(kind: bytes, data: bytes) -> bytes:
    """Returns one chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bytes(values: np.ndarray, depth: int, colour: int, *extra: bytes, size: tuple[int, int] | None = None) -> bytes:
    """Returns a PNG of big-endian rows, with more chunks before the pixels; `size` may lie about them."""
    height, width = size or values.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(extra) + pixels + chunk(b"IEND", b"")


def tiff_bytes(values: np.ndarray, order: str = "<", white: int = 1, sample_format: int = 1, bits: int = 0) -> bytes:
    """Returns an uncompressed grey TIFF; `white` 0 means that 0 is white."""
    height, width = values.shape
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    depth = bits or values.itemsize * 8
    short = {258: depth, 259: 1, 262: white, 277: 1, 339: sample_format}
    tags = {256: width, 257: height, 273: 8, 278: height, 279: len(data), **short}
    entries = b"".join(
        struct.pack(f"{order}HHIHH", tag, 3, 1, tags[tag], 0) if tag in short
        else struct.pack(f"{order}HHII", tag, 4, 1, tags[tag])
        for tag in sorted(tags)
    )  # fmt: skip
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(data))
    return start + data + struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)


def make(folder: Path, out: Path, *options: str) -> tuple[LabelledImages, LabelledImages, dict[str, Any]]:
    """Runs the command on a folder, which must succeed; returns both splits and the card."""
    assert main(["mine", "--folder", str(folder), "--out", str(out), *options]) == 0
    return load_images(out / "train.npz"), load_images(out / "test.npz"), read_json(out / "card.json")


def refusal(capsys: Any, folder: Path, *options: str, name: str = "mine") -> str:
    """Runs the command on a folder, which must end in exit code 2 and one line and write nothing; returns the line."""
    out = folder.parent / "refused"
    capsys.readouterr()
    assert main([name, "--folder", str(folder), "--out", str(out), *options]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert not out.exists()
    return printed.err
