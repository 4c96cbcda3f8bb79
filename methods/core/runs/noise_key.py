"""The key of a run's noise: from public numbers and the records, or from the operating system and written nowhere.

A reproducible run can be repeated by whoever holds its plan and its records, and protects nobody from them. A secret
key lives in the memory of one process. A run that continues after a kill draws another: noise belongs to a use, and no
use is answered twice, so nothing is lost with the old one.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from methods.core.privacy.ledger import KEY_BYTES
from methods.core.privacy.private_data import PrivateData
from methods.core.runs.plan import Plan
from workflow.common.errors import UserError
from workflow.common.files import write_text

REPRODUCIBLE = "reproducible: it follows from the plan and the records, and protects nobody from who has both"
SECRET = "secret: its key came from the operating system and was never written"


def noise_key(plan: Plan, data: PrivateData, folder: Path, secret: bool) -> bytes:
    """Returns the key of all noise and all secret draws that this process will make for a run.

    Two plans, seeds or sets of records never share one: their answers could be subtracted from one another. Raises
    UserError where a run in `folder` was begun with the other kind of key.
    """
    mark = _mark(folder)
    if (folder / "private" / "ledger.jsonl").exists() and mark.exists() != secret:
        kind = "secret" if mark.exists() else "reproducible"
        raise UserError(f"{folder} was begun with {kind} noise; continue it so, or use another folder")
    if not secret:
        mark.unlink(missing_ok=True)
        return data._keyed(plan.seed, plan.digest, "noise")
    write_text(mark, "")
    return secrets.token_bytes(KEY_BYTES)


def forget(folder: Path) -> None:
    """Removes what says of which kind a run's noise is, once the run is finished and run.json says it."""
    _mark(folder).unlink(missing_ok=True)


def _mark(folder: Path) -> Path:
    return folder / "private" / "secret-noise"
