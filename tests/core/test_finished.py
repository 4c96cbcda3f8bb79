"""A finished run is final: it is trained again by an explicit word alone, and nothing of what it spent is lost."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from toys import CPU, TINY_GAN, TOY, Killed, killed_at, toy_images, toy_records, unrehearsed

from methods.__main__ import main
from methods.core import registry
from methods.core.accounting import calibration
from methods.core.accounting.calibration import epsilon
from methods.core.privacy import ledger as ledger_module
from methods.core.privacy.ledger import Ledger
from methods.core.release import Budget, Release
from methods.core.runs import finished, outputs, train
from methods.core.runs.folder import is_begun, is_complete
from methods.core.runs.plan import Plan
from workflow.common.errors import UserError
from workflow.common.files import write_json, write_npz

# What Snakemake deletes before it makes the outputs of its rule `train` anew.
DECLARED = ("run.json", "log.csv", "generator.safetensors")


def planned(**overrides) -> Plan:
    return Plan.make("gs_wgan", "run", TINY_GAN | overrides, TOY, Budget(10.0, 1e-5, "published"), seed=0)


@pytest.fixture(autouse=True)
def each_cost_is_counted_once(monkeypatch):
    """Or most of the time would go into epsilons of the same uses."""
    for module in (calibration, ledger_module, finished):
        monkeypatch.setattr(module, "epsilon", counted)


@functools.cache
def _counted(releases: tuple[Release, ...], delta: float, accounting: str) -> float:
    return epsilon(releases, delta, accounting)


def counted(releases: Iterable[Release], delta: float, accounting: str) -> float:
    return _counted(tuple(releases), delta, accounting)


@pytest.fixture(scope="module")
def once(tmp_path_factory) -> Path:
    """A folder whose run is finished; tests work on copies of it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train.train(planned(), toy_records(), folder, CPU)
    return folder


@pytest.fixture
def folder(once, tmp_path) -> Path:
    return Path(shutil.copytree(once, tmp_path / "run"))


def again(folder: Path, **settings) -> dict:
    return train.train(planned(), toy_records(), folder, CPU, again=True, **settings)


def command(folder: Path, *more: str) -> int:
    write_json(folder / "plan.json", planned().to_dict())
    write_npz(folder / "train.npz", images=toy_images().numpy(), labels=np.arange(60) % 10)
    return main(["train", "--plan", str(folder / "plan.json"), "--data", str(folder / "train.npz"),
                 "--out", str(folder), *more])  # fmt: skip


def test_training_a_finished_folder_is_refused_in_one_line_that_names_the_cost_and_the_ways_out(folder, capsys):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert command(folder) == 2
    (line,) = capsys.readouterr().err.splitlines()
    spent = json.loads((folder / "run.json").read_text())
    for count in ("published", "sound"):
        assert f"{spent[f'eps_{count}']:.4g} ({count})" in line and f"{2 * spent[f'eps_{count}']:.4g} ({count})" in line
    assert "at delta 1e-05" in line and "at delta 2e-05" in line
    assert "another folder" in line and "--again" in line
    assert all(path.read_bytes() == content for path, content in before.items())


def test_with_the_word_the_run_is_trained_again_and_both_ledgers_are_there(folder, capsys):
    first, spent = (folder / "ledger.jsonl").read_bytes(), json.loads((folder / "run.json").read_text())
    assert command(folder) == 2
    assert command(folder, "--again") == 0
    (notice,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("notice: ")]
    assert "once more" in notice and "noise repeats" in notice
    for count in ("published", "sound"):
        assert f"{2 * spent[f'eps_{count}']:.4g} ({count})" in notice
    record = json.loads((folder / "run.json").read_text())
    assert (folder / "ledger-1.jsonl").read_bytes() == first
    assert (record["earlier_runs"], record["steps_done"]) == (1, 4)
    assert record["earlier_eps_published"] == pytest.approx([spent["eps_published"]])
    assert record["earlier_eps_sound"] == pytest.approx([spent["eps_sound"]])


