"""DP-GAN-DPAC as its authors released it: what it declares, that it is refused, and what it does when allowed."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from toys import CPU, TINY_DPAC, TOY, Killed, killed_at, toy_images, toy_records, without_noise

from methods import dpac
from methods.__main__ import main
from methods.core import registry
from methods.core.accounting.calibration import epsilon
from methods.core.method import Context
from methods.core.privacy.grant import Grant
from methods.core.privacy.ledger import BudgetExhausted, Ledger
from methods.core.privacy.noise import clip_rows
from methods.core.release import Budget, PublicSpec
from methods.core.runs import train
from methods.core.runs.plan import Plan
from methods.core.sharded import gan
from methods.core.sharded.interface import RELEASE
from methods.core.sharded.losses import image_gradients
from workflow.common.errors import UserError
from workflow.common.files import write_json, write_npz

REFERENCE = json.loads((Path(__file__).parents[1] / "privacy/reference.json").read_text())
TINY = TINY_DPAC | {"steps": 6, "classifier_start": 2, "as_released": True, "released_batch": 8}
BUDGET = Budget(10.0, 1e-5, "published", over_budget=True)


def planned(budget: Budget = BUDGET, **overrides) -> Plan:
    return Plan.make("dpac", "dpac_as_released", TINY | overrides, TOY, budget, seed=0)


def releases(budget: Budget = BUDGET, **overrides):
    return registry.load("dpac").plan(registry.hyper("dpac", TINY | overrides), TOY, budget)


def start(folder: Path, budget: Budget = BUDGET, **overrides):
    made = registry.load("dpac")(
        registry.hyper("dpac", TINY | overrides), Context(TOY, releases(budget, **overrides), 0, CPU)
    )
    ledger = Ledger.open(folder / "ledger.jsonl", made.context.releases, budget, noise_key=b"0")
    made.prepare(toy_records(), ledger)
    return made, ledger


@pytest.mark.parametrize(
    ("dataset", "count", "noise", "accounting"),
    [("mnist", 60_000, 1.07, "published"), ("mnist", 60_000, 1.07, "sound"), ("celeba", 162_770, 0.61135, "sound")],
)
def test_the_published_setting_declares_what_the_released_code_does(dataset, count, noise, accounting):
    (row,) = [
        row for row in REFERENCE
        if row["name"] == f"dpac-{dataset}-as-run" and row["accounting"] == accounting
        and (accounting == "published" or row["releases"][0].get("state") == "hidden")
    ]  # fmt: skip
    hp = registry.hyper("dpac", registry.paper_settings("dpac", dataset, 10.0) | {"as_released": True})
    found = registry.load("dpac").plan(hp, PublicSpec(dataset, (3, 32, 32), 2, count), Budget(10.0, 1e-5, "published"))
    for release, expected in zip(found, row["releases"], strict=True):
        assert release.noise == pytest.approx(noise, rel=0.003)
        assert {name: getattr(release, name) for name in ("rows", "max_uses", "bounded", "sampling")} == {
            name: expected[name] for name in ("rows", "max_uses", "bounded", "sampling")
        }
        assert release.rate == pytest.approx(expected["rate"])
        assert (release.draws, release.state) == ("per_step", "hidden")
    at_their_noise = [dataclasses.replace(release, noise=noise) for release in found]
    assert epsilon(at_their_noise, row["delta"], accounting) == pytest.approx(row["epsilon"], abs=row["tolerance"])


def test_the_noise_is_that_of_the_plan_which_the_authors_count():
    (counted,) = releases(as_released=False)
    assert (counted.rows, counted.max_uses) == (3, 6)
    for parts in (releases(), releases(classifier_start=0), releases(classifier_start=9)):
        assert {part.noise for part in parts} == {counted.noise}
        assert sum(part.max_uses for part in parts) == 6
    assert [part.rows for part in releases(classifier_start=0)] == [16]
    assert releases(classifier_start=9) == (counted,)


def test_an_empty_batch_is_refused():
    with pytest.raises(UserError, match="released_batch must be 1 to 16384, got 0"):
        releases(released_batch=0)


def test_the_plan_is_refused_by_default_before_there_is_a_ledger(tmp_path):
    refused = dataclasses.replace(BUDGET, over_budget=False)
    with pytest.raises(UserError, match="over the budget of 10"):
        Ledger.open(tmp_path / "ledger.jsonl", releases(), refused)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="over the budget of 10"):
        train.train(dataclasses.replace(planned(), budget=refused), toy_records(), tmp_path, CPU)


def command(folder: Path, *more: str) -> int:
    card = {"dataset": "toy", "image_shape": [1, 28, 28], "num_classes": 10, "splits": {"train": {"count": 60}}}
    write_json(folder / "card.json", card)
    return main(
        ["plan", "--method", "dpac", "--run", "dpac_as_released", "--hyper", json.dumps(TINY), "--epsilon", "10",
         "--accounting", "published", "--card", str(folder / "card.json"), "--out", str(folder / "plan.json"), *more]
    )  # fmt: skip


def test_planning_refuses_in_one_line_that_names_the_opt_in(tmp_path, capsys):
    assert command(tmp_path) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the plan costs epsilon ") and error.count("\n") == 1
    assert "over the budget of 10 at delta 1e-05" in error
    assert "over_budget: true" in error and "--over-budget" in error
    assert not (tmp_path / "plan.json").exists()


def test_with_the_opt_in_a_run_is_trained_and_its_files_show_both_costs(tmp_path):
    assert command(tmp_path, "--over-budget") == 0
    write_npz(tmp_path / "train.npz", images=toy_images().numpy(), labels=(torch.arange(60) % 10).numpy())
    arguments = ["--plan", str(tmp_path / "plan.json"), "--data", str(tmp_path / "train.npz"), "--out", str(tmp_path)]
    assert main(["train", *arguments, "--device", "cpu"]) == 0
    made, record = (json.loads((tmp_path / name).read_text()) for name in ("plan.json", "run.json"))
    assert made["over_budget"] is record["over_budget"] is True
    assert (record["epsilon"], record["accounting"], record["steps_done"]) == (10.0, "published", 6)
    for count in ("published", "sound"):
        assert record[f"eps_{count}"] == made[f"eps_{count}"] == epsilon(releases(), 1e-5, count) > 12
    header, *charges = map(json.loads, (tmp_path / "ledger.jsonl").read_text().splitlines())
    assert header["budget"]["over_budget"] is True
    assert [line["charge"] for line in charges if "charge" in line] == [RELEASE] * 2 + [dpac.BOTH] * 4


def test_other_runs_files_do_not_mention_it(tmp_path):
    plan = planned(Budget(10.0, 1e-5, "published"), as_released=False)
    record = train.train(plan, toy_records(), tmp_path, CPU)
    ledger = json.loads((tmp_path / "ledger.jsonl").read_text().splitlines()[0])
    assert not [part for part in (plan.to_dict(), record, ledger["budget"]) if "over_budget" in part]


def sanitised(made, ledger, monkeypatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Returns the rows that each remaining step hands to its grant, and what it gets back."""
    seen, whole = [], Grant.rows

    def watched(self, rows):
        answer = whole(self, rows)
        seen.append((rows, answer))
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(Grant, "rows", watched)
        for t in range(6):
            made.step(t, toy_records(), ledger)
    return seen


