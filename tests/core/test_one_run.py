"""A ledger, a checkpoint and what a run was begun with belong to one run: whatever else is put beside them is refused.

A refusal is one line that says what is wrong, and changes nothing.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from toys import CPU, TINY_GAN, TOY, Killed, killed_at, toy_records

from methods.core.release import Budget
from methods.core.runs import checkpoint, outputs, train, warm_start
from methods.core.runs.plan import Plan
from workflow.common.errors import UserError
from workflow.common.files import write_json

STEPS = 26


@functools.cache
def planned(**changes) -> Plan:
    """Returns the plan of the runs here, with other fields; those of `hyper` are given by a mapping."""
    if not changes:
        return Plan.make("gs_wgan", "run", TINY_GAN | {"steps": STEPS}, TOY, Budget(10.0, 1e-5, "published"), seed=0)
    return replace(planned(), **changes)


def tuned(**hyper) -> Plan:
    return planned(hyper=replace(planned().hyper, **hyper))


def noisier() -> Plan:
    return planned(releases=(replace(planned().releases[0], noise=9.0),))


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def killed(folder: Path, plan: Plan, step: int | None, secret: bool = False) -> None:
    """Trains until `step`, or until the first checkpoint is to be stored, which it is not."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        if step is None:
            patch.setattr(checkpoint, "save", lambda *_: (_ for _ in ()).throw(Killed))
        else:
            killed_at(patch, "gs_wgan", step)
        train.train(plan, toy_records(), folder, CPU, checkpoint_seconds=0, secret_noise=secret)


@pytest.fixture(scope="module")
def halves(tmp_path_factory) -> dict[str, Path]:
    """Runs that were killed: after 12 steps; before the first checkpoint; and another seed's after 12 steps."""
    root = tmp_path_factory.mktemp("halves")
    killed(root / "stored", planned(), 12)
    killed(root / "begun", planned(), None)
    killed(root / "other", planned(seed=1), 12)
    return {name: root / name for name in ("stored", "begun", "other")}


def refused(folder: Path, says: str, plan: Plan | None = None, **arguments) -> None:
    before, data = contents(folder), arguments.pop("data", None) or toy_records()
    with pytest.raises(UserError, match=says) as error:
        train.train(plan or planned(), data, folder, CPU, **arguments)
    assert "\n" not in str(error.value)
    assert contents(folder) == before


def first_line(content: bytes) -> bytes:
    return content[: content.index(b"\n") + 1]


# What happens to a ledger, as bytes of another ledger; "begun" has nothing but a first line.
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut to its first line": first_line,
    "cut to one byte": lambda content: content[:1],
    "cut in its first line": lambda content: first_line(content)[:-9],
    "filled with NULs": lambda content: bytes(len(content)),
    "emptied": lambda content: b"",
    "older": lambda content: b"".join(content.splitlines(keepends=True)[:8]),
    "another number in the middle": lambda content: content.replace(b'"use": 5', b'"use": 1'),
    "another noise in its first line": lambda content: content.replace(b'"noise": ', b'"noise": 9'),
    "a line taken out": lambda content: b"".join(
        line for number, line in enumerate(content.splitlines(keepends=True)) if number != 4
    ),
    "two lines exchanged": lambda content: b"".join(
        content.splitlines(keepends=True)[number] for number in (0, 2, 1, *range(3, content.count(b"\n")))
    ),
    "NULs in the middle": lambda content: content[:600] + bytes(40) + content[640:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_ledger_that_is_not_what_its_checkpoint_was_made_with_is_refused(halves, tmp_path, damage):
    shutil.copytree(halves["stored"], tmp_path / "run")
    ledger = tmp_path / "run" / "private" / "ledger.jsonl"
    changed = DAMAGES[damage](ledger.read_bytes())
    assert changed != ledger.read_bytes()
    ledger.write_bytes(changed)
    refused(tmp_path / "run", "does not hold what it held")


@pytest.mark.parametrize("damage", ["cut to one byte", "cut in its first line", "filled with NULs", "emptied"])
def test_a_ledger_without_a_first_line_is_refused_before_the_first_checkpoint_too(halves, tmp_path, damage):
    """A charge may have followed it: only before a run is begun is such a line written anew."""
    shutil.copytree(halves["begun"], tmp_path / "run")
    ledger = tmp_path / "run" / "private" / "ledger.jsonl"
    ledger.write_bytes(DAMAGES[damage](ledger.read_bytes()))
    refused(tmp_path / "run", "does not hold what it held")


@pytest.mark.parametrize("half", ["stored", "begun"])
def test_a_ledger_that_is_gone_is_not_begun_anew(halves, tmp_path, half):
    shutil.copytree(halves[half], tmp_path / "run")
    (tmp_path / "run" / "private" / "ledger.jsonl").unlink()
    refused(tmp_path / "run", "ledger is gone")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ledger.jsonl", "does not hold what it held"),
        ("checkpoint.pt", "is of another run"),
        ("begun.json", "was begun with seed 1, now 0"),
    ],
)
def test_a_file_of_another_run_is_refused_though_as_much_was_charged_there(halves, tmp_path, name, says):
    shutil.copytree(halves["stored"], tmp_path / "run")
    shutil.copy(halves["other"] / "private" / name, tmp_path / "run" / "private" / name)
    refused(tmp_path / "run", says)


