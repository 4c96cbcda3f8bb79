"""What a run may be called: its name is a folder on every system, and a wildcard of the graph."""

from __future__ import annotations

from workflow.common.contracts import REAL
from workflow.common.errors import UserError, shown
from workflow.common.own_set import NAME, RESERVED

MOST_CHARACTERS = 100


def check_run_name(name: str, where: str, place: str = "") -> str:
    """Returns `name`. Raises UserError unless it is a-z, 0-9 and _ after a letter.

    The error begins with `where`, and says `place` after the name.
    """
    place = place and f" {place}"
    if name == REAL:
        raise UserError(f"{where}: run name {REAL!r} is reserved for the rows measured on real data; choose another")
    if name in RESERVED:
        raise UserError(f"{where}: run name {name!r}{place} is reserved on some systems; rename it")
    if not NAME.fullmatch(name) or len(name) > MOST_CHARACTERS:
        wanted = f"a-z, 0-9 and _, a letter first, at most {MOST_CHARACTERS} characters"
        raise UserError(f"{where}: run name {shown(name)}{place} must consist of {wanted}; rename it")
    return name
