"""Data sets that this folder's results have made, by name; their cards hold the public facts."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from methods.core.release import PublicSpec
from workflow.common.errors import UserError, unknown
from workflow.common.files import json_or_path

CARDS = "results/*/data/*/card.json"
MAKE = (
    "for pictures of your own: the folder of a card.json, or the name of a set made before, such as by "
    "`python -m workflow.datasets NAME --folder PATH --out results/own/data/NAME`; run this where results/ lies"
)


def facts(name: str, published: Iterable[str]) -> PublicSpec:
    """Returns the public facts of a data set that `name` names: its card.json, that file's folder, or the set itself.

    `published` are the names that need no card, for an error. Raises UserError for an unknown name, a card that cannot
    be read, or a name that several results give to different data.
    """
    path = Path(os.path.expanduser(name))
    for card in (path / "card.json", path):
        if os.path.isfile(card):
            return _public(card)
    # Its folder may be looked for next to raw pictures of the same name, so a folder without a card is no error yet.
    cards: dict[str, list[Path]] = {}
    for card in sorted(Path().glob(CARDS)):
        cards.setdefault(card.parent.name, []).append(card)
    if name not in cards:
        raise unknown("dataset", name, {*published, *cards}, MAKE)
    return _agreed(name, cards[name])


def _agreed(name: str, cards: list[Path]) -> PublicSpec:
    read = {card: _public(card) for card in cards}
    first = read[cards[0]]
    if any(other != first for other in read.values()):
        said = "; ".join(
            f"{card}: {one.num_train} of {list(one.image_shape)} in {one.num_classes} classes"
            for card, one in read.items()
        )
        raise UserError(f"several data sets are called {name}: {said}; give the path of one")
    return first


def _public(card: Path) -> PublicSpec:
    return PublicSpec.from_card(json_or_path(card, "a data set card"))
