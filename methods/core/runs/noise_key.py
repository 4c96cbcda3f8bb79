"""The key of a run's noise: from public numbers and the records, or from the operating system and then destroyed.

A reproducible run can be repeated by whoever holds its plan and its records, and protects nobody from them. A secret
key is kept under the run's private/ folder for resuming, and is gone when the run ends.
"""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

from methods.core.privacy.ledger import KEY_BYTES
from methods.core.privacy.private_data import PrivateData
from methods.core.runs.plan import Plan
from workflow.common.errors import UserError
from workflow.common.files import atomic

REPRODUCIBLE = "reproducible: it follows from the plan and the records, and protects nobody from who has both"
SECRET = "secret: its key came from the operating system and is destroyed at the end of the run"


def noise_key(plan: Plan, data: PrivateData, folder: Path, secret: bool) -> bytes:
    """Returns the key of all noise and all secret draws of a run.

    Two plans, seeds or sets of records never share one: their answers could be subtracted from one another. Raises
    UserError where a run in `folder` was begun with the other kind of key.
    """
    path = _path(folder)
    begun = (folder / "private" / "ledger.jsonl").exists()
    if begun and path.exists() != secret:
        kind = "secret" if path.exists() else "reproducible"
        raise UserError(f"{folder} was begun with {kind} noise; continue it so, or use another folder")
    public = data._keyed(plan.seed, plan.digest, "noise")
    if not secret:
        path.unlink(missing_ok=True)
        return public
    # Of a run that has charged nothing, a key that lies there may be anybody's.
    key = path.read_bytes() if begun else _new(path)
    if len(key) != KEY_BYTES:
        raise UserError(f"{path} is damaged, and no other key may continue the run; use another folder")
    # Plan and records in the key as well: a copy of the folder that continues on others meets other noise.
    return hmac.digest(key, public, "sha256")


def destroy(folder: Path) -> None:
    """Overwrites and removes the secret key of a finished run, if it had one."""
    path = _path(folder)
    if not path.exists():
        return
    with path.open("r+b") as stored:
        stored.write(bytes(KEY_BYTES))
        os.fsync(stored.fileno())
    path.unlink()


def _path(folder: Path) -> Path:
    return folder / "private" / "noise.key"


def _new(path: Path) -> bytes:
    key = secrets.token_bytes(KEY_BYTES)
    with atomic(path, mode=0o600) as temporary:
        temporary.write_bytes(key)
    return key
