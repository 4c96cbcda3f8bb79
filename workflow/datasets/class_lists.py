"""The pictures of a folder with their classes: a sub-folder per class, or a CSV with columns file,label."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from workflow.common.class_names import check_distinct, in_order
from workflow.common.errors import UserError, short, shown
from workflow.common.files import read_lines
from workflow.common.own_set import OwnSet
from workflow.common.readers.zip_file import leaves
from workflow.datasets.tree import SUFFIXES, Tree, by_form

_SPLIT_NAMES = {"train", "training", "test", "testing", "val", "valid", "validation"}


@dataclass(frozen=True)
class Listing:
    """Pictures below `root`, sorted by name: `names[i]` is of class `classes[i]`; `skipped` entries were passed over.

    `table` is the CSV that named the classes, or None.
    """

    root: Path
    names: list[str]
    classes: list[str]
    skipped: int
    table: Path | None = None

    def paths(self) -> list[str]:
        """Returns each picture's path."""
        return [os.path.join(self.root, name) for name in self.names]


def listings(own: OwnSet) -> tuple[Listing, Listing | None]:
    """Returns the pictures of `folder`, and those of `test` if it is given.

    Raises:
        UserError: a folder or CSV is missing or names no, unknown, missing or repeated pictures, classes are fewer
            than two, empty, collide or differ between the two, or a picture stands in both.
    """
    train = _listing(own.folder, own.labels, "folder", own.test_labels)
    check_distinct(in_order(train.classes), str(train.table or train.root))
    _check_counts(train, 1 if own.test else 2)
    if not own.test:
        return train, None
    test = _listing(own.test, own.test_labels, "test", own.labels)
    _check_test(train, test)
    return train, test


def _listing(folder: str, table: str, key: str, other_table: str) -> Listing:
    if table:
        return _by_table(Path(os.path.expanduser(folder)), Path(os.path.expanduser(table)), key, other_table)
    return _by_folders(Path(os.path.expanduser(folder)), key)


def _by_folders(root: Path, key: str) -> Listing:
    tree = Tree(root, key)
    top = tree.level()
    if top.pictures:
        where = root / top.pictures[0]
        raise UserError(f"{where} is in no class; move it into a sub-folder named as its class, or give labels (a CSV)")
    if top.folders and {name.lower() for name in top.folders} <= _SPLIT_NAMES:
        names = ", ".join(top.folders)
        raise UserError(f"{root} holds splits ({names}), not classes; give one as folder and one as test")
    names, classes, skipped = [], [], top.skipped
    for folder in top.folders:
        _check_encoding(folder, root)
        pictures, passed = tree.below(folder)
        if not pictures:
            kinds = ", ".join(sorted(SUFFIXES))
            raise UserError(f"{root / folder} holds no picture ({kinds}); add pictures of this class or remove it")
        names += pictures
        classes += [unicodedata.normalize("NFC", folder)] * len(pictures)
        skipped += passed
    # Two folders may be one class in two Unicode forms; their pictures must not be mixed unseen.
    check_distinct(top.folders, str(root))
    return Listing(root, names, classes, skipped)


def _check_encoding(folder: str, root: Path) -> None:
    # A class's name goes into texts that are given away.
    try:
        folder.encode()
    except UnicodeEncodeError:
        raise UserError(f"{root / folder} has a name that is not UTF-8, and names a class; rename it") from None


def _by_table(root: Path, table: Path, key: str, other_table: str) -> Listing:
    tree = Tree(root, key)
    known, skipped = tree.below()
    classes = _read_table(table, root, by_form(known, root))
    left = set(known) - set(classes)
    if left and other_table:
        left -= set(_read_table(Path(os.path.expanduser(other_table)), root, by_form(known, root), strict=False))
    if left:
        raise UserError(f"{root / min(left)} has no row in {table}; add its row or remove the picture")
    for path in filter(None, (table, other_table and Path(os.path.expanduser(other_table)))):
        skipped -= Path(root).resolve() in Path(path).resolve().parents
    names = sorted(classes)
    return Listing(root, names, [classes[name] for name in names], skipped, table)


def _read_table(table: Path, root: Path, known: dict[str, str], strict: bool = True) -> dict[str, str]:
    """Returns the class of each picture by its name on disk; where not `strict`, rows of other folders are left out."""
    if not table.is_file() and (root / table.name).is_file():
        raise UserError(f"no such file: {table}; did you mean {root / table.name}?")
    classes: dict[str, str] = {}
    for number, row in read_lines(table, ("file", "label")).items():
        name = posixpath.normpath(unicodedata.normalize("NFC", row["file"].strip()))
        if leaves(name.replace("\\", "/")) and name not in known:
            raise UserError(f"{table} line {number}: {shown(row['file'])} leaves {root}; name files from there on")
        if name not in known and not strict:
            continue
        if name not in known:
            # os.path.exists and not Path.exists, which lets the error for an over-long name through.
            missing = "is no picture" if os.path.exists(root / name) else "does not exist"
            raise UserError(f"{table} line {number}: {short(root / name)} {missing}; mend the name or remove the row")
        if known[name] in classes:
            raise UserError(f"{table} line {number}: {shown(row['file'])} has a row already; remove one")
        label = unicodedata.normalize("NFC", row["label"].strip())
        if not label.isprintable() or len(label) > 200:
            raise UserError(f"{table} line {number}: label {shown(label)} is no printable name; shorten or mend it")
        if not label:
            raise UserError(f"{table} line {number}: {shown(row['file'])} has an empty label; fill it in")
        classes[known[name]] = label
    return classes


def _check_counts(listing: Listing, least: int) -> None:
    counts, where = Counter(listing.classes), listing.table or listing.root
    if len(counts) < 2:
        has = f"one, {next(iter(counts))!r}" if counts else "none"
        kind = "labels" if listing.table else "sub-folders, each a class"
        raise UserError(f"{where} needs at least 2 {kind}; it has {has}")
    for name, count in sorted(counts.items()):
        if count < least:
            has = f"class {name!r} has one picture; it needs 2, one to train on and one to test on"
            raise UserError(f"{where}: {has}: add another, or remove the class")


def _check_test(train: Listing, test: Listing) -> None:
    if differing := set(train.classes) ^ set(test.classes):
        name = in_order(differing)[0]
        one, other = (train, test) if name in set(train.classes) else (test, train)
        raise UserError(
            f"class {name!r} of {one.table or one.root} has no picture in {other.table or other.root}; "
            "both splits must have the same classes"
        )
    roots = [listing.root.resolve() for listing in (train, test)]
    if roots[0] == roots[1] or roots[0] in roots[1].parents or roots[1] in roots[0].parents:
        both = {os.path.realpath(path) for path in train.paths()} & {os.path.realpath(path) for path in test.paths()}
        if both:
            raise UserError(f"{min(both)} is in both folder and test; a test picture must not be trained on")
