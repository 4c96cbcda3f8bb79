"""The hold of a folder: on a file open for writing, which goes with its holder, and never believed without a lock."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from methods.core.privacy.ledger import Ledger
from methods.core.release import Budget
from methods.core.released.workplace import Workplace
from methods.core.runs.folder import held
from workflow.common import locks
from workflow.common.errors import UserError
from workflow.common.locks import LOCK, locked


def test_a_second_process_is_refused_and_nothing_stays_behind(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        with pytest.raises(UserError, match="run is in use by another process"), locked(tmp_path / "run"):
            pass
        assert (tmp_path / "run" / LOCK).exists()
    assert list((tmp_path / "run").iterdir()) == []


def test_the_file_of_a_killed_holder_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    with locked(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def test_a_run_is_held_by_a_regular_file_that_is_open_for_writing(tmp_path: Path, monkeypatch) -> None:
    """NFS gives a lock of one process alone to nothing else."""
    flock, seen = fcntl.flock, []

    def spied(handle, operation) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        seen.append((path.name, path.is_file(), fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY))
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", spied)
    with held(tmp_path):
        pass
    assert seen == [(LOCK, True, True)]


def ledger(folder: Path) -> Ledger:
    return Ledger.open(folder / "ledger.jsonl", [], Budget(1.0, 1e-5, "sound"))


@pytest.mark.parametrize("hold", [held, lambda folder: Workplace(folder / "out").held(), ledger],
                         ids=["run", "release", "ledger"])  # fmt: skip
@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_folder_that_cannot_be_locked_is_refused(tmp_path: Path, monkeypatch, hold, number: int) -> None:
    def refused(handle, operation) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    monkeypatch.setattr(fcntl, "lockf", refused)
    with pytest.raises(UserError, match=r"cannot lock .* on a file system with locks"), hold(tmp_path):
        pytest.fail("it was not held")


def test_who_opened_the_file_of_a_holder_that_ended_locks_the_next_one(tmp_path: Path, monkeypatch) -> None:
    flock, stale = fcntl.flock, []

    def late(handle, operation) -> None:
        if not stale:
            # The holder before ends in between, and removes its file.
            (tmp_path / LOCK).unlink()
        stale.append(handle)
        flock(handle, operation)

    monkeypatch.setattr(locks.fcntl, "flock", late)
    with locked(tmp_path):
        assert (tmp_path / LOCK).exists() and len(stale) == 2