def test_a_run_whose_begin_is_gone_is_refused(halves, tmp_path):
    shutil.copytree(halves["stored"], tmp_path / "run")
    (tmp_path / "run" / "private" / "begun.json").unlink()
    refused(tmp_path / "run", "begun.json is gone")
    (tmp_path / "run" / "private" / "checkpoint.pt").unlink()
    refused(tmp_path / "run", "begun.json is gone")


@pytest.mark.parametrize("half", ["stored", "begun"])
@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (lambda: planned(seed=1), "was begun with seed 0, now 1"),
        (lambda: tuned(critic_steps=2), r"was begun with hyper\.critic_steps 1, now 2: continue"),
        (lambda: tuned(generator_width=3), r"hyper\.generator_width 2, now 3"),
        (lambda: tuned(steps=49, clip=0.25), r"hyper\.steps 26, now 49, hyper\.clip [\d.]+, now 0\.25: continue"),
        (lambda: planned(budget=Budget(10.0, 2e-5, "published")), "delta 1e-05, now 2e-05"),
        (lambda: planned(budget=Budget(11.0, 1e-5, "published")), "epsilon 10.0, now 11.0"),
        (lambda: planned(run="a_name"), 'run "run", now "a_name"'),
        (lambda: planned(public=replace(TOY, num_train=61)), r"public\.num_train 60, now 61"),
        (noisier, "release .* of noise .*, now 9.0"),
        (lambda: planned(releases=()), "1 releases, now 0"),
    ],
)  # fmt: skip
def test_a_half_run_with_another_setting_is_refused_by_its_name(halves, tmp_path, half, plan, says):
    shutil.copytree(halves[half], tmp_path / "run")
    refused(tmp_path / "run", says, plan())


@pytest.mark.parametrize("half", ["stored", "begun"])
def test_a_half_run_with_other_records_of_the_same_shape_or_other_noise_is_refused(halves, tmp_path, half):
    shutil.copytree(halves[half], tmp_path / "run")
    refused(tmp_path / "run", "other training records", data=toy_records(changed=59))
    refused(tmp_path / "run", "begun with reproducible noise, now secret", secret_noise=True)


def test_a_folder_that_was_copied_whole_continues(halves, tmp_path):
    for half in ("stored", "begun"):
        shutil.copytree(halves[half], tmp_path / half)
        record = train.train(planned(), toy_records(), tmp_path / half, CPU)
        assert record["steps_done"] == STEPS


def test_an_older_copy_of_a_run_put_back_over_the_finished_one_is_refused(halves, tmp_path):
    """It would be charged less than was spent, with other noise if that is secret."""
    train.train(planned(), toy_records(), tmp_path / "run", CPU)
    shutil.rmtree(tmp_path / "run" / "private")
    shutil.copytree(halves["stored"] / "private", tmp_path / "run" / "private")
    refused(tmp_path / "run", "beside one in progress", again=True)