def test_the_batch_grows_once_the_classifier_joins_and_no_further_use_is_granted(tmp_path, monkeypatch):
    made, ledger = start(tmp_path)
    assert [len(rows) for rows, _ in sanitised(made, ledger, monkeypatch)] == [3, 3, 16, 16, 16, 16]
    with pytest.raises(BudgetExhausted):
        made.step(6, toy_records(), ledger)


def test_no_step_repeats_the_draws_of_another(tmp_path, monkeypatch):
    keys = []
    whole = gan.named_rng
    monkeypatch.setattr(gan, "named_rng", lambda *names: keys.append(names) or whole(*names))
    made, ledger = start(tmp_path)
    for t in range(6):
        made.step(t, toy_records(), ledger)
    assert len(keys) == len(set(keys)) == 6


@pytest.mark.parametrize("clip", [1e-3, 1e3])
def test_both_nets_gradients_are_weighted_then_clipped_apart(tmp_path, monkeypatch, clip):
    # Without noise, what comes back is the clipped rows.
    without_noise(monkeypatch)
    made, ledger = start(tmp_path, classifier_start=0, clip=clip)
    parts = []

    def watched(net, *rest):
        parts.append(image_gradients(net, *rest).flatten(1))
        return parts[-1].view(8, 1, 28, 28)

    for module in (gan, dpac):
        monkeypatch.setattr(module, "image_gradients", watched)
    norm = made.step(0, toy_records(), ledger)["noisy_gradient_norm"]
    of_critic, of_classifier = parts
    apart = [clip_rows(0.8 * of_critic, clip, "gaussian"), clip_rows(0.2 * of_classifier, clip, "gaussian")]
    assert norm == pytest.approx(float((apart[0] + apart[1]).norm(dim=1).mean()), rel=1e-4)
    if clip < 1:
        together = clip_rows(0.8 * of_critic + 0.2 * of_classifier, clip, "gaussian")
        assert norm != pytest.approx(float(together.norm(dim=1).mean()), rel=1e-2)


