"""What a run may be called: its name is a folder on every system, and a wildcard of the graph."""

from __future__ import annotations

from workflow.common.contracts import REAL
from workflow.common.errors import UserError, shown
from workflow.common.own_set import NAME, RESERVED

MOST_CHARACTERS = 100


def check_run_name(name: str, where: str) -> str:
    """Returns `name`. Raises UserError, which begins with `where`, unless it is a-z, 0-9 and _ after a letter."""
    if name == REAL:
        raise UserError(f"{where}: run name {REAL!r} is reserved for the rows measured on real data; choose another")
    if name in RESERVED:
        raise UserError(f"{where}: run name {name!r} is reserved on some systems; rename it")
    if not NAME.fullmatch(name) or len(name) > MOST_CHARACTERS:
        wanted = f"a-z, 0-9 and _, a letter first, at most {MOST_CHARACTERS} characters"
        raise UserError(f"{where}: run name {shown(name)} must consist of {wanted}; rename it")
    return name
