"""A synthetic set in several files, and the manifest that says which they are: samples.json beside them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from methods.core.runs.folder import GENERATOR, LEDGER, LOG, RECORD
from methods.core.runs.generator import recorded
from methods.core.runs.plan import Plan
from workflow.common.contracts import LabelledImages, load_images
from workflow.common.errors import UserError
from workflow.common.files import read_json, sha256, write_json, write_npz

MANIFEST = "samples.json"
AGAIN = "make them again by the same python -m methods run, which trains nothing twice"
_NAME = re.compile(r"samples-\d+\.npz")
# By one of these a folder is known for a run's, and by these names its files.
_MARKS = ("plan.json", RECORD, LEDGER, MANIFEST)
_PRIVATE = ("end", "begun.json", LEDGER)
_OWN = re.compile(rf"{_NAME.pattern}|ledger-\d+\.jsonl|" + "|".join(map(re.escape, (*_MARKS, LOG, GENERATOR))))


@dataclass(frozen=True)
class Part:
    """Images first .. first + count - 1 of the set, in the file `file`; `sha256` is their LabelledImages.digest."""

    file: str
    first: int
    count: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A whole set of `num` images and its parts in order, drawn from a generator file with this SHA-256.

    `plan` is the digest of the run's plan.
    """

    plan: str
    generator: str
    num: int
    parts: tuple[Part, ...]

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Returns the manifest of a folder. Raises UserError if there is none, or parts overlap or leave gaps."""
        path = folder / MANIFEST
        if not path.is_file():
            raise UserError(f"no {MANIFEST} in {folder}, which says what samples belong together; {AGAIN}")
        content = read_json(path)
        try:
            parts = tuple(Part(**_typed(part, Part)) for part in content["parts"])
            found = cls(**(_typed({**content, "parts": parts}, cls)))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is no manifest of samples ({error}); {AGAIN}") from None
        found._check(path)
        return found

    def _check(self, path: Path) -> None:
        expected, names = 0, set()
        for part in self.parts:
            if not _NAME.fullmatch(part.file) or part.file in names:
                raise UserError(f"{path} names the part {part.file!r} twice or not as samples-000.npz; {AGAIN}")
            if part.first != expected or part.count < 1:
                raise UserError(f"{path}: {part.file} begins at image {part.first} instead of {expected}; {AGAIN}")
            names.add(part.file)
            expected += part.count
        if expected != self.num or not names:
            raise UserError(f"{path}: its parts hold {expected} of {self.num} images; {AGAIN}")


def _typed(content: Any, cls: type) -> dict[str, Any]:
    kinds = {"plan": str, "generator": str, "num": int, "parts": tuple, "file": str, "first": int, "count": int,
             "sha256": str}  # fmt: skip
    if not isinstance(content, dict) or set(content) != set(cls.__dataclass_fields__):
        raise ValueError(f"it must hold {', '.join(cls.__dataclass_fields__)}")
    for key, value in content.items():
        if not isinstance(value, kinds[key]) or isinstance(value, bool):
            raise ValueError(f"{key} is {value!r}")
    return content


def is_whole(folder: Path, plan: Plan, num: int) -> bool:
    """Returns whether the folder holds all parts of `num` images that its generator drew under `plan`."""
    try:
        manifest = Manifest.read(folder)
        fits = (manifest.plan, manifest.num) == (plan.digest, num)
        return fits and sum(len(part) for part in _read(folder, manifest)) == num
    except UserError:
        return False


def write(folder: Path, plan: Plan, samples: LabelledImages, size: int) -> None:
    """Writes a set as parts of at most `size` images, the manifest first; parts that are there already stay.

    Those of an earlier set in this folder are removed, after one line on stderr.
    """
    slices = {f"samples-{place:03d}.npz": slice(start, min(start + size, len(samples)))
              for place, start in enumerate(range(0, len(samples), size))}  # fmt: skip
    parts = tuple(
        Part(name, part.start, part.stop - part.start, _part(samples, part).digest()) for name, part in slices.items()
    )
    manifest = Manifest(plan.digest, sha256(folder / GENERATOR), len(samples), parts)
    known = _known(folder)
    if known not in (None, manifest):
        print(f"notice: {folder} gets another set of samples: {len(samples)} images", file=sys.stderr)
    # Where no manifest says which parts there are, all are of an earlier set.
    earlier = {part.file for part in known.parts} if known else set(_files(folder))
    write_json(folder / MANIFEST, asdict(manifest))
    for name in earlier - set(slices):
        (folder / name).unlink(missing_ok=True)
    for part in parts:
        if not _is_there(folder, part):
            chosen = _part(samples, slices[part.file])
            write_npz(folder / part.file, images=chosen.images, labels=chosen.labels)


def check_output(path: Path) -> None:
    """Raises UserError for a file to write whose name, in the folder of a run, is that of one of the run's own files.

    Anything under a run's private/ is its own.
    """
    # A link of that name would be replaced, and not what it leads to.
    target = Path(os.path.realpath(path.parent), path.name)
    for folder in target.parents:
        place = target.relative_to(folder).parts
        private = place[0] == "private" and any((folder / "private" / name).exists() for name in _PRIVATE)
        named = len(place) == 1 and _OWN.fullmatch(target.name) and any((folder / name).exists() for name in _MARKS)
        if private or named:
            raise UserError(f"{path} has the name of a file of the run in {folder}; choose another --out")


def join(folder: Path) -> LabelledImages:
    """Returns the whole set of a folder.

    Raises UserError for parts that are missing, damaged, of another set, of another generator, or too many.
    """
    manifest = Manifest.read(folder)
    listed = {part.file for part in manifest.parts}
    if foreign := [name for name in _files(folder) if name not in listed]:
        raise UserError(f"{folder / foreign[0]} is no part of the set that {MANIFEST} lists; move it elsewhere")
    missing = [part.file for part in manifest.parts if not (folder / part.file).is_file()]
    if missing:
        raise UserError(f"{folder} lacks {len(missing)} of {len(manifest.parts)} parts, such as {missing[0]}; {AGAIN}")
    parts = list(_read(folder, manifest))
    return LabelledImages(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "labels")))


def _read(folder: Path, manifest: Manifest) -> Iterator[LabelledImages]:
    plan, generator = folder / "plan.json", folder / GENERATOR
    if plan.exists() and Plan.stored(read_json(plan), plan).digest != manifest.plan:
        raise UserError(f"the samples in {folder} are of another plan than its plan.json; {AGAIN}")
    if generator.exists() and sha256(generator) != manifest.generator:
        raise UserError(f"the samples in {folder} were drawn from another generator than {generator}; {AGAIN}")
    if recorded(folder) not in (None, manifest.generator):
        raise UserError(f"the samples in {folder} were drawn from another generator than {RECORD} tells of; {AGAIN}")
    for part in manifest.parts:
        stored = load_images(folder / part.file)
        if stored.digest() != part.sha256:
            raise UserError(f"{folder / part.file} is damaged or of another set; {AGAIN}")
        yield stored


def _part(samples: LabelledImages, part: slice) -> LabelledImages:
    return LabelledImages(samples.images[part], samples.labels[part])


def _is_there(folder: Path, part: Part) -> bool:
    try:
        return load_images(folder / part.file).digest() == part.sha256
    except UserError:
        return False


def _known(folder: Path) -> Manifest | None:
    try:
        return Manifest.read(folder)
    except UserError:
        return None


def _files(folder: Path) -> list[str]:
    """Returns the names in a folder that are those of parts."""
    return sorted(path.name for path in folder.glob("samples-*.npz") if _NAME.fullmatch(path.name))