def test_each_net_gets_noise_of_its_own(tmp_path, monkeypatch):
    made, ledger = start(tmp_path, classifier_start=0, released_batch=50)
    _, answer = sanitised(made, ledger, monkeypatch)[0]
    (release,) = made.context.releases
    critic, classifier = answer.split(50)
    for half in (critic, classifier):
        assert float(half.std()) == pytest.approx(2 * release.clip * release.noise, rel=0.03)
    # Independent: the sum of the halves is sqrt(2) as noisy, not twice, and their correlation is chance.
    assert float((critic + classifier).std()) == pytest.approx(math.sqrt(2) * release.scale, rel=0.03)


def test_the_generator_gets_the_mean_over_the_larger_batch_of_the_summed_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(Grant, "rows", lambda self, rows: torch.arange(len(rows)).float()[:, None].expand_as(rows))
    made, ledger = start(tmp_path, classifier_start=0)
    received = []
    monkeypatch.setattr(torch.Tensor, "backward", lambda self, gradient=None: received.append(gradient))
    made.step(0, toy_records(), ledger)
    (gradient,) = [value for value in received if value is not None]
    assert gradient.shape == (8, 1, 28, 28)
    assert torch.allclose(gradient[:, 0, 0, 0], (torch.arange(8) + torch.arange(8, 16)) / 8)


@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_killed_run_continues_to_the_generator_of_the_straight_run(tmp_path, monkeypatch, step):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    train.train(planned(), toy_records(), straight, CPU)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, "dpac", step)
        train.train(planned(), toy_records(), broken, CPU, checkpoint_seconds=0)
    train.train(planned(), toy_records(), broken, CPU)
    assert (straight / "generator.safetensors").read_bytes() == (broken / "generator.safetensors").read_bytes()


@pytest.mark.parametrize(("lost", "kept"), [(1, 5), (4, 2)])
def test_uses_lost_in_a_crash_shorten_the_run_and_leave_the_classifiers_phase_to_be_done(
    tmp_path, monkeypatch, lost, kept
):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, "dpac", lost)
        train.train(planned(), toy_records(), tmp_path, CPU)
    shutil.rmtree(tmp_path / "private" / "answers")
    rows, whole = [], Grant.rows
    monkeypatch.setattr(Grant, "rows", lambda self, given: rows.append(len(given)) or whole(self, given))
    record = train.train(planned(), toy_records(), tmp_path, CPU)
    assert rows == ([3] + [16] * 4)[-kept:]
    charges = [json.loads(line).get("charge") for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert record["steps_done"] == kept
    assert (charges.count(RELEASE), charges.count(dpac.BOTH)) == (2, 4)
