"""A rehearsal finds what cannot work before a run charges anything, and leaves no trace in one that can."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from toys import CPU, TINY_DPAC, TINY_GAN, TOY, toy_records, unrehearsed

from methods.__main__ import main
from methods.core import registry
from methods.core.privacy.ledger import BudgetExhausted, Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import Budget, PublicSpec
from methods.core.runs import rehearsal, train, warm_start
from methods.core.runs.plan import Plan
from workflow.common.errors import UserError
from workflow.common.files import read_json, write_json, write_npz

# Of an infinite epsilon no noise need be found, which takes longer than all else here.
FREE = Budget(float("inf"), 1e-5, "none")
MERF = {"features": 32, "steps": 3, "batch_size": 10, "hidden": 8, "channels": 4}
WARM = TINY_GAN | {"warm_start_steps": 1, "num_shards": 2}


def planned(method: str = "dp_merf", public: PublicSpec = TOY, **hyper) -> Plan:
    base = {"dp_merf": MERF, "gs_wgan": TINY_GAN, "dpac": TINY_DPAC}.get(method, {})
    return Plan.make(method, "run", base | hyper, public, FREE, seed=0)


def broken(monkeypatch, method: str, name: str, error: Exception | None = None, result: object = None) -> None:
    """Lets a method's function fail, or return something else."""

    def instead(*_):
        if error is not None:
            raise error
        return result

    monkeypatch.setattr(registry.load(method), name, instead)


@pytest.mark.parametrize(
    ("name", "error", "result", "says"),
    [
        ("prepare", RuntimeError("mat1 and mat2\nshapes"), None, "RuntimeError: mat1 and mat2 shapes"),
        ("step", IndexError("index 10 is out of bounds"), None, "IndexError: index 10 is out of bounds"),
        ("step", MemoryError("9 TiB"), None, "MemoryError: 9 TiB"),
        ("step", None, None, "`step` must return a dict of numbers for the log, got NoneType"),
        ("step", None, {"loss": torch.ones(2, 3)}, "for the log; 'loss' is of type Tensor [2, 3]"),
        ("step", None, {"loss": "small"}, "for the log; 'loss' is of type str"),
        ("prepare", BudgetExhausted("all 1 uses of release sums are spent"), None, "are spent before the first step"),
        ("step", BudgetExhausted("all 1 uses of release sums are spent"), None, "or declare more max_uses"),
        ("sample", ZeroDivisionError("division by zero"), None, "ZeroDivisionError: division by zero"),
        ("sample", None, torch.zeros(2, 1, 28, 28), r"must return uint8 [2, 1, 28, 28], got torch.float32"),
        ("sample", None, torch.zeros(2, 28, 28, dtype=torch.uint8), "got torch.uint8 [2, 28, 28]"),
        ("private_state", None, {"target": {"mean": np.float64(1.0)}}, "private_state['target']['mean'] is"),
        ("public_state", None, {"weights": "none"}, "AttributeError: 'str' object has no attribute 'detach'"),
    ],
)
def test_a_failure_is_one_line_with_the_method_and_the_shape_and_charges_nothing(
    monkeypatch, tmp_path, name, error, result, says
):
    broken(monkeypatch, "dp_merf", name, error, result)
    with pytest.raises(UserError) as refusal:
        train.train(planned(), toy_records(), tmp_path / "run", CPU)
    told = str(refusal.value)
    assert "\n" not in told and says in told and told.endswith("nothing was charged")
    assert "dp_merf cannot train on toy, 60 images 1x28x28 in 10 classes" in told and ".py line" in told
    assert not (tmp_path / "run").exists()


def test_a_budget_that_ends_after_a_step_and_numbers_of_any_library_are_in_good_order(monkeypatch):
    rows = iter([{"loss": torch.ones(()), "count": np.int64(3), "rate": 0.1, "last": torch.ones(1)}])

    def step(*_):
        if (row := next(rows, None)) is None:
            raise BudgetExhausted("all uses are spent")
        return row

    monkeypatch.setattr(registry.load("dp_merf"), "step", step)
    rehearsal.rehearse(planned(), CPU)