def test_a_first_line_cut_short_is_written_anew_where_nothing_was_begun(halves, tmp_path):
    whole = first_line((halves["begun"] / "private" / "ledger.jsonl").read_bytes())
    for number, left in enumerate((b"", whole[:1], whole[:-1], whole, bytes(200))):
        folder = tmp_path / str(number)
        (folder / "private").mkdir(parents=True)
        (folder / "private" / "ledger.jsonl").write_bytes(left)
        killed(folder, planned(), 1)
        assert (folder / "private" / "ledger.jsonl").read_bytes().startswith(whole)


def test_a_run_of_another_version_in_progress_is_refused(halves, tmp_path):
    """Its ledger is not chained, and nothing says what it was begun with."""
    shutil.copytree(halves["stored"], tmp_path / "run")
    ledger = tmp_path / "run" / "private" / "ledger.jsonl"
    records = [json.loads(line) for line in ledger.read_text().splitlines()]
    ledger.write_text("".join(json.dumps({k: v for k, v in one.items() if k != "chain"}) + "\n" for one in records))
    (tmp_path / "run" / "private" / "begun.json").unlink()
    refused(tmp_path / "run", "another version")


def test_two_processes_do_not_train_in_one_folder(halves, tmp_path, monkeypatch):
    shutil.copytree(halves["stored"], tmp_path / "run")
    seen = []

    def second(*arguments):
        refused(tmp_path / "run", "in use by another process")
        seen.append(True)
        raise Killed

    monkeypatch.setattr(train.TrainingLoop, "restore", second)
    with pytest.raises(Killed):
        train.train(planned(), toy_records(), tmp_path / "run", CPU)
    assert seen


def test_critics_of_other_records_do_not_begin_a_run(tmp_path):
    """Whether or not the card says which records they are."""
    plan = tuned(warm_start_steps=1)
    made = {}
    for changed, digest in ((None, "a"), (7, "b"), (7, "b"), (9, None), (11, None), (11, None)):
        folder = warm_start.prepared(plan, toy_records(changed), CPU, tmp_path, digest)
        made.setdefault(changed, set()).add((folder / "done.json").stat().st_mtime_ns)
    assert [len(each) for each in made.values()] == [1] * 4 and len(set.union(*made.values())) == 4


def test_critics_of_other_records_are_refused_by_their_folder(tmp_path):
    """Before a run and where it goes on."""
    plan = tuned(warm_start_steps=1)
    folders = [warm_start.prepared(plan, toy_records(one), CPU, tmp_path / str(one), None) for one in (3, 4)]
    with pytest.raises(UserError, match="of other training records"):
        train.train(plan, toy_records(3), tmp_path / "run", CPU, folders[1])
    assert not (tmp_path / "run").exists()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, "gs_wgan", 2)
        train.train(plan, toy_records(3), tmp_path / "run", CPU, folders[0], checkpoint_seconds=0)
    refused(tmp_path / "run", "other training records", plan, data=toy_records(3), warm_start=folders[1])
    for name, says in (("records", "other training records"), ("seed", "other seed"), ("settings", "other settings")):
        done = json.loads((folders[0] / "done.json").read_text())
        done.pop(name)
        (folders[1] / "done.json").write_text(json.dumps(done))
        refused(tmp_path / "run", says, plan, data=toy_records(3), warm_start=folders[1])


@pytest.mark.parametrize("harm", ["exchanged", "gone"])
def test_critics_that_were_exchanged_since_they_were_made_begin_and_continue_no_run(tmp_path, harm):
    """Other critics of the same shape would train another generator in silence."""
    plan, data = tuned(warm_start_steps=1), toy_records()
    folder, other = (warm_start.prepared(plan, data, CPU, tmp_path / name, None) for name in "ab")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, "gs_wgan", 2)
        train.train(plan, data, tmp_path / "run", CPU, folder, checkpoint_seconds=0)
    path = next(folder.glob("*.safetensors"))
    kept = load_file(path)
    path.unlink()
    if harm == "exchanged":
        save_file({name: value + 0.5 for name, value in kept.items()}, path)
    says = f"{path.name} {'was changed or exchanged' if harm == 'exchanged' else 'is gone'}"
    refused(tmp_path / "run", says, plan, data=data, warm_start=folder)
    with pytest.raises(UserError, match=says):
        train.train(plan, data, tmp_path / "new", CPU, warm_start.prepared(plan, data, CPU, tmp_path / "a", None))
    assert not (tmp_path / "new").exists()
    # Those of an earlier version tell of no files.
    done = json.loads((other / "done.json").read_text())
    write_json(other / "done.json", {name: value for name, value in done.items() if name != "files"})
    train.train(plan, data, tmp_path / "run", CPU, other)


