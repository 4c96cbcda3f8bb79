"""The ledger never shows less than was spent, and nothing is read that it does not show."""

import dataclasses
import json
import os
import signal
import stat
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.core.accounting.calibration import epsilon
from methods.core.privacy import ledger as ledger_module
from methods.core.privacy.grant import UnaccountedAccess
from methods.core.privacy.ledger import BudgetExhausted, Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import NO_BUDGET, Budget, Release
from workflow.common.errors import UserError

DELTA = 1e-5
BUDGET = Budget(2.0, DELTA, "sound")


def gradient(**changes) -> Release:
    fields = dict(
        name="gradient", kind="gaussian", clip=1.0, noise=8.0, bounded="function", rows=4, rate=1.0, sampling="all",
        max_uses=3,
    )  # fmt: skip
    return Release(**(fields | changes))


PLAN = (gradient(), gradient(name="count", bounded="sum", rows=10, noise=20.0, max_uses=2))


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "run" / "ledger.jsonl"


@pytest.fixture
def data() -> PrivateData:
    return PrivateData(torch.zeros(10, 1, 2, 2, dtype=torch.uint8), torch.zeros(10, dtype=torch.int64))


def lines(path: Path) -> list[dict]:
    """Returns the records of a ledger, without the digests that chain its lines."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "chain"} for record in records]


def synced_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns a list that gets the size of each file that reaches the disk from now on, in place of reaching it."""
    sizes: list[int] = []

    def sync(handle: int) -> None:
        state = os.fstat(handle)
        if stat.S_ISREG(state.st_mode):
            sizes.append(state.st_size)

    monkeypatch.setattr(os, "fsync", sync)
    return sizes


def test_the_charge_is_on_disk_before_the_block_runs(path, data):
    with Ledger.open(path, PLAN, BUDGET) as ledger, ledger.charge("gradient") as grant:
        assert lines(path)[-1] == {"charge": "gradient", "use": 1}
        data.read(grant, [0])


def test_the_charge_reaches_the_disk_and_not_only_the_cache(path, monkeypatch):
    synced = synced_sizes(monkeypatch)
    with Ledger.open(path, PLAN, BUDGET) as ledger, ledger.charge("gradient"):
        assert synced[-1] == path.stat().st_size


def test_the_first_line_is_the_plan_and_the_budget(path):
    Ledger.open(path, PLAN, BUDGET).close()
    header = lines(path)[0]
    assert tuple(Release.from_dict(fields) for fields in header["plan"]) == PLAN
    assert header["budget"] == {"epsilon": 2.0, "delta": DELTA, "accounting": "sound"}


@pytest.mark.parametrize("accounting", ["published", "sound"])
def test_a_plan_over_budget_is_refused_before_a_ledger_exists(path, accounting):
    with pytest.raises(UserError, match="over the budget of 2"):
        Ledger.open(path, [gradient(max_uses=1000)], Budget(2.0, DELTA, accounting))
    assert not path.exists()


def test_a_budget_that_may_be_exceeded_is_named_in_the_refusal_and_in_the_ledger(path):
    plan, allowed = [gradient(max_uses=1000)], Budget(2.0, DELTA, "published", over_budget=True)
    with pytest.raises(UserError, match=r"over_budget: true .*--over-budget"):
        Ledger.open(path, plan, Budget(2.0, DELTA, "published"))
    with Ledger.open(path, plan, allowed) as ledger, ledger.charge("gradient"):
        pass
    assert lines(path)[0]["budget"] == {"epsilon": 2.0, "delta": DELTA, "accounting": "published", "over_budget": True}
    with Ledger.open(path, plan, allowed, resume=True) as ledger:
        assert ledger.uses("gradient") == 1


def test_an_exceeded_budget_still_ends_with_the_plans_uses(path):
    with Ledger.open(path, [gradient(noise=0.1)], Budget(2.0, DELTA, "sound", over_budget=True)) as ledger:
        for _ in range(3):
            with ledger.charge("gradient"):
                pass
        assert ledger.epsilon("sound") == epsilon([gradient(noise=0.1)], DELTA, "sound") > 100
        with pytest.raises(BudgetExhausted), ledger.charge("gradient"):
            pytest.fail("a fourth use was granted")


def test_without_a_budget_there_is_none_to_exceed(path):
    with pytest.raises(UserError, match="over_budget needs a finite epsilon"):
        Budget(float("inf"), DELTA, "none", over_budget=True)
    with pytest.raises(UserError, match="no noise"):
        Ledger.open(path, [gradient(kind="none")], Budget(2.0, DELTA, "sound", over_budget=True))


