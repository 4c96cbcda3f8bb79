"""Which files of a folder are pictures: by suffix, below every sub-folder, hidden ones passed over."""

from __future__ import annotations

import os
import stat
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from workflow.common.errors import UserError

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".pgm", ".ppm"))


@dataclass
class Level:
    """One folder's own content, by name in order; `skipped` counts its hidden entries and other files."""

    folders: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    skipped: int = 0


class Tree:
    """Reads folders below `root`, each once: a second way to one of them is a loop of links, or would count twice."""

    def __init__(self, root: str | Path, key: str = "folder") -> None:
        """Raises UserError if `root`, given as setting `key`, is no folder."""
        self.root = Path(root)
        if not os.path.isdir(self.root):
            what = "is a file, not a folder" if os.path.exists(self.root) else "does not exist"
            raise UserError(f"{root} {what}; fix {key} (a relative path starts from {Path.cwd()})")
        self._seen: set[tuple[int, int]] = set()

    def level(self, name: str = "") -> Level:
        """Returns the content of the folder `name` below the root.

        Raises:
            UserError: the folder may not be listed or was read before, or an entry is a link that leads nowhere, or
                is named like a picture but is no file.
        """
        path = self.root / name
        try:
            self._enter(path, path.stat())
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"{path} cannot be listed: {error.strerror}; change its permissions") from None
        level = Level()
        for entry in entries:
            self._place(entry, level)
        return level

    def _enter(self, path: Path, facts: os.stat_result) -> None:
        place = (facts.st_dev, facts.st_ino)
        if place in self._seen:
            raise UserError(f"{path} leads to a folder that was read already (links in a circle?); remove that link")
        self._seen.add(place)

    def _place(self, entry: os.DirEntry, level: Level) -> None:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            level.skipped += 1
            return
        try:
            mode = entry.stat().st_mode
        except PermissionError:
            where = os.path.dirname(entry.path)
            raise UserError(f"{where} may be listed but not entered; change its permissions (chmod u+x)") from None
        except OSError as error:
            raise UserError(f"{entry.path} leads to no file ({error.strerror}); mend or remove that link") from None
        picture = os.path.splitext(entry.name)[1].lower() in SUFFIXES
        if stat.S_ISDIR(mode):
            level.folders.append(entry.name)
        elif not picture:
            level.skipped += 1
        elif stat.S_ISREG(mode):
            level.pictures.append(entry.name)
        else:
            raise UserError(f"{entry.path} is named like a picture but is no file; remove it")

    def below(self, name: str = "") -> tuple[list[str], int]:
        """Returns the pictures of a folder and all its sub-folders, by their paths from the root, and the skipped.

        Raises UserError as `level`, or if two names differ in nothing but their Unicode form.
        """
        pictures, skipped, waiting = [], 0, [name]
        while waiting:
            folder = waiting.pop()
            level = self.level(folder)
            pictures += [os.path.join(folder, picture) for picture in level.pictures]
            waiting += [os.path.join(folder, inner) for inner in reversed(level.folders)]
            skipped += level.skipped
        by_form(pictures, self.root)
        return sorted(pictures), skipped


def by_form(names: list[str], root: Path) -> dict[str, str]:
    """Returns the names by their composed Unicode form (NFC). Raises UserError if two of them share one."""
    forms: dict[str, str] = {}
    for name in names:
        if (other := forms.setdefault(unicodedata.normalize("NFC", name), name)) != name:
            raise UserError(f"{root}: {other!a} and {name!a} are one name in two Unicode forms; remove or rename one")
    return forms