@pytest.mark.parametrize("deleted", [DECLARED, ("run.json",), ("ledger.jsonl", "log.csv")])
@pytest.mark.parametrize("more", [(), ("--again",)])
def test_a_finished_run_that_lacks_outputs_gets_them_back_and_charges_nothing(folder, capsys, deleted, more):
    """Snakemake deletes the outputs of a job that it did not see end, and calls it again."""
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for name in deleted:
        (folder / name).unlink()
    assert command(folder, *more) == 0
    assert "nothing is trained or charged" in capsys.readouterr().err
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert not list(folder.glob("ledger-*"))


@pytest.mark.parametrize("changed", ["plan", "records", "code"])
def test_other_settings_records_or_code_train_anew_and_count_the_ledger_that_was_deleted(folder, monkeypatch, changed):
    spent = json.loads((folder / "run.json").read_text())
    for name in (*DECLARED, "ledger.jsonl"):
        (folder / name).unlink()
    if changed == "code":
        monkeypatch.setattr(outputs, "_CORE", folder)
    plan, data = planned(steps=4 - (changed == "plan")), toy_records(changed=3 if changed == "records" else None)
    with pytest.raises(UserError, match="finished run"):
        train.train(plan, data, folder, CPU)
    record = train.train(plan, data, folder, CPU, again=True)
    assert record["earlier_eps_sound"] == [spent["eps_sound"]]


def test_a_folder_never_trained_takes_the_word_without_a_notice(tmp_path, capsys):
    assert "earlier_runs" not in again(tmp_path)
    assert "notice" not in capsys.readouterr().err
    assert not list(tmp_path.glob("ledger-*"))


def test_every_earlier_run_is_counted_and_keeps_its_ledger(folder, capsys):
    again(folder)
    record = again(folder)
    assert record["earlier_runs"] == len(record["earlier_eps_sound"]) == 2
    assert {path.name for path in folder.glob("ledger*")} == {"ledger.jsonl", "ledger-1.jsonl", "ledger-2.jsonl"}
    assert "3e-05" in capsys.readouterr().err


def test_the_earlier_run_may_be_of_another_plan(folder):
    before = finished.spent(folder / "ledger.jsonl")
    record = train.train(planned(steps=2), toy_records(), folder, CPU, again=True)
    assert record["earlier_eps_sound"] == [before.costs["sound"]]


def test_an_interrupted_second_training_is_resumed_without_the_word(folder, tmp_path, monkeypatch, capsys):
    straight = (folder / "generator.safetensors").read_bytes()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, "gs_wgan", 2)
        again(folder, checkpoint_seconds=0)
    assert not (folder / "run.json").exists()
    capsys.readouterr()
    record = train.train(planned(), toy_records(), folder, CPU)
    assert (record["steps_done"], record["earlier_runs"]) == (4, 1)
    assert "notice" not in capsys.readouterr().err
    assert (folder / "generator.safetensors").read_bytes() == straight


class Dead(BaseException):
    """Ends a process: nothing catches it."""


class Deadly:
    """Ends the process, as far as a folder's files go, before the n-th time that it opens, renames or removes one."""

    def __init__(self) -> None:
        self.folder, self.left, self.dead = None, 0, False
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.folder is None or event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.link", "os.truncate"):
            return
        if not str(arguments[0]).startswith(self.folder):
            return
        self.left -= 1
        if self.left < 0:
            # Nothing that follows happens either: no clean-up of a dead process.
            self.dead = True
            raise Dead

    def watch(self, folder: Path | None, after: int = 0) -> None:
        """Lets `after` operations on files below `folder` pass, and none later; None ends that."""
        self.left, self.dead, self.folder = after, False, None if folder is None else str(folder)


@pytest.fixture(scope="module")
def deadly():
    # An audit hook stays for the process's life.
    hook = Deadly()
    yield hook
    hook.watch(None)