def test_noiseless_releases_need_an_infinite_budget(path):
    with pytest.raises(UserError, match="no noise"):
        Ledger.open(path, [gradient(kind="none")], BUDGET)
    with Ledger.open(path, [gradient(kind="none")], Budget(float("inf"), DELTA, "none")) as ledger:
        assert ledger.epsilon("sound") == 0
        with ledger.charge("gradient"):
            pass
        assert ledger.epsilon("sound") == float("inf")
    assert lines(path)[0]["budget"]["epsilon"] == "inf"


def test_names_in_a_plan_are_distinct(path):
    with pytest.raises(UserError, match="distinct"):
        Ledger.open(path, [gradient(), gradient()], BUDGET)


def test_uses_end_with_the_plan(path):
    with Ledger.open(path, PLAN, BUDGET) as ledger:
        for _ in range(3):
            with ledger.charge("gradient"):
                pass
        with pytest.raises(BudgetExhausted), ledger.charge("gradient"):
            pytest.fail("a fourth use was granted")
        assert ledger.uses("gradient") == 3 and ledger.uses("count") == 0
        with pytest.raises(UserError, match="count, gradient"), ledger.charge("gradeint"):
            pass


def test_epsilon_is_that_of_what_is_spent(path):
    with Ledger.open(path, PLAN, BUDGET) as ledger:
        assert ledger.epsilon("sound") == 0
        with ledger.charge("gradient"):
            pass
        assert ledger.epsilon("sound") == epsilon([gradient(max_uses=1)], DELTA, "sound") > 0


def test_an_exception_refunds_nothing(path):
    with Ledger.open(path, PLAN, BUDGET) as ledger:
        with pytest.raises(KeyError), ledger.charge("gradient"):
            raise KeyError
        assert ledger.uses("gradient") == 1
    with Ledger.open(path, PLAN, BUDGET, resume=True) as ledger:
        assert ledger.uses("gradient") == 1


def test_reading_needs_an_open_grant(path, data):
    with Ledger.open(path, PLAN, BUDGET) as ledger:
        with ledger.charge("gradient") as spent:
            spent.rows(torch.zeros(1, 2))
            with pytest.raises(UnaccountedAccess):
                data.read(spent, [0])
        with ledger.internal("critic") as internal:
            data.read(internal, [0])
        for grant in (None, spent, internal, "grant"):
            with pytest.raises(UnaccountedAccess):
                data.read(grant, [0])


def test_a_grant_that_is_asked_again_while_its_rows_are_read_does_not_answer_twice(path):
    """Two answers with the noise of one use would give the rows away as their difference."""
    release = dataclasses.replace(PLAN[0], bounded="sum", max_uses=1)
    with Ledger.open(path, [release], NO_BUDGET) as ledger, ledger.charge(release.name) as grant:

        def rows():
            grant.sum([torch.zeros(1, 2)])
            yield torch.zeros(1, 2)

        with pytest.raises(UnaccountedAccess):
            grant.sum(rows())


def test_a_grant_answers_once_and_only_while_open(path):
    with Ledger.open(path, PLAN, BUDGET) as ledger:
        with ledger.charge("gradient") as grant:
            assert grant.release == PLAN[0]
            grant.rows(torch.zeros(1, 2))
            with pytest.raises(UnaccountedAccess):
                grant.rows(torch.zeros(1, 2))
        with ledger.charge("count") as late:
            pass
        with pytest.raises(UnaccountedAccess):
            late.sum([torch.zeros(1, 2)])
        with ledger.internal("critic") as internal:
            assert internal.release is None
            with pytest.raises(UnaccountedAccess):
                internal.rows(torch.zeros(1, 2))


def test_internal_reads_are_free_and_logged_once_with_their_count(path):
    with Ledger.open(path, PLAN, BUDGET) as ledger:
        for _ in range(5):
            with ledger.internal("critic"):
                pass
        assert ledger.epsilon("sound") == 0
    assert lines(path)[1:] == [{"internal": "critic"}, {"internal": "critic", "count": 5}]


def test_starting_over_does_not_refund(path):
    Ledger.open(path, PLAN, BUDGET).close()
    with pytest.raises(UserError, match="stays spent"):
        Ledger.open(path, PLAN, BUDGET)


def test_resuming_needs_the_ledger_and_its_own_plan(path):
    with pytest.raises(UserError, match="no ledger"):
        Ledger.open(path, PLAN, BUDGET, resume=True)
    Ledger.open(path, PLAN, BUDGET).close()
    changed = (gradient(noise=9.0), PLAN[1])
    for plan, budget in [(PLAN[:1], BUDGET), (changed, BUDGET), (PLAN, Budget(3, DELTA, "sound"))]:
        with pytest.raises(UserError, match="another plan or budget"):
            Ledger.open(path, plan, budget, resume=True)


def test_lines_by_another_writer_stop_the_run(path):
    with Ledger.open(path, PLAN, BUDGET) as ledger:
        with path.open("a") as other:
            other.write('{"charge": "gradient", "use": 1}\n')
        with pytest.raises(UserError, match="another writer"), ledger.charge("gradient"):
            pytest.fail("granted on a stale count")


