"""DataLens and G-PATE as their authors released them: teachers that share moments, what that costs, and who refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from teacher_runs import BUDGET, PUBLIC, TINY, build, check_same, first_round, hold_answers, records, trained

from methods.__main__ import main
from methods.core import registry
from methods.core.accounting.calibration import epsilon
from methods.core.privacy.grant import Grant
from methods.core.privacy.ledger import Ledger
from methods.core.release import Budget, PublicSpec, Release
from methods.core.runs.plan import Plan
from workflow.common.errors import UserError
from workflow.common.files import write_json

SETTINGS = {"datalens": {"top_k": 20}, "g_pate": {"projected": 3, "bins": 4, "threshold": 0.3}}
# Six teachers on two networks: three of a slot.
RELEASED = {"as_released": True, "released_slots": 2}
MNIST = PublicSpec("mnist", (1, 28, 28), 10, 60_000)
METHODS = sorted(SETTINGS)


def release(method: str, **overrides) -> Release:
    hp = registry.hyper(method, TINY | SETTINGS[method] | overrides)
    (found,) = registry.load(method).plan(hp, PUBLIC, BUDGET)
    return found


@pytest.mark.parametrize(("method", "sigma", "teachers"), [("datalens", 800, 4000), ("g_pate", 100, 2000)])
def test_the_published_setting_has_the_authors_noise_and_costs_thousands(method, sigma, teachers):
    paper = registry.paper_settings(method, "mnist", 10.0)
    budget = Budget(10.0, 1e-5, "published", over_budget=True)
    own, shared = (
        Plan.make(method, method, paper | {"as_released": released}, MNIST, budget, 0) for released in (False, True)
    )
    for plan in (own, shared):
        assert plan.releases[0].scale == pytest.approx(sigma, rel=0.01)
        assert plan.hyper.teacher_network == "conv_norm" and plan.hyper.num_teachers == teachers
    assert own.costs["published"] == pytest.approx(10, rel=1e-3) and own.costs["sound"] < 9
    # The noise is for one teacher, and a slot's teachers move together.
    assert shared.costs["published"] > shared.costs["sound"] > 5000
    assert shared.releases[0].rows == shared.hyper.released_slots == 50


@pytest.mark.parametrize("method", METHODS)
def test_a_slot_is_a_row_of_as_many_times_the_weight_at_the_same_noise(method):
    own, shared = release(method), release(method, **RELEASED)
    assert shared.scale == pytest.approx(own.scale)
    assert (shared.bounded, shared.rows, shared.clip) == ("sum", 2, pytest.approx(3 * own.clip))
    assert (shared.answers, shared.max_uses, shared.kind) == (own.answers, own.max_uses, own.kind)
    assert epsilon([shared], 1e-5, "sound") > 2 * epsilon([own], 1e-5, "sound")


def unclipped(monkeypatch) -> None:
    monkeypatch.setattr(Grant, "sum", lambda grant, chunks, **_: torch.cat([rows.double() for rows in chunks]))
    monkeypatch.setattr(Grant, "votes", lambda grant, choices, bins: choices)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("chunk", [None, 1])
def test_rows_are_the_sums_of_each_slots_teachers_and_fit_the_clip(method, chunk, monkeypatch):
    unclipped(monkeypatch)
    made = build(method, **SETTINGS[method], **RELEASED)
    made._teachers._chunk = chunk
    current, grant = first_round(made), object.__new__(Grant)
    if method == "datalens":
        each = torch.cat(list(made._signs(current))).double()
        kept = []
        monkeypatch.setattr(Grant, "sum", lambda grant, chunks: kept.extend(chunks) or torch.zeros(4 * 784))
        made._vote(grant, current)
        rows, blocks = kept[0].double(), 784
    else:
        plain = build(method, **SETTINGS[method])
        plain._teachers.load(made._teachers.state())
        monkeypatch.setattr(plain, "_account", lambda choices: None)
        choices = plain._vote(grant, current)
        each = torch.nn.functional.one_hot(choices, 4).double().flatten(1)
        kept = []
        monkeypatch.setattr(Grant, "sum", lambda grant, chunks: kept.extend(chunks) or torch.zeros(4 * 3 * 4))
        made._vote(grant, current)
        rows, blocks = kept[0].double(), 4
    assert torch.equal(rows, torch.stack([each[slot::2].sum(0) for slot in range(2)]))
    norms = rows.unflatten(1, (-1, blocks)).norm(dim=2)
    assert 0 < norms.max() <= made.context.releases[0].clip


def moved(one, other, kind: str) -> list[bool]:
    """Of which teachers (weights) or slots (moments) two runs keep different numbers."""
    pairs = zip(one._teachers.state()[kind].values(), other._teachers.state()[kind].values(), strict=True)
    return torch.stack([(a != b).flatten(1).any(1) for a, b in pairs]).any(0).tolist()


@pytest.mark.parametrize(("network", "memory"), [("mlp", "fp32"), ("conv_norm", "bf16")])
@pytest.mark.parametrize("method", METHODS)
def test_one_record_moves_its_whole_slot_which_the_authors_count_as_one_teacher(
    method, network, memory, tmp_path, monkeypatch
):
    hold_answers(monkeypatch)
    options = SETTINGS[method] | RELEASED | {"teacher_network": network, "teacher_memory": memory}
    one, other = (trained(build(method, **options), records(changed), tmp_path) for changed in (None, 5))
    owner = int((one._teachers._parts == 5).any(dim=1).nonzero())
    assert moved(one, other, "weights") == [i % 2 == owner % 2 for i in range(6)]
    assert moved(one, other, "first") == moved(one, other, "second") == [slot == owner % 2 for slot in range(2)]
    # With each teacher's own moments it is one row of a vote: tests of either method hold that.
    check_same(one.public_state(), other.public_state())


@pytest.mark.parametrize("method", METHODS)
def test_it_trains_resumes_and_reports_no_data_dependent_bound(method, tmp_path):
    straight, interrupted = (
        trained(build(method, **SETTINGS[method], **RELEASED), records(), tmp_path, stop=stop) for stop in (None, 1)
    )
    check_same(straight.private_state(), interrupted.private_state())
    check_same(straight.public_state(), interrupted.public_state())
    assert straight.private_report(1e-5) == {}


def command(folder: Path, method: str, *more: str) -> int:
    card = {"dataset": "toy", "image_shape": [1, 28, 28], "num_classes": 10, "splits": {"train": {"count": 24}}}
    write_json(folder / "card.json", card)
    hyper = TINY | SETTINGS[method] | RELEASED
    return main(
        ["plan", "--method", method, "--hyper", json.dumps(hyper), "--epsilon", "10", "--accounting", "published",
         "--card", str(folder / "card.json"), "--out", str(folder / "plan.json"), *more]
    )  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_planning_refuses_in_one_line_that_names_the_opt_in(method, tmp_path, capsys):
    assert command(tmp_path, method) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the plan costs epsilon ") and error.count("\n") == 1
    assert "over_budget: true" in error and "--over-budget" in error
    assert not (tmp_path / "plan.json").exists()
    assert command(tmp_path, method, "--over-budget") == 0
    stored = json.loads((tmp_path / "plan.json").read_text())
    assert stored["over_budget"] is True and min(stored["eps_published"], stored["eps_sound"]) > 20


@pytest.mark.parametrize("method", METHODS)
def test_a_ledger_refuses_it_without_the_opt_in(method, tmp_path):
    with pytest.raises(UserError, match="over the budget of 10"):
        Ledger.open(tmp_path / "ledger.jsonl", (release(method, **RELEASED),), BUDGET)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("slots", [4, 7, 6_000])
def test_slots_that_teachers_cannot_take_in_turn_are_refused(slots):
    with pytest.raises(UserError, match=f"datalens.released_slots must divide num_teachers, 6, .*; got {slots}"):
        release("datalens", as_released=True, released_slots=slots)


@pytest.mark.parametrize(("batch", "teachers"), [(1, 6), (3, 24)])
def test_batch_norm_over_one_record_which_would_leave_nothing_of_it_is_refused(batch, teachers):
    options = {"teacher_network": "conv_norm", "teacher_batch": batch, "num_teachers": teachers}
    with pytest.raises(UserError, match=r"g_pate.teacher_network conv_norm .* at least 2 records an update, got 1"):
        release("g_pate", **options)
    assert release("g_pate", **options | {"teacher_network": "conv"})


def test_pate_gan_whose_authors_share_nothing_has_no_such_option():
    with pytest.raises(UserError, match="unknown hyper-parameter of pate_gan 'as_released'"):
        registry.hyper("pate_gan", {"as_released": True})


@pytest.mark.parametrize("method", [*METHODS, "pate_gan"])
def test_plans_without_the_new_options_are_as_they_were(method):
    hyper = Plan.make(method, method, TINY | SETTINGS.get(method, {}), PUBLIC, BUDGET, 0).to_dict()["hyper"]
    assert not {"as_released", "released_slots", "teacher_memory", "precision"} & set(hyper)
    for option in ("teacher_memory", "precision"):
        plan = Plan.make(method, method, TINY | SETTINGS.get(method, {}) | {option: "bf16"}, PUBLIC, BUDGET, 0)
        assert plan.to_dict()["hyper"][option] == "bf16"


def test_no_noise_is_none_for_slots_either():
    hp = registry.hyper("datalens", TINY | SETTINGS["datalens"] | RELEASED)
    (found,) = registry.load("datalens").plan(hp, PUBLIC, Budget(math.inf, 1e-5, "none"))
    assert (found.kind, found.scale, found.rows) == ("none", 0.0, 2)