# Before one operation in so many, or before every one.
@pytest.mark.parametrize("each", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_any_file_operation_of_the_hand_over_loses_nothing(once, tmp_path, monkeypatch, deadly, each):
    monkeypatch.setattr(train, "provenance", dict)
    unrehearsed(monkeypatch)
    first, kills = (once / "ledger.jsonl").read_bytes(), 0
    for operation in range(0, 100, each):
        folder = Path(shutil.copytree(once, tmp_path / f"{operation}"))
        with monkeypatch.context() as patch:
            # The hand-over is over when the first step begins.
            killed_at(patch, "gs_wgan", 0)
            deadly.watch(folder, operation)
            with pytest.raises((Killed, Dead)):
                again(folder)
            reached = not deadly.dead
            deadly.watch(None)
        assert [path.read_bytes() for path in folder.glob("ledger*.jsonl")] == [first]
        if reached:
            break
        kills += 1
        if not is_begun(folder):
            with pytest.raises(UserError, match="finished run"):
                train.train(planned(), toy_records(), folder, CPU)
        record = again(folder)
        assert (record["earlier_runs"], record["steps_done"]) == (1, 4)
        assert (folder / "ledger-1.jsonl").read_bytes() == first
    assert reached and kills * each > 5


@pytest.mark.parametrize("each", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_any_file_operation_of_the_end_leaves_a_run_that_ends_or_is_final(
    tmp_path, monkeypatch, deadly, each
):
    monkeypatch.setattr(train, "provenance", dict)
    unrehearsed(monkeypatch)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train, "_finish", _stop)
        train.train(planned(), toy_records(), tmp_path / "before", CPU, secret_noise=True)
    kills = 0
    for operation in range(0, 100, each):
        folder = Path(shutil.copytree(tmp_path / "before", tmp_path / f"{operation}"))
        with monkeypatch.context() as patch, contextlib.suppress(Dead):
            patch.setattr(train, "_finish", _watched(deadly, folder, operation, train._finish))
            train.train(planned(), toy_records(), folder, CPU, secret_noise=True)
        reached = not deadly.dead
        deadly.watch(None)
        if not is_complete(folder):
            train.train(planned(), toy_records(), folder, CPU, secret_noise=True)
        with pytest.raises(UserError, match="finished run"):
            train.train(planned(), toy_records(), folder, CPU, secret_noise=True)
        # Neither checkpoint nor answers, nor what a dead process had half written.
        assert [path.name for path in (folder / "private").iterdir()] == ["end"]
        assert (folder / "ledger.jsonl").read_text().count('"charge"') == 4
        if reached:
            break
        kills += 1
    assert reached and kills * each > 20


def _stop(*_):
    raise Killed


def _watched(deadly: Deadly, folder: Path, operation: int, finish: Callable) -> Callable:
    def watched(*arguments):
        deadly.watch(folder, operation)
        return finish(*arguments)

    return watched


def test_what_a_ledger_spent_is_what_the_ledger_itself_counts(tmp_path):
    plan = planned()
    (release,) = plan.releases
    with Ledger.open(tmp_path / "a.jsonl", plan.releases, plan.budget) as ledger:
        for _ in range(2):
            with ledger.charge(release.name):
                pass
        with ledger.internal("reading"):
            pass
        for count, cost in finished.spent(tmp_path / "a.jsonl").costs.items():
            assert cost == ledger.epsilon(count)
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write('{"charge": "ima')
    with Ledger.open(tmp_path / "a.jsonl", plan.releases, plan.budget, resume=True) as ledger:
        assert ledger.uses(release.name) == 3
        for count, cost in finished.spent(tmp_path / "a.jsonl").costs.items():
            assert cost == ledger.epsilon(count)


def test_uses_that_a_ledger_reserved_count_as_spent(tmp_path):
    releases = (planned().releases[0].used(1000),)
    budget = Budget(1e6, 1e-5, "published")
    with Ledger.open(tmp_path / "a.jsonl", releases, budget) as ledger, ledger.charge(releases[0].name):
        pass
    five = epsilon([releases[0].used(5)], 1e-5, "sound")
    assert finished.spent(tmp_path / "a.jsonl").costs["sound"] == five


def test_a_published_ledger_that_was_changed_is_not_believed(folder):
    """A charge taken out of the middle would be a refund."""
    path = folder / "ledger.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:2] + whole[3:]))
    with pytest.raises(UserError, match="line 3 does not follow"):
        finished.spent(path)


def test_a_published_ledger_of_an_earlier_version_is_still_counted(folder):
    """Its lines carry no digests."""
    path, costs = folder / "ledger.jsonl", finished.spent(folder / "ledger.jsonl").costs
    records = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in one.items() if k != "chain"}) + "\n" for one in records))
    assert finished.spent(path).costs == costs


