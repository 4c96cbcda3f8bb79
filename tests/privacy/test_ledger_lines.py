"""The lines of a ledger are chained: what was changed, taken out, or is behind what was stored, is refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from methods.core.privacy import ledger_lines
from methods.core.privacy.ledger import Ledger
from methods.core.release import Budget, Release
from workflow.common.errors import UserError

BUDGET = Budget(2.0, 1e-5, "sound")
PLAN = [
    Release(
        name="gradient", kind="gaussian", clip=1.0, noise=40.0, bounded="function", rows=4, rate=1.0, sampling="all",
        max_uses=6,
    )
]  # fmt: skip


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "run" / "ledger.jsonl"


def use(ledger: Ledger, times: int) -> None:
    for _ in range(times):
        with ledger.charge("gradient"):
            pass


def chained(path: Path) -> list[bytes]:
    """Charges all of a new ledger, and returns its lines."""
    with Ledger.open(path, PLAN, BUDGET) as ledger:
        use(ledger, 6)
    return path.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:3] + lines[4:],
        lambda lines: lines[:3] + [lines[4], lines[3]] + lines[5:],
        lambda lines: lines[:3] + [lines[3]] + lines[3:],
        lambda lines: lines[:3] + [lines[3].replace(b'"use": 3', b'"use": 1')] + lines[4:],
        lambda lines: lines[:3] + [b'{"charge": "gra\n'] + lines[4:],
        lambda lines: lines[:3] + [bytes(len(lines[3]))] + lines[4:],
        lambda lines: lines[:3] + [b"\n"] + lines[3:],
        lambda lines: [lines[0].replace(b"40.0", b"4.0")] + lines[1:],
        lambda lines: lines[:-1] + [b'{"charge": "gradient", "use": 6}\n'],
    ],
    ids=["out", "exchanged", "twice", "another number", "torn", "NULs", "blank", "first line", "the last unchained"],
)
def test_a_change_in_the_middle_is_seen_and_changes_nothing(path, change):
    lines = chained(path)
    path.write_bytes(b"".join(change(lines)))
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"line \d+ does not follow|another plan"):
        Ledger.open(path, PLAN, BUDGET, resume=True)
    assert path.read_bytes() == before


def test_a_line_cut_short_by_a_crash_is_chained_into_what_follows(path):
    lines = chained(path)
    path.write_bytes(b"".join(lines[:4]) + lines[4][:9])
    for uses in (4, 5, 6):
        with Ledger.open(path, PLAN, BUDGET, resume=True) as ledger:
            assert ledger.uses("gradient") == uses
            if uses < 6:
                with ledger.charge("gradient"):
                    pass
    whole = path.read_bytes()
    path.write_bytes(whole.replace(lines[4][:9] + b"\n", lines[4][:5] + b"\n"))
    with pytest.raises(UserError, match="line 6 does not follow"):
        Ledger.open(path, PLAN, BUDGET, resume=True)


def test_a_ledger_that_shows_less_than_a_position_is_refused_and_one_that_shows_more_is_not(path):
    with Ledger.open(path, PLAN, BUDGET) as ledger:
        use(ledger, 2)
        since = ledger.position()
        use(ledger, 2)
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        if size < since.size:
            with pytest.raises(UserError, match="does not hold what it held"):
                Ledger.open(path, PLAN, BUDGET, resume=True, since=since)
            assert path.read_bytes() == whole[:size]
        else:
            with Ledger.open(path, PLAN, BUDGET, resume=True, since=since) as ledger:
                assert ledger.uses("gradient") >= 2


def test_a_position_is_on_disk_before_anything_is_stored_by_it(path, monkeypatch):
    """Of a release of many uses some lines are not, until then."""
    synced = []
    with Ledger.open(path, [PLAN[0].used(1000)], Budget(float("inf"), 1e-5, "none")) as ledger:
        use(ledger, 3)
        monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
        assert ledger.position().size == synced[-1] == path.stat().st_size


def test_a_charge_that_could_not_be_written_costs_nothing_after_a_restart(path, monkeypatch):
    with Ledger.open(path, PLAN, BUDGET) as ledger:
        use(ledger, 1)
        before = path.read_bytes()
        for times in range(3):
            with monkeypatch.context() as patch, pytest.raises(UserError, match=r"No space left on device .* free"):
                patch.setattr(os, "fsync", full)
                use(ledger, 1)
            assert path.read_bytes() == before, times
    with Ledger.open(path, PLAN, BUDGET, resume=True) as ledger:
        assert ledger.uses("gradient") == 1


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_use_that_was_answered_counts_as_spent_without_a_line_of_its_charge():
    """As where a machine's other start had counted a reserve as spent, and the use was granted from it."""
    (release,) = PLAN
    records = [{"charge": release.name, "use": 1}, {"answered": release.name, "use": 3, "digest": "0"}]
    assert ledger_lines.uses({release.name: release}, records, boot="now") == {release.name: 3}
