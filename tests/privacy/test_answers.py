"""A kill loses at most a twentieth of a release's uses, and no use is ever answered twice."""

from __future__ import annotations

import dataclasses
import functools
import io
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import CPU, TINY_GAN, TOY, Killed, killed_at, toy_records, unrehearsed

from methods.core import registry
from methods.core.privacy import answers
from methods.core.privacy.answers import FEW as MOST
from methods.core.privacy.answers import Answers, unsaved
from methods.core.privacy.ledger import BudgetExhausted, Ledger
from methods.core.privacy.noise import NoiseSource
from methods.core.release import NO_BUDGET, Budget, Release
from methods.core.runs import checkpoint, train
from methods.core.runs.plan import Plan
from workflow.common.errors import UserError

FEW = Release(
    name="few", kind="gaussian", clip=1.0, noise=1.0, bounded="function", rows=2, rate=1.0, sampling="all", max_uses=3
)
DRAWN = dataclasses.replace(FEW, name="drawn", bounded="sum", rate=0.5, sampling="poisson")
ROWS = torch.zeros(2, 3)
MERF = {"features": 32, "steps": 3, "batch_size": 10, "hidden": 8, "channels": 4}


@functools.cache
def merf() -> Plan:
    return Plan.make("dp_merf", "run", MERF, TOY, Budget(10.0, 1e-5, "sound"), seed=0)


def gan(steps: int) -> Plan:
    return Plan.make("gs_wgan", "run", TINY_GAN | {"steps": steps}, TOY, Budget(10.0, 1e-5, "published"), seed=0)


class Life:
    """One process after another on a ledger and its kept answers; `since` is where the first one's ledger stood."""

    def __init__(self, folder: Path, release: Release, repeatable: bool = False) -> None:
        self.path, self.folder, self.release, self.repeatable = folder / "l.jsonl", folder / "a", release, repeatable
        with self.open(resume=False) as ledger:
            self.since = ledger.position()

    def open(self, resume: bool = True) -> Ledger:
        """Opens the ledger in a process of its own, whose noise is another unless it is repeatable."""
        answers = Answers(self.folder, self.repeatable)
        key = b"repeatable" if self.repeatable else None
        since = self.since if resume else None
        return Ledger.open(self.path, [self.release], NO_BUDGET, resume, key, since=since, answers=answers)

    def answer(self, ledger: Ledger) -> torch.Tensor:
        with ledger.charge(self.release.name) as grant:
            if self.release.sampling == "poisson":
                grant.poisson_batch(50)
            return grant.rows(ROWS) if self.release.bounded == "function" else grant.sum([ROWS])

    def charges(self) -> int:
        return self.path.read_text().count('"charge"')


def killed_before_storing(life: Life) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed), life.open() as ledger:
        patch.setattr(Answers, "_store", stop)
        life.answer(ledger)


def stop(*_):
    raise Killed


@pytest.mark.parametrize("release", [FEW, DRAWN])
@pytest.mark.parametrize("repeatable", [False, True])
def test_a_kept_answer_is_given_again_and_neither_charged_nor_made_again(tmp_path, monkeypatch, release, repeatable):
    life, drawn = Life(tmp_path, release, repeatable), []
    with life.open() as ledger:
        first = [life.answer(ledger) for _ in range(2)]
    monkeypatch.setattr(NoiseSource, "draw", lambda *given: drawn.append(given) or torch.zeros(3))
    with life.open() as ledger:
        assert all(torch.equal(life.answer(ledger), answer) for answer in first)
        assert ledger.uses(release.name) == life.charges() == 2 and not drawn
        life.answer(ledger)
        assert ledger.uses(release.name) == life.charges() == 3 and len(drawn) == 1
        with pytest.raises(BudgetExhausted):
            life.answer(ledger)


def test_the_answer_is_on_disk_and_noted_before_anybody_sees_it(tmp_path):
    life = Life(tmp_path, FEW)
    with life.open() as ledger:
        answer = life.answer(ledger)
        (kept,) = life.folder.iterdir()
        assert np.array_equal(np.load(io.BytesIO(kept.read_bytes()[16:])), answer)
        assert '"answered": "few", "use": 1' in life.path.read_text().splitlines()[-1]


def test_a_charge_that_nobody_had_an_answer_of_is_answered_under_its_number(tmp_path):
    life = Life(tmp_path, FEW)
    killed_before_storing(life)
    with life.open() as ledger:
        life.answer(ledger)
        assert ledger.uses("few") == life.charges() == 1