def test_a_file_that_is_no_ledger_is_not_taken_for_a_free_run(folder):
    (folder / "ledger.jsonl").write_text("lost\n")
    with pytest.raises(UserError, match=r"ledger.jsonl is not the ledger that the run which ended there left"):
        again(folder)
    shutil.rmtree(folder / "private")
    with pytest.raises(UserError, match=r"cannot tell what .*ledger.jsonl spent"):
        again(folder)
    assert (folder / "ledger.jsonl").read_text() == "lost\n"


def test_a_ledger_that_was_cut_or_is_gone_beside_its_record_is_no_free_run(folder):
    lines = (folder / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "ledger.jsonl").write_bytes(lines[0])
    # No edit of the one reaches the other copy.
    assert (folder / "private" / "end" / "ledger.jsonl").read_bytes() == b"".join(lines)
    shutil.rmtree(folder / "private")
    for call in (again, lambda folder: train.train(planned(), toy_records(), folder, CPU)):
        with pytest.raises(UserError, match=r"shows epsilon 0 .*run.json beside it"):
            call(folder)
    (folder / "ledger.jsonl").unlink()
    shutil.rmtree(folder / "private", ignore_errors=True)
    with pytest.raises(UserError, match="of a finished run without its ledger"):
        train.train(planned(), toy_records(), folder, CPU)


@pytest.mark.parametrize("count", ["published", "sound"])
def test_a_record_that_tells_of_less_than_its_ledger_is_not_passed_over(folder, count):
    record = json.loads((folder / "run.json").read_text())
    write_json(folder / "run.json", record | {f"eps_{count}": record[f"eps_{count}"] * 0.999})
    with pytest.raises(UserError, match=rf"run.json tells of epsilon .*\({count}\).*the record was changed"):
        train.train(planned(), toy_records(), folder, CPU)


def test_a_record_need_not_tell_of_uses_that_were_only_reserved(tmp_path):
    """They count after a restart of the machine alone."""
    releases = (planned().releases[0].used(1000),)
    with Ledger.open(tmp_path / "ledger.jsonl", releases, Budget(1e6, 1e-5, "published")) as ledger:
        with ledger.charge(releases[0].name):
            pass
        write_json(tmp_path / "run.json", {f"eps_{count}": ledger.epsilon(count) for count in ("published", "sound")})
    assert '"reserve"' in (tmp_path / "ledger.jsonl").read_text()
    finished.check_record(tmp_path)


@pytest.mark.parametrize("plan", [4, 3])
def test_a_ledger_that_was_cut_is_put_back_where_the_whole_one_is_kept(folder, plan):
    """Also where another plan follows, whose record tells of the run before, and Snakemake has deleted run.json."""
    whole, spent = (folder / "ledger.jsonl").read_bytes(), json.loads((folder / "run.json").read_text())["eps_sound"]
    (folder / "ledger.jsonl").write_bytes(whole.splitlines(keepends=True)[0])
    (folder / "run.json").unlink()
    record = train.train(planned(steps=plan), toy_records(), folder, CPU, again=True)
    if plan == 4:
        assert (folder / "ledger.jsonl").read_bytes() == whole and record["eps_sound"] == spent
    else:
        assert (folder / "ledger-1.jsonl").read_bytes() == whole and record["earlier_eps_sound"] == [spent]


