"""Names of classes: their order, and the names of folders made from them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from workflow.common.errors import UserError

# What Windows takes for a device, with or without a suffix.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_LONGEST = 60


def safe_name(class_name: str) -> str:
    """Returns a folder name for a class: letters, marks and digits of any script, `-`, `_` and `.`; else `_`.

    In Unicode's composed form (NFC), without dots at its ends, and at most 60 characters long: legal on Linux,
    macOS and Windows. Example: `safe_name("T-shirt/top") == "T-shirt_top"`.
    """
    composed = unicodedata.normalize("NFC", class_name).strip()
    kept = "".join(c if c in "-_." or unicodedata.category(c)[0] in "LMN" else "_" for c in composed)
    name = kept[:_LONGEST].strip(".") or "_"
    return f"_{name}" if _DEVICES.fullmatch(name) else name


def in_order(class_names: Iterable[str]) -> tuple[str, ...]:
    """Returns the distinct names sorted: as numbers if all are whole numbers, else as text."""
    names = set(class_names)
    whole = all(re.fullmatch(r"-?[0-9]+", name) for name in names)
    return tuple(sorted(names, key=(lambda name: (int(name), name)) if whole else None))


def check_distinct(class_names: Iterable[str], where: str) -> None:
    """Raises UserError naming two classes whose folder names would be one, also where case does not count."""
    seen: dict[str, str] = {}
    for name in class_names:
        folder = unicodedata.normalize("NFC", safe_name(name).casefold())
        if folder in seen:
            raise UserError(
                f"{where}: classes {seen[folder]!r} and {name!r} would both be folder {safe_name(name)!r}; rename one"
            )
        seen[folder] = name