@pytest.mark.parametrize(("repeatable", "uses"), [(True, 1), (False, 2)])
def test_a_draw_of_records_is_not_made_anew_unless_it_is_the_same(tmp_path, repeatable, uses):
    """What killed the process may have depended on how many records it drew."""
    life = Life(tmp_path, DRAWN, repeatable)
    killed_before_storing(life)
    with life.open() as ledger:
        life.answer(ledger)
        assert ledger.uses("drawn") == life.charges() == uses


def test_a_kill_between_the_file_and_its_line_gives_the_answer_of_the_file(tmp_path):
    life = Life(tmp_path, FEW)
    with life.open() as ledger:
        answer = life.answer(ledger)
    whole = life.path.read_bytes().splitlines(keepends=True)
    life.path.write_bytes(b"".join(line for line in whole if b"answered" not in line))
    with life.open() as ledger:
        assert torch.equal(life.answer(ledger), answer)
        assert '"answered"' in life.path.read_text()


def test_a_machine_that_goes_down_after_an_answer_was_seen_gives_no_other(tmp_path, monkeypatch):
    """A row of log.csv may have told of it, and outlive what nobody waited for."""
    life, synced = Life(tmp_path, FEW), {}
    monkeypatch.setattr(os, "fsync", lambda handle: synced.update({os.fstat(handle).st_ino: os.fstat(handle).st_size}))
    with life.open() as ledger:
        answer = life.answer(ledger)
    for path in (life.path, *life.folder.iterdir()):
        os.truncate(path, synced.get(path.stat().st_ino, 0))
    assert {life.folder.stat().st_ino, tmp_path.stat().st_ino} <= synced.keys()
    assert '"answered"' in life.path.read_text()
    with life.open() as ledger:
        assert torch.equal(life.answer(ledger), answer)
        assert ledger.uses("few") == life.charges() == 1


@pytest.mark.parametrize("damage", ["deleted", "changed", "emptied", "another use's"])
@pytest.mark.parametrize("repeatable", [False, True])
def test_an_answer_that_was_seen_and_is_gone_stays_spent(tmp_path, damage, repeatable):
    life = Life(tmp_path, FEW, repeatable)
    with life.open() as ledger:
        for _ in range(2):
            life.answer(ledger)
    first, second = sorted(life.folder.iterdir())
    if damage == "deleted":
        first.unlink()
    elif damage == "changed":
        content = first.read_bytes()
        first.write_bytes(content[:-1] + bytes([content[-1] ^ 255]))
    elif damage == "emptied":
        first.write_bytes(b"")
    else:
        shutil.copy(second, first)
    seen = []
    with life.open() as ledger:
        with pytest.raises(BudgetExhausted):
            while True:
                seen.append(life.answer(ledger))
        assert ledger.uses("few") == life.charges() == 3
    assert len(seen) == 2


def written(path: Path, run: str, release: Release, use: int, content: bytes) -> None:
    """Writes a kept answer's file by hand, with the digest that belongs there."""
    answers = Answers(path.parent, False, run)
    path.write_bytes(answers._bound(release, use, content) + content)


def npy(values: np.ndarray) -> bytes:
    text = io.BytesIO()
    np.save(text, values)
    return text.getvalue()


@pytest.mark.parametrize("foreign", ["another run's", "another use's", "another release's", "no .npy", "whole numbers"])
@pytest.mark.parametrize("noted", [False, True])
def test_a_file_that_is_not_of_this_run_and_use_is_passed_over(tmp_path, capsys, foreign, noted):
    """Where the ledger says that the use was answered, it stays spent; else nobody has seen an answer of it."""
    life, nine = Life(tmp_path, FEW), npy(np.full((2, 3), 9, np.float32))
    with life.open() as ledger:
        life.answer(ledger)
    (path,) = life.folder.iterdir()
    given = {
        "another run's": ("b", FEW, 1, nine),
        "another use's": ("", FEW, 2, nine),
        "another release's": ("", dataclasses.replace(FEW, name="other"), 1, nine),
        "no .npy": ("", FEW, 1, b"nine"),
        "whole numbers": ("", FEW, 1, npy(np.full((2, 3), 9))),
    }[foreign]
    written(path, *given)
    if not noted:
        lines = life.path.read_bytes().splitlines(keepends=True)
        life.path.write_bytes(b"".join(line for line in lines if b"answered" not in line))
    with life.open() as ledger:
        assert float(life.answer(ledger).max()) != 9
        assert ledger.uses("few") == life.charges() == (2 if noted else 1)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"notice: the kept answer {path} is damaged, or of another run or use")


