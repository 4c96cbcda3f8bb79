"""What stands in a ledger's file: lines, each with a digest of all before it, and the uses that they have spent."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from methods.core.release import Release
from workflow.common.errors import UserError
from workflow.common.readers.fields import fields, is_hex, is_object, is_one_of, is_text, is_whole

Record = dict[str, Any]
_KEY = "chain"
_DIGITS = 16
# What a line after the first says, and what else it then has besides a use.
_WORDS = {"charge": {}, "answered": {"digest": is_hex(_DIGITS)}, "reserve": {"boot": is_text}, "internal": {}}
_RESTORE = (
    "restore the one that belongs to the run, or remove the run's folder to start again, which spends the budget on"
    " these records a second time"
)


class Chain:
    """All that a ledger's file holds so far: its size in bytes, and their digest."""

    def __init__(self, content: bytes = b"") -> None:
        self._hash = hashlib.sha256(content)
        self.size = len(content)

    @property
    def digest(self) -> str:
        """The first 64 bits of the SHA-256 of all bytes so far, in hexadecimal."""
        return self._hash.hexdigest()[:_DIGITS]

    def line(self, record: Record) -> bytes:
        """Returns the line of a record that follows all that is there."""
        return json.dumps({**record, _KEY: self.digest}, allow_nan=False).encode() + b"\n"

    def add(self, written: bytes) -> None:
        """Notes what the file now ends with."""
        self._hash.update(written)
        self.size += len(written)


@dataclass(frozen=True)
class Position:
    """How far a ledger had come when something was stored that follows from what it had granted.

    Attributes:
        size: bytes of its file.
        digest: of these bytes, as `Chain` says.
        uses: the last use of each release that was granted.
    """

    size: int
    digest: str
    uses: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Any, releases: Sequence[Release]) -> Position:
        """Returns the position in a ledger of `releases` that `to_dict` described. Raises ValueError if it is none."""
        stored = fields(content, {"size": is_whole(1), "digest": is_hex(_DIGITS), "uses": is_object})
        uses = fields(stored["uses"], {release.name: is_whole(0, release.max_uses) for release in releases})
        if len(uses) > len(releases):
            raise ValueError(f"'uses' names {len(uses)} releases, and the plan has {len(releases)}")
        return cls(stored["size"], stored["digest"], uses)


@dataclass(frozen=True)
class Lines:
    """What a ledger's file holds.

    Attributes:
        records: one a line, without its digest; None for a line that cannot be read, as a crash cuts one short.
        chained: whether the lines carry digests; those of ledgers of the first versions do not.
        broken: the number, from 1, of the first line that does not follow from those before it; None if all do.
    """

    records: list[Record | None]
    chained: bool
    broken: int | None


def read(content: bytes) -> Lines:
    """Returns the lines of a ledger's file, however damaged it is.

    Whether an unreadable line was left by a crash is told by the line after it, whose digest covers it.
    """
    chain, records, broken = Chain(), [], None
    *whole, last = content.split(b"\n")
    texts = [line + b"\n" for line in whole] + ([last] if last else [])
    for number, text in enumerate(texts, start=1):
        record = _parsed(text)
        if record is not None and record.pop(_KEY, None) != chain.digest and broken is None:
            broken = number
        records.append(record)
        chain.add(text)
    chained = bool(texts) and _KEY.encode() in texts[0]
    return Lines(records, chained, broken if chained else None)


def checked(
    path: Path, content: bytes, since: Position | None, releases: Mapping[str, Release] | None = None
) -> list[Record | None]:
    """Returns the records of the ledger at `path`, which holds `content`.

    Raises UserError where it does not begin with what it held at `since`, where a line does not follow from those
    before it or, with `releases` by name, where one that can be read says nothing that a ledger of these says.
    """
    if since is not None and Chain(content[: since.size]).digest != since.digest:
        raise UserError(
            f"{path} does not hold what it held when the run was last stored: it was cut, changed or replaced;"
            f" {_RESTORE}"
        )
    lines = read(content)
    if not lines.chained:
        raise UserError(f"{path} does not begin as a ledger of this version; {_RESTORE}")
    if lines.broken is not None:
        raise UserError(f"{path} was changed: line {lines.broken} does not follow from those before it; {_RESTORE}")
    for number, record in enumerate(lines.records[1:], start=2):
        if releases is not None and record is not None:
            try:
                _check(record, releases)
            except ValueError as error:
                raise UserError(f"{path} line {number} is no line of a ledger ({error}); {_RESTORE}") from None
    return lines.records


def _check(record: Record, releases: Mapping[str, Release]) -> None:
    word = next((word for word in _WORDS if word in record), None)
    if word is None:
        raise ValueError(f"it has none of {', '.join(_WORDS)}")
    if word == "internal":
        fields(record, {word: is_text})
        return
    fields(record, {word: is_one_of(*releases)})
    fields(record, {"use": is_whole(1, releases[record[word]].max_uses), **_WORDS[word]})


def uses(releases: Mapping[str, Release], records: Iterable[Record | None], boot: str | None) -> Counter[str]:
    """Returns the uses of each release that a ledger's lines after its first have spent.

    Uses reserved ahead count as spent unless `boot`, the running system's name, is that of the line: while the system
    runs on it holds every line that a process wrote, so the charges themselves tell. An unreadable line was a charge of
    some release, so it counts as one of each.
    """
    spent: Counter[str] = Counter()
    reserved: Counter[str] = Counter()
    for record in records:
        charged, answered, ahead, use = map((record or {}).get, ("charge", "answered", "reserve", "use"))
        if charged in releases:
            # The number too: lines before it may be gone with the machine that wrote them.
            spent[charged] = max(spent[charged] + 1, use if isinstance(use, int) else 0)
        elif answered in releases and isinstance(use, int):
            # Granted from a reserve that another start of the machine counted as spent, it has no line of its charge.
            spent[answered] = max(spent[answered], use)
        elif ahead in releases and isinstance(use, int):
            if boot is None or record.get("boot") != boot:
                reserved[ahead] = max(reserved[ahead], use)
        elif record is None or not record.keys() & {"internal", "answered"}:
            for name, release in releases.items():
                # A spent one cannot have been meant.
                spent[name] = min(spent[name] + 1, max(release.max_uses, spent[name]))
    return spent | reserved


def _parsed(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
