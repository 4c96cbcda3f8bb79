"""The training command: what it writes, how it survives a kill, and how it says no."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from toys import CPU, TINY_GAN, TOY, Killed, killed_at, toy_records, unrehearsed

from methods.__main__ import main
from methods.core import registry
from methods.core.privacy import answers
from methods.core.privacy.ledger import Ledger
from methods.core.release import Budget
from methods.core.runs import checkpoint, train
from methods.core.runs.plan import Plan
from workflow.common.contracts import load_images
from workflow.common.errors import UserError
from workflow.common.files import write_json, write_npz

GAN = TINY_GAN | {"steps": 6}
MERF = {"features": 32, "steps": 3, "batch_size": 10, "hidden": 8, "channels": 4}


def planned(method: str = "gs_wgan", **overrides) -> Plan:
    hyper = {**(GAN if method == "gs_wgan" else MERF), **overrides}
    return Plan.make(method, "run", hyper, TOY, Budget(10.0, 1e-5, "published"), seed=0)


def lines(folder):
    return [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]


def test_a_finished_run_has_its_files_and_a_ledger_line_for_each_use(tmp_path):
    record = train.train(planned(), toy_records(), tmp_path, CPU)
    assert record["steps_done"] == record["steps_planned"] == 6
    assert sum("charge" in line for line in lines(tmp_path)) == 6
    assert record["eps_published"] == pytest.approx(10, rel=1e-2)
    assert record["eps_sound"] > record["eps_published"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "generator.safetensors", "ledger.jsonl", "log.csv", "private", "run.json",
    }  # fmt: skip
    assert [path.name for path in (tmp_path / "private").iterdir()] == ["end"]


def test_the_log_holds_no_times_which_would_tell_how_many_records_a_step_drew(tmp_path):
    train.train(planned(), toy_records(), tmp_path, CPU)
    header, *rows = (tmp_path / "log.csv").read_text().splitlines()
    assert header == "step,noisy_gradient_norm" and len(rows) == 6


@pytest.mark.parametrize(("value", "told"), [(float("nan"), True), (float("inf"), True), (0.0, False)])
def test_a_generator_that_is_not_finite_is_told_as_diverged(tmp_path, monkeypatch, capsys, value, told):
    monkeypatch.setattr(registry.load("gs_wgan"), "public_state", lambda _: {"weight": torch.tensor([1.0, value])})
    unrehearsed(monkeypatch)
    train.train(planned(), toy_records(), tmp_path, CPU)
    assert ("holds NaN or an infinity: training has diverged" in capsys.readouterr().err) is told


def test_figures_from_private_data_stay_in_the_private_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(registry.load("gs_wgan"), "private_report", lambda self, delta: {"eps_data_dependent": 1.25})
    train.train(planned(), toy_records(), tmp_path, CPU)
    assert json.loads((tmp_path / "private" / "report.json").read_text())["eps_data_dependent"] == 1.25
    public = [path for path in tmp_path.iterdir() if path.suffix in (".json", ".jsonl", ".csv")]
    assert public and not [path for path in public if "data_dependent" in path.read_text()]


def test_a_killed_run_continues_from_its_checkpoint_to_the_generator_of_the_straight_run(tmp_path, monkeypatch):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    train.train(planned(), toy_records(), straight, CPU)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, "gs_wgan", 4)
        train.train(planned(), toy_records(), broken, CPU, checkpoint_seconds=0)
    assert not (broken / "run.json").exists()
    train.train(planned(), toy_records(), broken, CPU)
    assert (straight / "generator.safetensors").read_bytes() == (broken / "generator.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("took", "passed", "due"), [(0.1, 121, True), (0.1, 119, False), (60, 1199, False), (60, 1201, True)]
)
def test_a_checkpoint_of_gigabytes_comes_as_much_more_rarely_as_it_takes_longer(monkeypatch, took, passed, due):
    loop = object.__new__(train.TrainingLoop)
    loop.checkpoint_seconds, loop.answers, loop.releases = 120, SimpleNamespace(size=0), ()
    loop.saved, loop.storing = 1000.0, took
    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=lambda: 1000.0 + passed))
    assert loop._is_due(None) == due


def test_teachers_whose_moments_are_there_from_the_start_need_no_room_for_twice_as_much_again(tmp_path, monkeypatch):
    asked, sizes, whole = [], [], checkpoint.save
    monkeypatch.setattr(checkpoint.os, "posix_fallocate", lambda number, start, size: asked.append(size))

    def save(folder, *others):
        whole(folder, *others)
        sizes.append(checkpoint.checkpoint_path(folder).stat().st_size)

    monkeypatch.setattr(checkpoint, "save", save)
    hyper = {"steps": 3, "num_teachers": 10, "hidden": 40, "teacher_network": "mlp", "width": 4, "top_k": 5}
    budget = Budget(10.0, 1e-5, "published")
    train.train(Plan.make("datalens", "run", hyper, TOY, budget, seed=0), toy_records(), tmp_path, CPU)
    assert max(sizes) <= asked[0] < 1.5 * sizes[0]


def test_uses_after_the_last_checkpoint_stay_spent_and_shorten_the_run_by_a_25th_at_most(tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "FEW", 74)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, "gs_wgan", 35)
        train.train(planned(steps=75), toy_records(), tmp_path, CPU)
    record = train.train(planned(steps=75), toy_records(), tmp_path, CPU)
    assert (record["steps_done"], record["steps_planned"]) == (73, 75)
    assert sum("charge" in line for line in lines(tmp_path)) == 75
    assert record["eps_published"] <= 10


def test_what_preparing_released_survives_a_kill_right_after_it(tmp_path, monkeypatch):
    cls = registry.load("dp_merf")
    with monkeypatch.context() as patch, pytest.raises(Killed):

        def stop(*_):
            raise Killed

        unrehearsed(patch)
        patch.setattr(cls, "step", stop)
        train.train(planned("dp_merf"), toy_records(), tmp_path, CPU)
    record = train.train(planned("dp_merf"), toy_records(), tmp_path, CPU)
    assert record["steps_done"] == 3
    assert sum("charge" in line for line in lines(tmp_path)) == 1


def test_a_terminated_run_stores_a_checkpoint_at_the_end_of_its_step(tmp_path, monkeypatch):
    straight, ended = tmp_path / "straight", tmp_path / "ended"
    train.train(planned(), toy_records(), straight, CPU)
    cls = registry.load("gs_wgan")
    whole = cls.step

    def terminated(self, t, data, ledger):
        if t == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(self, t, data, ledger)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as exit_:
        patch.setattr(cls, "step", terminated)
        train.train(planned(), toy_records(), ended, CPU)
    assert exit_.value.code == 128 + signal.SIGTERM
    assert train.train(planned(), toy_records(), ended, CPU)["steps_done"] == 6
    assert (straight / "generator.safetensors").read_bytes() == (ended / "generator.safetensors").read_bytes()


def test_what_a_killed_process_was_writing_goes_with_the_next_call_even_where_it_is_refused(tmp_path):
    """Names as `atomic` gives them; the process that wrote them is gone, so nobody holds them."""
    left = [tmp_path / ".run.abcd1234.writing.json", tmp_path / "private" / ".checkpoint.ab_d1234.writing.pt"]
    train.train(planned(), toy_records(), tmp_path, CPU)
    for path in left:
        path.write_bytes(b"half")
    with pytest.raises(UserError, match="finished run"):
        train.train(planned(), toy_records(), tmp_path, CPU)
    assert not any(path.exists() for path in left)


def test_a_failure_after_training_spends_nothing_again(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):

        def stop(*_):
            raise Killed

        patch.setattr(train, "_finish", stop)
        train.train(planned(), toy_records(), tmp_path, CPU)
    assert train.train(planned(), toy_records(), tmp_path, CPU)["steps_done"] == 6


def test_runs_of_different_plans_never_share_their_noise(monkeypatch, tmp_path):
    keys = set()
    whole = Ledger.open

    def seen(path, releases, budget, resume, noise_key, **run):
        keys.add(noise_key)
        return whole(path, releases, budget, resume, noise_key, **run)

    monkeypatch.setattr(Ledger, "open", seen)
    for number, (epsilon, steps) in enumerate(((1.0, 3), (10.0, 3), (10.0, 2))):
        plan = Plan.make("dp_merf", "run", MERF | {"steps": steps}, TOY, Budget(epsilon, 1e-5, "sound"), seed=0)
        train.train(plan, toy_records(), tmp_path / str(number), CPU)
    assert len(keys) == 3


def test_an_over_budget_plan_is_refused_before_any_read(tmp_path):
    class NoData:
        def read(self, *_):
            raise AssertionError("data was read")

    plan = planned()
    (release,) = plan.releases
    over = replace(plan, releases=(release.used(100 * release.max_uses),))
    with pytest.raises(UserError, match="over the budget"):
        train.train(over, NoData(), tmp_path, CPU)


def test_samples_are_balanced_and_drawn_from_the_stored_generator(tmp_path):
    plan = planned()
    write_json(tmp_path / "plan.json", plan.to_dict())
    train.train(plan, toy_records(), tmp_path, CPU)
    for name in ("a.npz", "b.npz"):
        assert main(["sample", "--run", str(tmp_path), "--num", "25", "--out", str(tmp_path / name)]) == 0
    samples = load_images(tmp_path / "a.npz")
    assert samples.images.shape == (25, 1, 28, 28)
    assert sorted(set(torch.bincount(torch.from_numpy(samples.labels)).tolist())) == [2, 3]
    assert (samples.images == load_images(tmp_path / "b.npz").images).all()


def card(folder):
    fields = {"dataset": "toy", "image_shape": [1, 28, 28], "num_classes": 10, "splits": {"train": {"count": 60}}}
    write_json(folder / "card.json", fields)
    return str(folder / "card.json")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--method", "gan"], "unknown method 'gan'; did you mean 'dpgan'? valid: "),
        (["--method", "dpac", "--epsilon", "0"], "epsilon must be a number above 0"),
        (["--method", "dpac", "--hyper", '{"stepps": 3}'], "hyper-parameter of dpac 'stepps'; did you mean 'steps'? "),
        (["--method", "dpac", "--hyper", '{"steps": 0}'], "dpac.steps must be 1 to 10000000, got 0"),
        (["--method", "dpac", "--paper"], "no published setting of dpac for toy at epsilon 10; valid: mnist"),
        (["--method", "dpac", "--hyper", '{"steps": "many"}'], "dpac.steps must be of type int, got 'many'"),
        (["--method", "dpac", "--accounting", "honest"], "unknown accounting 'honest'; valid: none, published, sound"),
        (["--method", "nonprivate"], "nonprivate has no privacy"),
        (["--method", "dpac", "--card", "nowhere.json"], "no such file: nowhere.json"),
    ],
)
def test_bad_input_to_plan_is_one_line_and_exit_code_2(tmp_path, capsys, arguments, says):
    rest = ["--card", card(tmp_path), "--epsilon", "10", "--out", str(tmp_path / "plan.json")]
    kept = [value for pair in zip(rest[::2], rest[1::2], strict=True) if pair[0] not in arguments for value in pair]
    assert main(["plan", *arguments, *kept]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert says in error
    assert not (tmp_path / "plan.json").exists()


def test_data_that_does_not_match_the_plan_is_refused(tmp_path, capsys):
    write_json(tmp_path / "plan.json", planned().to_dict())
    images, labels = torch.zeros(50, 1, 28, 28, dtype=torch.uint8), torch.zeros(50, dtype=torch.int64)
    write_npz(tmp_path / "train.npz", images=images.numpy(), labels=labels.numpy())
    arguments = ["--plan", str(tmp_path / "plan.json"), "--data", str(tmp_path / "train.npz"), "--out", str(tmp_path)]
    assert main(["train", *arguments]) == 2
    assert "50 images" in capsys.readouterr().err