def test_ledgers_of_earlier_runs_that_were_cut_or_are_gone_are_refused(folder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, "gs_wgan", 2)
        again(folder, checkpoint_seconds=0)
    kept = folder / "ledger-1.jsonl"
    whole, cut = kept.read_bytes(), kept.read_bytes().splitlines(keepends=True)[0]
    kept.write_bytes(cut)
    with pytest.raises(UserError, match=r"other ledgers of earlier runs.*cut, changed or exchanged"):
        train.train(planned(), toy_records(), folder, CPU)
    kept.write_bytes(whole)
    train.train(planned(), toy_records(), folder, CPU)
    kept.write_bytes(cut)
    with pytest.raises(UserError, match=r"ledger-1.jsonl shows epsilon 0 .*run.json beside it"):
        again(folder)
    kept.unlink()
    (folder / "run.json").unlink()
    with pytest.raises(UserError, match=r"the ledgers of 0 earlier runs, and .* came after 1"):
        train.train(planned(steps=3), toy_records(), folder, CPU, again=True)


def test_the_notice_counts_the_cost_of_a_plan_anew(folder, capsys):
    cheap = dataclasses.replace(planned(), costs={"published": 1e-3, "sound": 1e-3})
    spent = finished.spent(folder / "ledger.jsonl").costs["sound"]
    train.train(cheap, toy_records(), folder, CPU, again=True)
    assert f"{2 * spent:.4g} (sound)" in capsys.readouterr().err


def test_an_earlier_runs_ledger_is_not_taken_for_the_lost_one_of_the_last(folder, tmp_path):
    shutil.copytree(folder / "private" / "end", tmp_path / "end")
    again(folder)
    (folder / "ledger.jsonl").unlink()
    shutil.rmtree(folder / "private")
    with pytest.raises(UserError, match="of a finished run without its ledger"):
        again(folder)
    (folder / "run.json").unlink()
    shutil.copytree(tmp_path / "end", folder / "private" / "end")
    with pytest.raises(UserError, match="private/end is of another run"):
        train.train(planned(steps=3), toy_records(), folder, CPU, again=True)
    assert [path.name for path in folder.glob("ledger*")] == ["ledger-1.jsonl"]


def test_a_ledger_that_was_saved_over_during_the_run_is_not_published(tmp_path, monkeypatch):
    """As an editor does: another file of that name, with what stood there when it was opened."""
    step = registry.load("gs_wgan").step

    def saved_over(method, t, data, ledger):
        values, path = step(method, t, data, ledger), tmp_path / "private" / "ledger.jsonl"
        if t == 1:
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content)
        return values

    unrehearsed(monkeypatch)
    monkeypatch.setattr(registry.load("gs_wgan"), "step", saved_over)
    with pytest.raises(UserError, match="cut, changed or replaced"):
        train.train(planned(), toy_records(), tmp_path, CPU)
    assert not (tmp_path / "run.json").exists() and not (tmp_path / "ledger.jsonl").exists()


def test_a_run_without_a_budget_says_that_no_epsilon_holds(tmp_path, capsys):
    plan = Plan.make("nonprivate", "run", TINY_GAN | {"num_shards": 1}, TOY, Budget(float("inf"), 1e-5, "none"), 0)
    train.train(plan, toy_records(), tmp_path, CPU)
    record = train.train(plan, toy_records(), tmp_path, CPU, again=True)
    assert record["earlier_eps_sound"] == ["inf"]
    assert "epsilon inf (published) and inf (sound)" in capsys.readouterr().err
