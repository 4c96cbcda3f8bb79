"""A data set of the user's own from folders of picture files."""

from __future__ import annotations

import numpy as np

from workflow.common.class_names import in_order
from workflow.common.contracts import LabelledImages
from workflow.common.errors import printable
from workflow.common.own_set import OwnSet
from workflow.datasets import pictures
from workflow.datasets.chunks import threads
from workflow.datasets.class_lists import Listing, listings
from workflow.datasets.look import Look
from workflow.datasets.store import OWN_DRAW, Dataset, drawn

LARGE = 128 * 128  # pixels a picture, from which on threads do not merely wait for each other


def load(name: str, own: OwnSet, digest: str) -> Dataset:
    """Returns both splits of the folders whose content has the SHA-256 `digest`.

    Every file's head is read before any is decoded, so that what is wrong with a file shows early. A split's
    pictures are decoded into one array; no more than a few are held in full size.

    Raises UserError as `class_lists.listings`, `pictures.probe`, `pictures.decode` and `Look.decide`.
    """
    train, test = listings(own)
    facts = pictures.probe(train.paths() + (test.paths() if test else []), f"{name}: heads")
    look = Look.decide(own, facts.sides, facts.all_grey, facts.deep > 0)
    class_names = in_order(train.classes)
    workers = threads() if np.median(facts.sides.prod(axis=1)) >= LARGE else 1
    splits, spans = {}, []
    for split, (paths, labels) in _split(own, train, test, class_names).items():
        images, span = pictures.decode(paths, look, f"{name}: {split}", workers)
        splits[split] = LabelledImages(images, labels)
        spans.append(span)
    details = {
        **look.card(own, "" if test is None else "a folder of its own", max(spans)),
        "skipped": train.skipped + (test.skipped if test else 0),
        "several_frames": facts.several_frames,
    }
    source = f"folder {printable(train.root.resolve().name)}"
    return Dataset(name, splits["train"], splits["test"], class_names, source, {"content": digest}, details)


def _split(
    own: OwnSet, train: Listing, test: Listing | None, class_names: tuple[str, ...]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns paths and labels of each split."""
    paths, labels = _columns(train, class_names)
    if test is not None:
        return {"train": (paths, labels), "test": _columns(test, class_names)}
    apart = drawn(labels, OWN_DRAW, own.test_fraction, own.split_seed)
    return {"train": (paths[~apart], labels[~apart]), "test": (paths[apart], labels[apart])}


def _columns(listing: Listing, class_names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    place = {name: label for label, name in enumerate(class_names)}
    labels = np.fromiter((place[name] for name in listing.classes), np.int64, len(listing.classes))
    return np.array(listing.paths(), object), labels