def test_an_answer_whose_charge_the_ledger_has_lost_is_refused(tmp_path):
    """As where a ledger was cut: a second answer would come of the use, and one charge would be shown for both."""
    life = Life(tmp_path, FEW)
    with life.open() as ledger:
        answers = [life.answer(ledger) for _ in range(2)]
    whole = life.path.read_bytes()
    for lost in (whole[life.since.size :], whole[whole.index(b'{"charge": "few", "use": 2') :]):
        life.path.write_bytes(whole.removesuffix(lost))
        before = life.path.read_bytes()
        with pytest.raises(UserError, match="that the ledger never charged: the ledger was cut"):
            life.open()
        assert life.path.read_bytes() == before
    life.path.write_bytes(whole)
    with life.open() as ledger:
        assert all(torch.equal(life.answer(ledger), answer) for answer in answers)


def test_a_foreign_file_for_a_use_that_was_never_charged_is_passed_over(tmp_path, capsys):
    life = Life(tmp_path, FEW)
    with life.open() as ledger:
        life.answer(ledger)
        (first,) = life.folder.iterdir()
    path = first.with_name(first.name.replace("-1", "-2"))
    written(path, "b", FEW, 2, npy(np.full((2, 3), 9, np.float32)))
    with life.open() as ledger:
        answers = [life.answer(ledger) for _ in range(2)]
        assert ledger.uses("few") == life.charges() == 2
    assert float(answers[1].max()) != 9
    assert "of another run" in capsys.readouterr().err
    with life.open() as ledger:
        assert all(torch.equal(life.answer(ledger), answer) for answer in answers)


def test_a_kept_answer_of_another_shape_is_refused_in_one_line(tmp_path):
    life = Life(tmp_path, FEW)
    with life.open() as ledger:
        life.answer(ledger)
    (path,) = life.folder.iterdir()
    lines = life.path.read_bytes().splitlines(keepends=True)
    life.path.write_bytes(b"".join(line for line in lines if b"answered" not in line))
    written(path, "", FEW, 1, npy(np.zeros((1, 3), np.float32)))
    with life.open() as ledger, pytest.raises(UserError, match=r"holds an answer \[1, 3\] where \[2, 3\] is asked for"):
        life.answer(ledger)


def test_the_kept_answers_of_a_run_are_not_those_of_another_begun_alike(tmp_path, capsys):
    """Two folders of one plan and the same records, with secret noise: neither is given an answer of the other."""
    for name in ("a", "b"):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            patch.setattr(checkpoint, "save", stop)
            train.train(merf(), toy_records(), tmp_path / name, CPU, secret_noise=True)
    (theirs,), (ours,) = (list((tmp_path / name / "private" / "answers").iterdir()) for name in ("a", "b"))
    shutil.copy(theirs, ours)
    with pytest.raises(UserError, match="start again"):
        train.train(merf(), toy_records(), tmp_path / "b", CPU, secret_noise=True)
    assert "another run" in capsys.readouterr().err


def test_a_release_of_many_uses_keeps_no_answers_and_grants_none_again(tmp_path):
    life = Life(tmp_path, dataclasses.replace(FEW, max_uses=MOST + 1))
    with life.open() as ledger:
        life.answer(ledger)
    with life.open() as ledger:
        life.answer(ledger)
        assert ledger.uses("few") == life.charges() == 2
    assert not life.folder.exists()


