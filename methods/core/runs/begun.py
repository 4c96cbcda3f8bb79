"""What a run was begun with, in private/begun.json before its first charge: nothing else may continue it."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from methods.core.privacy.ledger_lines import Position
from methods.core.runs.plan import Plan
from workflow.common.errors import UserError
from workflow.common.files import read_json, write_json
from workflow.common.readers.fields import fields, is_hex, is_object, is_one_of, is_whole
from workflow.common.readers.guard import reason

# What follows from the settings, so it is named only where no setting differs.
_DERIVED = ("releases", "eps_published", "eps_sound")
_MOST = 3
_NONCE = 32
_FIELDS = {
    "records": is_hex(64), "noise": is_one_of("reproducible", "secret"), "earlier": is_whole(),
    "ledgers": is_hex(64), "nonce": is_hex(_NONCE),
}  # fmt: skip


@dataclass(frozen=True)
class Begun:
    """What one run is.

    Attributes:
        plan: the run's.
        records: the fingerprint of its records (see noise_key; private).
        noise: "reproducible" or "secret".
        earlier: how many finished runs this folder held before it.
        ledgers: SHA-256 of these runs' ledgers, in hexadecimal (see folder.ledgers_digest). Empty before the begin.
        nonce: 32 random hexadecimal digits, which no other run has; nothing is drawn from them. Empty before the begin.
    """

    plan: Plan
    records: str
    noise: str
    earlier: int = 0
    ledgers: str = ""
    nonce: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of plan, records and noise, in hexadecimal: the same for every run that is begun alike."""
        return hashlib.sha256("/".join((self.plan.digest, self.records, self.noise)).encode()).hexdigest()

    @property
    def run(self) -> str:
        """SHA-256 of all of it, in hexadecimal: what is stored of a run bears it."""
        return hashlib.sha256("/".join((self.digest, str(self.earlier), self.nonce)).encode()).hexdigest()

    def named(self, earlier: int, ledgers: str) -> Begun:
        """Returns the run that now begins, after so many `earlier` ones, whose `ledgers` have this digest."""
        return replace(self, earlier=earlier, ledgers=ledgers, nonce=secrets.token_hex(_NONCE // 2))

    def check(self, now: Begun, folder: Path) -> None:
        """Raises UserError, which names what differs, unless `now` is the same as what the run in `folder` began with.

        The fingerprint covers the plan, so records are compared only under equal plans.
        """
        check_plan(self.plan, now.plan, folder)
        if self.noise != now.noise:
            raise UserError(f"{folder} was begun with {self.noise} noise, now {now.noise}: {_WAYS}")
        if self.records != now.records:
            raise UserError(f"{folder} was begun with other training records, as many and of the same shape: {_WAYS}")


_WAYS = "continue it as it was begun, or use another folder"


def check_plan(before: Plan, now: Plan, folder: Path) -> None:
    """Raises UserError, which names what differs, unless `now` is the plan that the run in `folder` began with."""
    if differing := list(_differences(_values(before), _values(now))):
        settings = [text for name, text in differing if name not in _DERIVED] or [text for _, text in differing]
        more = f" and {len(settings) - _MOST} more" if len(settings) > _MOST else ""
        raise UserError(f"{folder} was begun with {', '.join(settings[:_MOST])}{more}: {_WAYS}")


def begun_path(folder: Path) -> Path:
    """Returns where a run in progress keeps what it was begun with."""
    return folder / "private" / "begun.json"


def write(folder: Path, begun: Begun, ledger: Position) -> None:
    """Stores what a run begins with, and its ledger's first line as it stands on disk."""
    content = {name: getattr(begun, name) for name in _FIELDS}
    write_json(begun_path(folder), {**content, "plan": begun.plan.to_dict(), "ledger": ledger.to_dict()})


def read(folder: Path) -> tuple[Begun, Position]:
    """Returns what `write` stored. Raises UserError for a file that is missing or holds anything else."""
    path = begun_path(folder)
    if not path.exists():
        raise UserError(
            f"{folder} holds a run whose {path.name} is gone, or that another version began: restore that file, or"
            " remove the folder to start again, which spends the budget on these records a second time"
        )
    content = read_json(path)
    try:
        fields(content, _FIELDS | {"plan": is_object, "ledger": is_object})
        plan = Plan.stored(content["plan"], path)
        position = Position.from_dict(content["ledger"], plan.releases)
    except ValueError as error:
        raise UserError(
            f"{path} does not say what was begun ({reason(error)}); restore it, or use another folder"
        ) from None
    return Begun(plan, **{name: content[name] for name in _FIELDS}), position


def _values(plan: Plan) -> dict[str, Any]:
    return json.loads(json.dumps(plan.to_dict()))


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the top name and words "name X, now Y" for each value that differs."""
    for name in dict.fromkeys((*before, *now)):
        one, other = before.get(name), now.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from ((name, f"{name}.{text}") for _, text in _differences(one, other))
        elif name == "releases" and one != other:
            yield name, _releases(one, other)
        elif one != other:
            yield name, f"{name} {_word(one)}, now {_word(other)}"


def _releases(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> str:
    pairs = zip(before, now, strict=False)
    found = (f"release {one.get('name')} of {text}" for one, other in pairs for _, text in _differences(one, other))
    return next(found, f"{len(before)} releases, now {len(now)}")


def _word(value: Any) -> str:
    return "not given" if value is None else json.dumps(value)