def test_the_command_says_it_and_leaves_no_folder(monkeypatch, tmp_path, capsys):
    broken(monkeypatch, "dp_merf", "step", RuntimeError("no kernel"))
    write_json(tmp_path / "plan.json", planned().to_dict())
    images = np.zeros((60, 1, 28, 28), np.uint8)
    write_npz(tmp_path / "train.npz", images=images, labels=np.arange(60) % 10)
    files = ["--plan", str(tmp_path / "plan.json"), "--data", str(tmp_path / "train.npz")]
    assert main(["train", *files, "--out", str(tmp_path / "run"), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: dp_merf cannot train on toy") and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_no_record_is_read_and_no_ledger_opened(monkeypatch):
    def never(*_, **__):
        raise AssertionError

    monkeypatch.setattr(Ledger, "open", never)
    monkeypatch.setattr(PrivateData, "_keyed", never)
    for method in ("dp_merf", "gs_wgan", "dpac"):
        rehearsal.rehearse(planned(method), CPU)


def test_a_run_ends_as_it_would_without_one(monkeypatch, tmp_path):
    plan, state = planned("dpac", classifier_start=2), torch.get_rng_state()
    train.train(plan, toy_records(), tmp_path / "with", CPU)
    assert torch.equal(torch.get_rng_state(), state)
    unrehearsed(monkeypatch)
    train.train(plan, toy_records(), tmp_path / "without", CPU)
    for name in ("generator.safetensors", "log.csv", "ledger.jsonl"):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()


def test_a_run_that_goes_on_is_not_rehearsed_again(monkeypatch, tmp_path):
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        unrehearsed(patch)
        broken(patch, "gs_wgan", "step", RuntimeError("killed"))
        train.train(planned("gs_wgan"), toy_records(), tmp_path, CPU)
    monkeypatch.setattr(train, "rehearse", lambda *_: pytest.fail("rehearsed"))
    assert train.train(planned("gs_wgan"), toy_records(), tmp_path, CPU)["steps_done"] == 4


@pytest.mark.parametrize(
    ("method", "hyper", "player"),
    [
        ("dp_cgan", {"steps": 50, "batch_size": 6, "hidden": 4, "generator_every": 50}, "_generator_step"),
        ("dpgan", {"steps": 50, "batch_size": 6, "dim": 2, "latent": 2, "generator_every": 50}, "_generator_step"),
        ("dpac", TINY_DPAC | {"steps": 50, "classifier_start": 49}, "_classifier"),
        ("dpac", TINY_DPAC | {"steps": 50, "classifier_start": 49, "released_batch": 2, "as_released": True},
         "_classifier"),
    ],
)  # fmt: skip
def test_what_comes_late_in_a_run_is_rehearsed_as_well(monkeypatch, method, hyper, player):
    plan = planned(method, **hyper)
    broken(monkeypatch, method, player, RuntimeError("a late failure"))
    with pytest.raises(UserError, match="a late failure"):
        rehearsal.rehearse(plan, CPU)


def test_random_records_are_read_as_the_real_ones_but_cost_next_to_nothing():
    public = dataclasses.replace(TOY, num_train=50_000, num_classes=70)
    data = rehearsal.RandomRecords(planned("dp_cgan", public, steps=2, batch_size=512))
    ledger = rehearsal.FreeLedger(planned("dp_cgan", public, steps=2, batch_size=512).releases)
    assert len(data) == 50_000
    with ledger.charge("discriminator_gradient") as grant:
        drawn = grant.poisson_batch(len(data))
        images, labels = data.read(grant, drawn)
        assert 400 < len(images) < 620 and images.dtype == torch.uint8 and images.shape[1:] == (1, 28, 28)
        assert int(labels.max()) == 69
        for index in (-1, 50_000):
            with pytest.raises(IndexError, match=r"outside 0 \.\. 49999"):
                data.read(grant, [index])
    with pytest.raises(Exception, match="without an open grant"):
        data.read(grant, [0])
    assert len(rehearsal.RandomRecords(planned("dp_merf", public))) == 64


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: None, "no folder was given"),
        (lambda folder: folder / "elsewhere", "it has no done.json"),
        (lambda folder: folder if write_json(folder / "done.json", {}) is None else None, "of other settings, None"),
        (lambda folder: folder if write_json(
            folder / "done.json", read_json(folder / "done.json") | {"seed": 1}) is None else None, "of other seed, 1"),
    ],
)  # fmt: skip
def test_a_warm_start_that_is_not_the_runs_is_refused_before_anything_is_charged(tmp_path, change, says):
    plan = planned("gs_wgan", **WARM)
    critics = warm_start.prepared(plan, toy_records(), CPU, tmp_path / "warm", None)
    warm_start.check(plan, critics, toy_records())
    with pytest.raises(UserError) as refusal:
        train.train(plan, toy_records(), tmp_path / "run", CPU, change(critics))
    assert says in str(refusal.value) and "python -m methods warm-start" in str(refusal.value)
    assert not (tmp_path / "run").exists()


def test_a_warm_start_that_cannot_be_removes_none_that_is_there(tmp_path):
    plan = planned("gs_wgan", **WARM)
    critics = warm_start.prepared(plan, toy_records(), CPU, tmp_path, None)
    before = {path.name: path.read_bytes() for path in critics.iterdir()}
    wanted = warm_start.wanted(plan)
    for method, wrong in itertools.chain(
        (("gs_wgan", wanted | change) for change in ({"warm_start_steps": -1}, {"num_shards": 61}, {"sards": 2})),
        [("dp_merf", wanted)],
    ):
        with pytest.raises(UserError):
            warm_start.make(method, wrong, TOY, toy_records(), 0, CPU, critics)
    assert {path.name: path.read_bytes() for path in critics.iterdir()} == before
    assert json.loads(before["done.json"])["settings"] == wanted
