"""A data set of the user's own: a folder of pictures or an .npz in MedMNIST's layout -> both splits, and its hash."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import Counter
from pathlib import Path
from typing import Any

from workflow.common.errors import UserError
from workflow.common.own_set import OwnSet
from workflow.datasets.chunks import in_chunks
from workflow.datasets.class_lists import listings
from workflow.datasets.store import Dataset

BLOCK = 1 << 20


def load(name: str, own: OwnSet) -> Dataset:
    """Returns the set with every picture decoded, made square and of one size and mode.

    `details` say how: the settings as they were chosen or deduced, and what `summary` and `warning` tell.

    Raises:
        UserError: folder, CSV or npz is missing or malformed, classes are too few or collide, or a picture cannot
            be read, is too small or too large, or holds values that need a window. It names the file and the mend.
    """
    # Imported late: the hash alone needs no Pillow.
    if own.is_npz:
        from workflow.datasets import medmnist

        made = medmnist.load(name, own, files(own)["npz"], content_hash(own))
    else:
        from workflow.datasets import folder_set

        made = folder_set.load(name, own, content_hash(own))
    return dataclasses.replace(made, details=made.details | {"alike": _alike(made)})


def _alike(dataset: Dataset) -> dict[str, int]:
    """Returns how many of the pictures that a release trains on have a twin, and how many there are of one at most."""
    splits = [dataset.train, dataset.test] if dataset.details["test_drawn"] else [dataset.train]
    rows = (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for split in splits for row in split.images)
    counts = Counter(rows).values()
    return {"pictures": sum(count for count in counts if count > 1), "most": max(counts, default=0)}


def warning(dataset: Dataset) -> str:
    """Returns one line on pictures that are there more than once in a set that `load` returned, "" without any."""
    alike = dataset.details["alike"]
    if not alike["pictures"]:
        return ""
    size = f"{dataset.details['size']}x{dataset.details['size']}"
    return (
        f"notice: {alike['pictures']} pictures are equal to others once they are {size}, up to {alike['most']} of them"
        " to each other; an epsilon is promised for one record, and k copies of a picture cost k times the epsilon, at"
        " a larger delta: keep one of each"
    )


def summary(dataset: Dataset) -> str:
    """Returns one line on a set that `load` returned: counts, size, mode, and what was passed over."""
    card = dataset.details
    deduced = "" if not card["deduced"] else f" ({' and '.join(card['deduced'])} deduced)"
    counts = f"{len(dataset.train)} train, {len(dataset.test)} test, {len(dataset.class_names)} classes"
    look = f"{card['size']}x{card['size']} {card['mode']}{deduced}"
    return "; ".join([f"{dataset.name}: {counts}, {look}, from {dataset.source}", *_notices(card)])


def _notices(card: dict[str, Any]) -> list[str]:
    found = []
    if skipped := card.get("skipped"):
        found.append(f"{skipped} hidden or other file{'s' * (skipped > 1)} skipped")
    if frames := card.get("several_frames"):
        found.append(f"of {frames} file{'s' * (frames > 1)} with several frames or pages the first was read")
    for split, count in card.get("left_out", {}).items():
        found.append(f"{count} {split} images left out")
    if not card["window"] and 0 < card["deep_span"] < 1 / 8:
        share = f"{card['deep_span']:.1%}"
        found.append(f"pictures of 16 bits, integers or floats use {share} of the greys: state --window=LOW,HIGH")
    return found


def files(own: OwnSet) -> dict[str, Path]:
    """Returns the path of each file that the set is made from, by a name that does not hold the folder's place.

    Raises UserError for a missing folder or CSV and everything else that listing them brings up.
    """
    if own.is_npz:
        path = Path(os.path.expanduser(own.folder))
        if not os.path.isfile(path):
            raise UserError(f"no such file: {path}; fix folder (a relative path starts from {Path.cwd()})")
        return {"npz": path}
    train, test = listings(own)
    found = {}
    for split, listing in (("train", train), ("test", test)):
        if listing is not None:
            found |= {f"{split}/{name}": Path(listing.root, name) for name in listing.names}
            found |= {f"{split}.csv": listing.table} if listing.table else {}
    return found


def content_hash(own: OwnSet) -> str:
    """Returns the hex SHA-256 over names and bytes of all files that count: pictures, CSVs, the npz.

    The same wherever the folder lies. Raises UserError as `files`, and for a file that cannot be read.
    """
    found = sorted(files(own).items())
    content = hashlib.sha256()

    def digests(part: slice) -> list[bytes]:
        return [os.fsencode(name) + b"\0" + _digest(path) for name, path in found[part]]

    for part in in_chunks(len(found), digests, "content"):
        content.update(b"".join(part))
    return content.hexdigest()


def _digest(path: Path) -> bytes:
    content = hashlib.sha256()
    try:
        # hashlib.file_digest fills a buffer of 256 KiB for each file, which takes longer than a small picture.
        with path.open("rb", buffering=0) as handle:
            while block := handle.read(BLOCK):
                content.update(block)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; change its permissions or remove it") from None
    return content.digest()