@pytest.mark.parametrize("uses", [1, 2, 19, 25, 26, 640, 1000, 1001, 8000, 10**6])
def test_what_a_kill_may_lose_is_a_25th_at_most_and_nothing_where_answers_are_kept(uses):
    assert unsaved(FEW.used(uses)) == (uses // 25 if uses > 1000 else 0)


@pytest.mark.parametrize("secret", [False, True])
@pytest.mark.parametrize("where", [(Answers, "_store"), (checkpoint, "save")])
def test_a_run_of_one_release_outlives_a_kill_between_its_charge_and_its_checkpoint(tmp_path, where, secret):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(*where, stop)
        train.train(merf(), toy_records(), tmp_path / "run", CPU, secret_noise=secret)
    record = train.train(merf(), toy_records(), tmp_path / "run", CPU, secret_noise=secret)
    assert record["steps_done"] == record["steps_planned"] == 3
    assert (tmp_path / "run" / "ledger.jsonl").read_text().count('"charge"') == 1
    assert not (tmp_path / "run" / "private" / "answers").exists()
    if not secret:
        train.train(merf(), toy_records(), tmp_path / "straight", CPU)
        generators = [(tmp_path / name / "generator.safetensors").read_bytes() for name in ("run", "straight")]
        assert generators[0] == generators[1]


def test_a_run_whose_one_answer_is_deleted_is_not_given_another(tmp_path):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint, "save", stop)
        train.train(merf(), toy_records(), tmp_path, CPU, secret_noise=True)
    shutil.rmtree(tmp_path / "private" / "answers")
    for _ in range(2):
        with pytest.raises(UserError, match="start again"):
            train.train(merf(), toy_records(), tmp_path, CPU, secret_noise=True)
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize(
    ("few", "secret"), [(1000, False), (1000, True), (30, True), pytest.param(30, False, marks=pytest.mark.slow)]
)
def test_three_kills_lose_a_25th_each_at_most_and_repeat_no_answer(tmp_path, monkeypatch, few, secret):
    """All answers of a use that any of the processes saw are equal; with few uses, each is kept."""
    monkeypatch.setattr(answers, "FEW", few)
    unrehearsed(monkeypatch)
    steps = 60
    seen: dict[int, list[np.ndarray]] = {}
    cls, kills = registry.load("gs_wgan"), 0
    whole = cls.step

    def watched(self, t, data, ledger):
        charge = ledger.charge

        def recorded(name):
            return Recorded(charge(name), seen)

        with monkeypatch.context() as patch:
            patch.setattr(ledger, "charge", recorded)
            values = whole(self, t, data, ledger)
        if t + 1 in deaths:
            deaths.remove(t + 1)
            raise Killed
        return values

    monkeypatch.setattr(cls, "step", watched)
    deaths = [steps // 4, steps // 2, steps * 3 // 4]
    while True:
        try:
            record = train.train(gan(steps), toy_records(), tmp_path, CPU, secret_noise=secret)
            break
        except Killed:
            kills += 1
    assert kills == 3
    assert steps - record["steps_done"] <= (0 if few >= steps else 3 * steps // 25)
    assert all(np.array_equal(each[0], other) for each in seen.values() for other in each)
    charged = Counter(line for line in (tmp_path / "ledger.jsonl").read_text().split('"') if line == "charge")
    assert charged["charge"] == steps and set(seen) <= set(range(1, steps + 1))
    if few >= steps and not secret:
        # The steps that were given their answers again drew what they had drawn.
        train.train(gan(steps), toy_records(), tmp_path / "straight", CPU)
        one, other = ((folder / "generator.safetensors").read_bytes() for folder in (tmp_path, tmp_path / "straight"))
        assert one == other


def test_a_checkpoint_on_the_way_through_kept_answers_loses_none_of_those_to_come(tmp_path):
    """The second process stores one at each step and is killed long before it comes to where the first one was."""
    for death, seconds in ((20, 1e9), (6, 0)):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            killed_at(patch, "gs_wgan", death)
            train.train(gan(24), toy_records(), tmp_path, CPU, checkpoint_seconds=seconds, secret_noise=True)
    kept = {int(path.stem.partition("-")[2]) for path in (tmp_path / "private" / "answers").iterdir()}
    assert kept == set(range(7, 21))
    record = train.train(gan(24), toy_records(), tmp_path, CPU, secret_noise=True)
    assert record["steps_done"] == 24
    assert (tmp_path / "ledger.jsonl").read_text().count('"charge"') == 24


class Recorded:
    """A grant's context that notes each answer by the number of its use."""

    def __init__(self, context, seen: dict[int, list[np.ndarray]]) -> None:
        self.context, self.seen = context, seen

    def __enter__(self):
        grant = self.context.__enter__()
        noisy: Callable[[torch.Tensor], torch.Tensor] = grant._noisy

        def noted(answer: torch.Tensor) -> torch.Tensor:
            given = noisy(answer)
            self.seen.setdefault(grant._use, []).append(given.numpy().copy())
            return given

        grant._noisy = noted
        return grant

    def __exit__(self, *error):
        return self.context.__exit__(*error)
