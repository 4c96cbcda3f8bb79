"""An .npz in MedMNIST's layout: `train_images`, `train_labels`, and the same for `val` and `test`."""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from tqdm import tqdm

from workflow.common.contracts import LabelledImages
from workflow.common.errors import UserError, printable
from workflow.common.own_set import OwnSet
from workflow.common.readers.guard import reading, reason
from workflow.common.readers.zip_file import check_directory, most_bytes
from workflow.datasets.look import SMALLEST_SIDE, Look, check_finite, range_of_type, scaled
from workflow.datasets.store import OWN_DRAW, Dataset, drawn

CHUNK = 256
SPLITS = ("train", "val", "test")


def load(name: str, own: OwnSet, path: Path, digest: str) -> Dataset:
    """Returns both splits of the file at `path`, whose content has the SHA-256 `digest`.

    The test split is the file's own, or `val` if `own.test_split` says so, or else drawn by `own.test_fraction`.

    Raises:
        UserError: the file is damaged, an array is missing, pickled or of another shape, labels are several a record,
            not whole numbers or unknown to train, or values need a window. It names the file and the array.
    """
    with _archive(path) as archive:
        splits = [split for split in SPLITS if f"{split}_images.npy" in archive.namelist()]
        heads = {split: _head(archive, path, f"{split}_images") for split in splits}
        _check_heads(heads, path)
        labels = {split: _labels(archive, path, split, heads[split][0][0]) for split in splits}
        wanted = _wanted(own, splits, path)
        names, labels = _classes({split: labels[split] for split in wanted}, path)
        shape, kind = heads["train"]
        all_grey = len(shape) == 3 or shape[3] == 1
        look = Look.decide(own, np.array([shape[2:0:-1]]), all_grey, kind != np.uint8)
        parts, span = [], 0.0
        for split in wanted:
            images, used = _images(archive, path, f"{split}_images", look)
            parts.append(LabelledImages(images, labels[split]))
            span = max(span, used)
    train, test = parts if len(parts) == 2 else _drawn(parts[0], own)
    left_out = {split: heads[split][0][0] for split in splits if split not in wanted}
    details = look.card(own, f"{own.test_split}_images" if len(parts) == 2 else "", span) | {"left_out": left_out}
    return Dataset(name, train, test, names, f"file {printable(path.name)}", {"content": digest}, details)


def _drawn(data: LabelledImages, own: OwnSet) -> tuple[LabelledImages, LabelledImages]:
    apart = drawn(data.labels, OWN_DRAW, own.test_fraction, own.split_seed)
    return data.take(np.flatnonzero(~apart)), data.take(np.flatnonzero(apart))


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with reading(path, "is damaged or no .npz", "fetch or write it again"), zipfile.ZipFile(path) as archive:
        check_directory(archive)
        yield archive


def _wanted(own: OwnSet, splits: list[str], path: Path) -> list[str]:
    if own.test_split == "val" and "val" not in splits:
        raise UserError(f"{path} has no val_images; leave out test_split: val")
    return ["train", own.test_split] if own.test_split in splits else ["train"]


def _read_head(member: BinaryIO, where: str) -> tuple[tuple[int, ...], np.dtype]:
    try:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, kind = read(member)
    except Exception as error:
        # NumPy parses it as Python: ValueError, tokenize.TokenError, SyntaxError, RecursionError, MemoryError ...
        raise UserError(f"{where} is damaged ({reason(error)}); write the file again with numpy.savez") from None
    if kind.hasobject:
        raise UserError(f"{where} holds Python objects, which are not loaded; save an array of numbers of one shape")
    if by_columns and len(shape) > 1:
        raise UserError(f"{where} is in Fortran's order; save numpy.ascontiguousarray of it")
    if kind.kind not in "biuf":
        raise UserError(f"{where} is of type {kind}; save numbers")
    return shape, kind