@pytest.fixture
def second(halves, tmp_path) -> tuple[Path, Path]:
    """A folder whose second training was killed at its third step, and what the first one had left in private/end/."""
    folder = tmp_path / "second"
    train.train(planned(), toy_records(), folder, CPU, secret_noise=True)
    shutil.copytree(folder / "private" / "end", tmp_path / "end")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, "gs_wgan", 3)
        train.train(planned(), toy_records(), folder, CPU, checkpoint_seconds=0, secret_noise=True, again=True)
    return folder, tmp_path / "end"


def test_an_earlier_end_that_is_put_back_is_not_the_end_of_the_run_in_progress(second, tmp_path):
    """It was begun alike, with the same records: published, it would refund what the second training has charged."""
    folder, end = second
    shutil.copytree(end, folder / "private" / "end")
    refused(folder, "private/end is of another run", secret_noise=True)
    with pytest.raises(UserError, match="private/end is of another run"):
        outputs.restore(folder, planned())
    shutil.copytree(folder, tmp_path / "lost")
    (tmp_path / "lost" / "private" / "begun.json").unlink()
    refused(tmp_path / "lost", r"begun\.json is gone", secret_noise=True)
    before = contents(tmp_path / "lost")
    outputs.restore(tmp_path / "lost", planned())
    assert contents(tmp_path / "lost") == before
    shutil.rmtree(folder / "private" / "end")
    record = train.train(planned(), toy_records(), folder, CPU, secret_noise=True)
    assert (record["steps_done"], record["earlier_runs"]) == (STEPS, 1)
    # Nor is it that of the finished second run.
    shutil.rmtree(folder / "private" / "end")
    shutil.copytree(end, folder / "private" / "end")
    for name in ("log.csv", "ledger.jsonl"):
        (folder / name).unlink()
        refused(folder, "private/end is of another run", secret_noise=True)
        with pytest.raises(UserError, match="private/end is of another run"):
            outputs.restore(folder, planned())


def test_a_checkpoint_or_a_private_folder_of_an_earlier_run_begun_alike_is_refused(halves, tmp_path):
    """In a reproducible run their ledgers are equal, byte for byte: the runs are told apart by their names alone."""
    shutil.copytree(halves["stored"], tmp_path / "first")
    shutil.copytree(halves["stored"], tmp_path / "run")
    train.train(planned(), toy_records(), tmp_path / "run", CPU)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, "gs_wgan", 12)
        train.train(planned(), toy_records(), tmp_path / "run", CPU, checkpoint_seconds=0, again=True)
    ledgers = [(tmp_path / name / "private" / "ledger.jsonl").read_bytes() for name in ("first", "run")]
    assert ledgers[0] == ledgers[1]
    shutil.copytree(tmp_path / "run", tmp_path / "mixed")
    shutil.copy(tmp_path / "first" / "private" / "checkpoint.pt", tmp_path / "mixed" / "private")
    refused(tmp_path / "mixed", "is of another run")
    shutil.rmtree(tmp_path / "run" / "private")
    shutil.copytree(tmp_path / "first" / "private", tmp_path / "run" / "private")
    refused(tmp_path / "run", "ledgers of 1 earlier runs, .* begun after 0")


def test_the_end_of_a_run_in_another_folder_that_was_begun_alike_is_refused(halves, tmp_path):
    """No count of earlier runs tells them apart, and no ledger: only their names do."""
    shutil.copytree(halves["stored"], tmp_path / "other")
    train.train(planned(), toy_records(), tmp_path / "other", CPU)
    killed(tmp_path / "run", planned(), 2)
    shutil.copytree(tmp_path / "other" / "private" / "end", tmp_path / "run" / "private" / "end")
    refused(tmp_path / "run", "private/end is of another run")
    with pytest.raises(UserError, match="private/end is of another run"):
        outputs.restore(tmp_path / "run", planned())
    assert not (tmp_path / "run" / "ledger.jsonl").exists()
