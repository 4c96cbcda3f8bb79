"""The folder of a real set's classifiers: whose they are, and which of them a killed call has finished."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from workflow.common.errors import UserError
from workflow.common.files import read_object, write_json
from workflow.common.locks import locked

WHAT_FOR = "made"  # of which set and settings: a key
CARD, BEGUN = "classifiers.json", "begun.json"


class Kept:
    """What a folder holds of the classifiers of one set and its settings.

    Args:
        folder: theirs alone; None: nothing is kept beyond this process.
        key: digest of all that they depend on.
        names: of all of them.

    Attributes:
        done: name -> what the card says of each that is finished.

    Raises:
        UserError: the folder holds the classifiers of another set, or a card that cannot be read.
    """

    def __init__(self, folder: Path | None, key: str, names: Collection[str]) -> None:
        self.folder, self.key, self.names = folder, key, names
        self.done = {} if folder is None else self._found(folder)

    @property
    def is_whole(self) -> bool:
        """Returns whether nothing is left to train."""
        return set(self.names) <= set(self.done)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds the folder for a block that trains what is left: two calls would mix the classifiers of two sets.

        One that is whole is held by nobody, as nothing is written there any more. Raises UserError where another
        process holds it, and, as at first, for what that one has made of it since.
        """
        if self.folder is None or self.is_whole:
            yield
            return
        with locked(self.folder):
            self.done = self._found(self.folder)
            if not self.done:
                # What was begun of another set is overwritten from now on.
                (self.folder / BEGUN).unlink(missing_ok=True)
            yield

    def add(self, name: str, details: dict[str, Any]) -> None:
        """Notes that the files of a classifier are on disk."""
        done = {**self.done, name: details}
        if self.folder is not None:
            write_json(self.folder / BEGUN, {**done, WHAT_FOR: self.key})
        # Last: Ctrl-C may come before.
        self.done = done

    def finish(self, about: dict[str, Any]) -> None:
        """Writes the card, once all are on disk; `about` is what it says of all of them."""
        if self.folder is not None and not (self.folder / CARD).is_file():
            write_json(self.folder / CARD, {**self.done, **about, WHAT_FOR: self.key})
            (self.folder / BEGUN).unlink(missing_ok=True)

    def _found(self, folder: Path) -> dict[str, Any]:
        whole = (folder / CARD).is_file()
        content = next((read_object(path, "a card") for path in (folder / CARD, folder / BEGUN) if path.is_file()), {})
        if content.get(WHAT_FOR) == self.key:
            return {name: content[name] for name in self.names if name in content}
        if whole:
            raise UserError(f"{folder} holds the classifiers of another set, or of other settings; name another folder")
        return {}