def _head(archive: zipfile.ZipFile, path: Path, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Returns shape and type of an array that is as long as they say."""
    with archive.open(f"{name}.npy") as member:
        shape, kind = _read_head(member, f"{path}: {name}")
        held = archive.getinfo(f"{name}.npy").file_size - member.tell()
    if held != math.prod(shape) * kind.itemsize:
        raise UserError(f"{path}: {name} holds {held} bytes, which {kind} {list(shape)} is not; write the file again")
    if held > most_bytes():
        raise UserError(f"{path}: {name} unpacks to {held:,} bytes, more than this machine's memory; split the file")
    return shape, kind


def _check_heads(heads: dict[str, tuple[tuple[int, ...], np.dtype]], path: Path) -> None:
    if "train" not in heads:
        raise UserError(f"{path} has no train_images; MedMNIST's layout is train_images, train_labels, test_images ...")
    for split, (shape, kind) in heads.items():
        where = f"{path}: {split}_images is {kind} {list(shape)}"
        if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
            raise UserError(f"{where}; it must be [N, height, width] or, channels last, [N, height, width, 3]")
        if min(shape[1:3]) < SMALLEST_SIDE:
            raise UserError(f"{where}; at least {SMALLEST_SIDE} pixels on each side are needed")
        first_shape, first_kind = heads["train"]
        if shape[1:] != first_shape[1:] or kind != first_kind:
            raise UserError(f"{where} but train_images is {first_kind} {list(first_shape)}; make them alike")


def _labels(archive: zipfile.ZipFile, path: Path, split: str, count: int) -> np.ndarray:
    where = f"{path}: {split}_labels"
    if f"{split}_labels.npy" not in archive.namelist():
        raise UserError(f"{where} is missing; each {split}_images needs its labels")
    shape, kind = _head(archive, path, f"{split}_labels")
    if len(shape) == 2 and shape[1] > 1:
        raise UserError(f"{where} is {list(shape)}: several labels a picture; keep one, as [N]")
    if shape not in ((count,), (count, 1)):
        raise UserError(f"{where} is {list(shape)}; it must be [{count}], one for each of {split}_images")
    with archive.open(f"{split}_labels.npy") as member:
        _read_head(member, where)
        labels = np.frombuffer(member.read(), kind)
    numbers = labels.astype(np.float64)
    if not (np.isfinite(numbers) & (numbers == np.rint(numbers))).all():
        raise UserError(f"{where} holds NaN or fractions; labels must be whole numbers")
    if len(numbers) and not -(2.0**63) <= numbers.min() <= numbers.max() < 2.0**63:
        raise UserError(f"{where} holds {numbers[np.abs(numbers).argmax()]:g}; labels must number classes from 0 on")
    return labels.astype(np.int64)


def _classes(labels: dict[str, np.ndarray], path: Path) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    known, counts = np.unique(labels["train"], return_counts=True)
    if len(known) < 2:
        raise UserError(f"{path}: train_labels needs at least 2 classes; it has {len(known)}: add pictures of another")
    least = 1 if len(labels) == 2 else 2
    if counts.min() < least:
        name = known[counts.argmin()]
        has = f"class {name} has one picture; it needs 2, one to train on and one to test on"
        raise UserError(f"{path}: {has}: add another, or remove the class")
    for split, given in labels.items():
        if differing := set(np.unique(given).tolist()) ^ set(known.tolist()):
            lacking = split if min(differing) in known else "train"
            advice = "both splits need the same classes"
            raise UserError(f"{path}: label {min(differing)} is not in {lacking}_labels; {advice}")
    return tuple(map(str, known.tolist())), {split: np.searchsorted(known, given) for split, given in labels.items()}


def _images(archive: zipfile.ZipFile, path: Path, name: str, look: Look) -> tuple[np.ndarray, float]:
    where = f"{path}: {name}"
    low, high = 255.0, 0.0
    with archive.open(f"{name}.npy") as member:
        shape, kind = _read_head(member, where)
        images = np.empty((shape[0], look.channels, look.size, look.size), np.uint8)
        for start in tqdm(range(0, shape[0], CHUNK), desc=name, unit=f"{CHUNK} pictures", disable=None):
            count = min(CHUNK, shape[0] - start)
            block = _block(member, (count, *shape[1:]), kind)
            if kind != np.uint8:
                block = _tones(block, look, where)
                low, high = min(low, float(block.min())), max(high, float(block.max()))
            for row, picture in enumerate(block, start):
                images[row] = look.square(_planes(picture, look))
    return images, max(0.0, high - low) / 255


def _block(member: BinaryIO, shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
    block = np.frombuffer(member.read(math.prod(shape) * kind.itemsize), kind).reshape(shape)
    return block[..., 0] if block.ndim == 4 and block.shape[3] == 1 else block


def _tones(block: np.ndarray, look: Look, where: str) -> np.ndarray:
    check_finite(block, where)
    return scaled(block, look.window or range_of_type(block, where))


def _planes(picture: np.ndarray, look: Look) -> list[Any]:
    """Returns one L or RGB image of uint8 [H, W] or [H, W, 3], or F images of float32 in 0..255."""
    if picture.dtype == np.uint8:
        return [Image.fromarray(picture).convert("L" if look.grey else "RGB")]
    if picture.ndim == 2:
        return [Image.fromarray(picture)]
    if look.grey:
        return [Image.fromarray(picture @ np.array([0.299, 0.587, 0.114], np.float32))]
    return [Image.fromarray(np.ascontiguousarray(picture[..., channel])) for channel in range(3)]