def in_child(work: Callable[[], object]) -> int:
    """Runs `work` in a forked process; returns its wait status: 0 if it returned, 256 if it raised UserError."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    status = 2
    try:
        work()
        status = 0
    except UserError:
        status = 1
    finally:
        os._exit(status)


def test_a_second_process_cannot_open_the_ledger(path):
    with Ledger.open(path, PLAN, BUDGET):
        assert in_child(lambda: Ledger.open(path, PLAN, BUDGET, resume=True)) == 256
    assert in_child(lambda: Ledger.open(path, PLAN, BUDGET, resume=True)) == 0


def test_a_killed_process_has_spent_what_it_read(path):
    def train() -> None:
        ledger = Ledger.open(path, PLAN, BUDGET)
        with ledger.charge("gradient"):
            pass
        with ledger.charge("gradient"):
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(train) == signal.SIGKILL
    with Ledger.open(path, PLAN, BUDGET, resume=True) as ledger:
        assert ledger.uses("gradient") == 2


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_file_cut_anywhere_shows_at_least_what_was_granted(draw):
    """Cut at byte n: every charge whose line begins before n may have been granted, so it must count."""
    names = draw.draw(st.lists(st.sampled_from(["gradient", "count"]), max_size=4).filter(fits))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        with Ledger.open(path, PLAN, BUDGET) as ledger:
            starts = []
            for name in names:
                starts.append((path.stat().st_size, name))
                with ledger.charge(name):
                    pass
        first = starts[0][0] if starts else 0
        size = draw.draw(st.integers(first, path.stat().st_size) | st.integers(0, path.stat().st_size))
        os.truncate(path, size)
        started = Counter(name for start, name in starts if start < size)
        for _ in range(2):
            with Ledger.open(path, PLAN, BUDGET, resume=True) as ledger:
                for release in PLAN:
                    assert started[release.name] <= ledger.uses(release.name) <= release.max_uses


NAMES = st.sampled_from([release.name for release in PLAN])
LIVES = st.lists(
    st.tuples(st.just("charge"), NAMES, st.just(0.0))
    | st.tuples(st.just("raise"), NAMES, st.just(0.0))
    | st.tuples(st.just("cut"), NAMES, st.floats(0, 1)),
    min_size=1, max_size=16,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(LIVES)
def test_a_crash_at_any_byte_of_a_write_never_refunds_and_never_overspends(events):
    """A cut leaves some first bytes of the last charge's line, though its grant was lent; with no byte, it was not.

    Whatever the bytes, the next life shows no less than was granted, and the plan's end is met by no more grants.
    """
    granted: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        ledger = Ledger.open(path, PLAN, BUDGET)
        for event, name, share in events:
            shown = {release.name: ledger.uses(release.name) for release in PLAN}
            if event == "cut":
                start = path.stat().st_size
                kept = round(share * 30)
                if kept:
                    spend(ledger, granted, name)
                ledger._file.close()
                os.truncate(path, min(path.stat().st_size, start + kept))
                ledger = Ledger.open(path, PLAN, BUDGET, resume=True)
            else:
                spend(ledger, granted, name, fails=event == "raise")
            for release in PLAN:
                uses = ledger.uses(release.name)
                assert shown[release.name] <= uses <= release.max_uses
                assert granted[release.name] <= uses
        for release in PLAN:
            while ledger.uses(release.name) < release.max_uses:
                spend(ledger, granted, release.name)
            spend(ledger, granted, release.name)
            assert granted[release.name] <= release.max_uses
        assert ledger.epsilon("sound") <= BUDGET.epsilon
        ledger.close()


def fits(names: list[str]) -> bool:
    return all(names.count(release.name) <= release.max_uses for release in PLAN)


EVENTS = st.lists(st.sampled_from(["gradient", "count", "fail", "crash", "torn", "resume"]), min_size=1, max_size=20)


@settings(max_examples=80, deadline=None)
@given(EVENTS)
def test_no_sequence_of_charges_crashes_and_resumes_spends_more_than_the_plan(events):
    """Grants over all lives of a run stay within max_uses and within what the file shows, which never shrinks.

    A torn line counts as one use of each release that has one left.
    """
    granted: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        ledger = Ledger.open(path, PLAN, BUDGET)
        for event in events:
            if event in ("gradient", "count", "fail"):
                spend(ledger, granted, "gradient" if event == "fail" else event, fails=event == "fail")
            else:
                shown = {release.name: ledger.uses(release.name) for release in PLAN}
                ledger = restart(ledger, path, event)
                for release in PLAN:
                    lost = event == "torn"
                    assert ledger.uses(release.name) == min(shown[release.name] + lost, release.max_uses)
            for release in PLAN:
                assert granted[release.name] <= ledger.uses(release.name) <= release.max_uses
        assert ledger.epsilon("sound") <= BUDGET.epsilon
        ledger.close()


def spend(ledger: Ledger, granted: Counter[str], name: str, fails: bool = False) -> None:
    try:
        with ledger.charge(name):
            granted[name] += 1
            if fails:
                raise RuntimeError
    except (BudgetExhausted, RuntimeError):
        pass


def restart(ledger: Ledger, path: Path, event: str) -> Ledger:
    if event == "crash":
        ledger._file.close()
    else:
        ledger.close()
    if event == "torn":
        with path.open("a") as file:
            file.write('{"charge": "gra')
    return Ledger.open(path, PLAN, BUDGET, resume=True)


# Of a thousand uses, five are reserved at a time.
LONG, FREE = [gradient(max_uses=1000)], Budget(float("inf"), DELTA, "none")


@pytest.fixture
def boots(monkeypatch) -> list[str]:
    """What names the running system; a new last entry is a machine that came up again."""
    boots = ["one"]
    monkeypatch.setattr(ledger_module, "_boot", lambda: boots[-1])
    return boots


def use(ledger: Ledger, times: int) -> None:
    for _ in range(times):
        with ledger.charge("gradient"):
            pass


def test_a_release_of_many_uses_waits_for_the_disk_once_for_every_few(path, monkeypatch, boots):
    shown = []
    monkeypatch.setattr(os, "fsync", lambda handle: shown.append(max(line.get("use", 0) for line in lines(path))))
    monkeypatch.setattr(ledger_module, "sync_folder", lambda folder: None)
    with Ledger.open(path, LONG, FREE) as ledger:
        for number in range(1, 13):
            with ledger.charge("gradient"):
                # Whatever is lost of the file from here on, it shows this use.
                assert shown[-1] >= number
        assert shown == [0, 5, 10, 15]
        assert ledger.uses("gradient") == 12


def test_a_killed_process_loses_none_of_its_reserved_uses(path, boots):
    ledger = Ledger.open(path, LONG, FREE)
    use(ledger, 7)
    ledger._file.close()
    with Ledger.open(path, LONG, FREE, resume=True) as ledger:
        assert ledger.uses("gradient") == 7


def test_a_machine_that_went_down_has_spent_all_that_was_reserved(path, monkeypatch, boots):
    sizes, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (sync(handle), sizes.append(os.fstat(handle).st_size)))
    ledger = Ledger.open(path, LONG, FREE)
    use(ledger, 7)
    ledger._file.close()
    os.truncate(path, sizes[-1])
    boots.append("two")
    for spent in (10, 13):
        with Ledger.open(path, LONG, FREE, resume=True) as ledger:
            assert ledger.uses("gradient") == spent
            use(ledger, 3)
        assert [line["use"] for line in lines(path) if "charge" in line][-1] == spent + 3


def test_the_end_of_a_plan_is_not_passed_by_a_reservation(path, boots):
    plan = [gradient(max_uses=603)]
    with Ledger.open(path, plan, FREE) as ledger:
        use(ledger, 602)
    boots.append("two")
    with Ledger.open(path, plan, FREE, resume=True) as ledger:
        assert ledger.uses("gradient") == 603
        with pytest.raises(BudgetExhausted):
            use(ledger, 1)


def test_where_the_system_has_no_name_each_charge_waits(path, monkeypatch):
    synced = synced_sizes(monkeypatch)
    monkeypatch.setattr(ledger_module, "_boot", lambda: None)
    with Ledger.open(path, LONG, FREE) as ledger:
        use(ledger, 3)
    assert len(synced) == 4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["kill", "power", "close"])), min_size=1, max_size=6))
def test_no_life_of_a_machine_spends_a_use_twice(lives):
    """Each life grants some uses and ends; a power cut loses all that was written after the last wait for the disk."""
    granted: list[int] = []
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path, boot, sizes = Path(folder) / "ledger.jsonl", [0], []
        patch.setattr(ledger_module, "_boot", lambda: str(boot[0]))
        patch.setattr(os, "fsync", lambda handle: sizes.append(os.fstat(handle).st_size))
        for number, (times, end) in enumerate(lives):
            ledger = Ledger.open(path, LONG, FREE, resume=number > 0)
            for _ in range(times):
                with ledger.charge("gradient"):
                    granted.append(ledger.uses("gradient"))
            if end == "close":
                ledger.close()
            ledger._file.close()
            if end == "power":
                os.truncate(path, sizes[-1])
                boot[0] += 1
        assert len(set(granted)) == len(granted)
        with Ledger.open(path, LONG, FREE, resume=True) as ledger:
            assert ledger.uses("gradient") >= max(granted, default=0)
