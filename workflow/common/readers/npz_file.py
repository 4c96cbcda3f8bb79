"""Arrays of an npz: each header is held against the bytes behind it before any memory is asked for."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from workflow.common.readers.guard import reading
from workflow.common.readers.zip_file import check_directory, most_bytes

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(
    path: str | Path, names: Iterable[str], problem: str, mend: str = "", maker: str = ""
) -> dict[str, np.ndarray]:
    """Returns the arrays `names` of an npz.

    Args:
        problem, mend, maker: words of the error, as in `guard.reading`.

    Raises:
        UserError: the file is missing, damaged or no npz, lacks an array, or one holds Python objects, is larger than
            this machine's memory, or has another size than its header says.
    """
    with reading(path, problem, mend, maker=maker), zipfile.ZipFile(path) as archive:
        check_directory(archive)
        return {name: _array(archive, name) for name in names}


def npz_names(path: str | Path, problem: str, mend: str = "", maker: str = "") -> list[str]:
    """Returns the names of an npz's arrays. Raises UserError as `read_npz`."""
    with reading(path, problem, mend, maker=maker), zipfile.ZipFile(path) as archive:
        check_directory(archive)
        return [name.removesuffix(".npy") for name in archive.namelist()]


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    member = f"{name}.npy"
    if member not in archive.namelist():
        there = ", ".join(other.removesuffix(".npy") for other in archive.namelist())
        raise ValueError(f"it has no array {name}, but {there[:200] or 'none'}")
    with archive.open(member) as stream:
        shape, kind = read_head(stream)
        held = archive.getinfo(member).file_size - stream.tell()
    claimed = math.prod(shape) * kind.itemsize
    if held != claimed:
        raise ValueError(f"{name} holds {held:,} bytes where its header says {kind} {list(shape)[:8]}")
    if claimed > most_bytes():
        raise ValueError(f"{name} is {claimed:,} bytes, more than the {most_bytes():,} of this machine's memory")
    with archive.open(member) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
        # The checksum is looked at when the end is reached.
        if stream.read(1):
            raise ValueError(f"{name} is longer than its header says")
    return array


def read_head(stream: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    """Returns shape and type of the array in a stream. Raises ValueError for Python objects, or if there is none."""
    version = np.lib.format.read_magic(stream)
    shape, _, kind = _HEADERS.get(version, np.lib.format.read_array_header_2_0)(stream)
    if kind.hasobject:
        raise ValueError("it holds Python objects, which are not loaded; save arrays of numbers")
    if any(side < 0 for side in shape):
        raise ValueError(f"a side of {list(shape)} is negative")
    return shape, kind
