"""The key of a run's noise: from public numbers and the records, or from the operating system and written nowhere.

A reproducible run can be repeated by whoever holds its plan and its records, and protects nobody from them. A secret
key lives in the memory of one process. A run that continues after a kill draws another: noise belongs to a use, and no
use is answered twice, so nothing is lost with the old one.
"""

from __future__ import annotations

import hashlib
import secrets

from methods.core.privacy.ledger import KEY_BYTES
from methods.core.privacy.private_data import PrivateData
from methods.core.runs.plan import Plan

REPRODUCIBLE = "reproducible: it follows from the plan and the records, and protects nobody from who has both"
SECRET = "secret: its key came from the operating system and was never written"


def of_records(plan: Plan, data: PrivateData) -> bytes:
    """Returns the key of a reproducible run's noise and secret draws: 32 bytes that follow from plan and records.

    Two plans, seeds or sets of records never share one: their answers could be subtracted from one another.
    """
    return data._keyed(plan.seed, plan.digest, "noise")


def fresh() -> bytes:
    """Returns the key of all noise and all secret draws that this process will make for a run with secret noise."""
    return secrets.token_bytes(KEY_BYTES)


def of_warm_start(data: PrivateData) -> str:
    """Returns what tells records from others, for the private folder of what was made from them, in hexadecimal."""
    return hashlib.sha256(b"records of a warm start" + data._keyed("warm start")).hexdigest()


def fingerprint(key: bytes) -> str:
    """Returns what tells of a key of `of_records` whether it is the same, in hexadecimal, and not what it is.

    It tells whether somebody's guess of all records is right, so it stays under private/.
    """
    return hashlib.sha256(b"records of a run" + key).hexdigest()
