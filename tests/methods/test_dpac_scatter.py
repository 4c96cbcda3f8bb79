"""DPAC on scattering features: who shares the budget, who reads records when, and what the generator learns."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from toys import Killed, unrehearsed

from methods.core import registry
from methods.core.accounting.calibration import epsilon
from methods.core.method import Context
from methods.core.privacy.ledger import BudgetExhausted, Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import Budget, PublicSpec
from methods.core.rng import named_rng
from methods.core.runs.plan import Plan
from methods.core.runs.train import train
from methods.core.scattering.judge import Judge
from methods.dpac_scatter import DPACScatter
from workflow.common.errors import UserError

FREE, TEN, ONE = Budget(math.inf, 1e-5, "none"), Budget(10.0, 1e-5, "sound"), Budget(1.0, 1e-5, "sound")
CPU = torch.device("cpu")
SMALL = {
    "classifier_steps": 3, "steps": 4, "batch_size": 8, "width": 4, "splits": 0, "classifier_rate": 0.5,
    "least_probability": 0.0,
    "least_strength": 1.0,
}  # fmt: skip


def spec(count: int, shape: tuple[int, int, int] = (1, 16, 16), classes: int = 2) -> PublicSpec:
    return PublicSpec("toy", shape, classes, count)


def build(public: PublicSpec, budget: Budget = FREE, seed: int = 0, **overrides: object) -> DPACScatter:
    hp = registry.hyper("dpac_scatter", SMALL | overrides)
    return DPACScatter(hp, Context(public, DPACScatter.plan(hp, public, budget), seed, CPU))


def stripes(count: int) -> PrivateData:
    """Class 0 has fine stripes that lie, class 1 stripes that stand, each at any phase: no Gaussian draws such."""
    rng, labels = named_rng(0, "stripes"), torch.arange(count) % 2
    phase = 2 * math.pi * torch.rand(count, 1, 1, generator=rng)
    waves = 0.5 + 0.4 * torch.cos(0.6 * math.pi * torch.arange(16.0)[None, :, None] + phase).expand(-1, 16, 16)
    images = torch.where((labels == 0)[:, None, None], waves, waves.mT)
    return PrivateData((255 * images[:, None]).to(torch.uint8), labels)


class Closed:
    """Records that nobody may read."""

    def __len__(self) -> int:
        raise AssertionError("records were counted")

    def read(self, *_: object) -> None:
        raise AssertionError("records were read")


def trained(
    method: DPACScatter, data: PrivateData, folder: Path, budget: Budget = FREE, last: int | None = None
) -> list[dict[str, float]]:
    with Ledger.open(folder / "ledger.jsonl", method.context.releases, budget, noise_key=b"3") as ledger:
        method.prepare(data, ledger)
        return [method.step(t, data, ledger) for t in range(method.num_steps if last is None else last)]


# The plan.


@pytest.mark.parametrize("budget", [TEN, ONE])
def test_the_players_share_the_budget_as_told(budget: Budget) -> None:
    shares = {"start_share": 0.2, "first_share": 0.25, "critic_share": 0.1, "classifier_share": 0.1}
    hp = registry.hyper("dpac_scatter", {"classifier_steps": 50} | shares)
    releases = DPACScatter.plan(hp, spec(60_000, classes=10), budget)
    assert [(one.name, one.bounded, one.sampling, one.max_uses) for one in releases] == [
        ("moments", "moments", "all", 1), ("parts", "moments", "all", 1), ("feature_means", "sum", "all", 1),
        ("classifier_gradient", "sum", "poisson", 50),
    ]  # fmt: skip
    assert {one.adjacency for one in releases} == {"add_or_remove"}
    first, second, critic, classifier = (one.noise for one in releases)
    # Of all four parts, an eighth, three eighths, a quarter and a quarter.
    assert [first / critic, second / critic] == pytest.approx([2**0.5, 1.5**-0.5])
    assert critic == pytest.approx(2 * math.log1p(0.25 / 50 / (critic / 2 * 0.1) ** 2) ** 0.5 * classifier * critic / 2)
    assert 0.99 * budget.epsilon < epsilon(releases, 1e-5, "sound") <= budget.epsilon


def test_who_has_nothing_to_do_takes_no_part_of_the_budget() -> None:
    def plan(**overrides: object) -> dict[str, float]:
        hp = registry.hyper("dpac_scatter", SMALL | overrides)
        return {one.name: one.noise for one in DPACScatter.releases(hp, spec(600), 0.7)}

    whole, alone, taught = plan(), plan(classifier_weight=0.0), plan(critic_weight=0.0)
    assert alone.keys() == whole.keys() - {"classifier_gradient"} and taught.keys() == whole.keys() - {"feature_means"}
    assert alone["moments"] < whole["moments"] and taught["parts"] < whole["parts"]
    assert plan(classifier_weight=0.0, least_probability=0.5) == whole
    assert build(spec(600), classifier_weight=0.0).num_steps == 4 and build(spec(600)).num_steps == 7


def test_both_promises_are_one_promise_for_all_releases() -> None:
    one, other = (build(spec(600), ONE, adjacency=name) for name in ("add_or_remove", "replace_one"))
    assert {release.adjacency for release in other.context.releases} == {"replace_one"}
    for mine, its in zip(one.context.releases, other.context.releases, strict=True):
        assert its.scale > 1.2 * mine.scale
    costs = {epsilon(other.context.releases, 1e-5, count) for count in ("published", "sound")}
    assert len(costs) == 1 and costs.pop() <= 1.0


def test_many_records_join_no_larger_batches() -> None:
    hp = registry.hyper("dpac_scatter", {})
    assert [DPACScatter.releases(hp, spec(count), 1.0)[-1].rate for count in (60_000, 1_000_000)] == [0.1, 0.01]


@pytest.mark.parametrize(
    ("overrides", "shape", "classes", "message"),
    [
        ({"critic_weight": 0.0, "classifier_weight": 0.0}, (1, 16, 16), 2, "nothing teaches the generator"),
        ({}, (1, 18, 16), 2, "sides that are multiples of 4, toy has 18x16"),
        ({}, (3, 32, 32), 5000, r"5000 classes of toy.*at most 33554432 fit"),
        ({"first_share": 1.0, "splits": 1}, (1, 16, 16), 2, "dpac_scatter.splits must be 0 where first_share is 1"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(overrides, shape, classes, message) -> None:
    with pytest.raises(UserError, match=message):
        build(spec(60, shape, classes), **overrides)


# Who reads when.


def test_records_are_read_for_each_release_once_and_never_for_the_generator(tmp_path) -> None:
    method, data = build(spec(40), TEN), stripes(40)
    with Ledger.open(tmp_path / "ledger.jsonl", method.context.releases, TEN, noise_key=b"3") as ledger:
        method.prepare(data, ledger)
        assert [ledger.uses(one.name) for one in method.context.releases] == [1, 1, 1, 0]
        for _ in range(2):
            with pytest.raises(BudgetExhausted):
                method.prepare(data, ledger)
        for t in range(3):
            with pytest.raises(AssertionError, match="records were"):
                method.step(t, Closed(), ledger)
        assert ledger.uses("classifier_gradient") == 3
        assert all(method.step(t, Closed(), ledger).keys() == {"distance", "cross_entropy"} for t in range(3, 7))
        # A lesson beyond the last use is left out, and reads nobody.
        weights = method._judge.weights
        assert method.step(0, Closed(), ledger) == {} and method._judge.weights is weights


def test_a_lesson_that_a_kill_lost_does_not_take_the_generator_s_steps_with_it(tmp_path, monkeypatch) -> None:
    """Draws of records are lost in a kill where noise is secret, as that of every release that is given away is."""
    plan = Plan.make("dpac_scatter", "dpac_scatter", SMALL, spec(40), TEN, 0)
    unrehearsed(monkeypatch)
    whole = Judge.step

    def dies(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(Judge, "step", dies)
    with pytest.raises(Killed):
        train(plan, stripes(40), tmp_path, CPU, secret_noise=True)
    monkeypatch.setattr(Judge, "step", whole)
    record = train(plan, stripes(40), tmp_path, CPU, secret_noise=True)
    log = (tmp_path / "log.csv").read_text().splitlines()
    assert record["steps_done"] == record["steps_planned"] == 7 and log[0] == "step,distance,cross_entropy"
    assert all(log[-1].split(",")) and record["eps_sound"] == pytest.approx(10, rel=0.01)


def test_every_record_has_its_part_in_the_means(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("methods.dpac_scatter._BLOCK", 16)
    method = build(spec(41), classifier_weight=0.0)
    trained(method, stripes(41), tmp_path, last=0)
    # A record is counted by the root of a twentieth.
    torch.testing.assert_close(method._means[:, -1] / 0.05**0.5, torch.tensor([21.0, 20.0]), rtol=1e-3, atol=0)


@pytest.mark.parametrize("at", [1, 2, 5])
def test_a_run_continues_within_either_phase_as_if_it_had_not_stopped(at: int, tmp_path) -> None:
    data, public = stripes(40), spec(40)
    straight, stopped, other = (build(public, TEN, least_probability=0.3) for _ in range(3))
    (tmp_path / "one").mkdir()
    trained(straight, data, tmp_path / "one", TEN)
    trained(stopped, data, tmp_path, TEN, last=at)
    with Ledger.open(tmp_path / "ledger.jsonl", other.context.releases, TEN, resume=True, noise_key=b"3") as ledger:
        other.resume(data, ledger)
        other.load(stopped.public_state(), stopped.private_state())
        for t in range(at, other.num_steps):
            other.step(t, data, ledger)
    one, two = straight.public_state(), other.public_state()
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_what_is_sampled_is_an_average_of_the_steps_and_at_decay_0_the_last_one(tmp_path) -> None:
    networks = {}
    for ema in (0.0, 0.9):
        method = build(spec(40), steps=4, ema=ema)
        (tmp_path / str(ema)).mkdir()
        trained(method, stripes(40), tmp_path / str(ema))
        last = method.private_state()["refiner"]
        networks[ema] = {name: method.public_state()[f"refiner.{name}"] for name in last}
        assert all(torch.equal(last[name], networks[ema][name]) for name in last) == (ema == 0)
    assert any(not torch.equal(networks[0.0][name], networks[0.9][name]) for name in networks[0.0])


# What is learned.


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> tuple[DPACScatter, list[dict[str, float]]]:
    """A run without noise on stripes, and its log."""
    method = build(
        spec(200), classifier_steps=20, classifier_learning_rate=0.02, steps=60, batch_size=32, width=16, cutoff=4.0,
        learning_rate=0.01, least_probability=0.95, candidates=4,
    )  # fmt: skip
    return method, trained(method, stripes(200), tmp_path_factory.mktemp("learned"))


def right(method: DPACScatter, images: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of uint8 images whose label the method's classifier names."""
    return float((method._judge.scores(method._features(images / 255)).argmax(1) == labels).float().mean())


def test_the_classifier_tells_records_apart(learned, tmp_path) -> None:
    method, data = learned[0], stripes(200)
    with Ledger.open(tmp_path / "l.jsonl", (), FREE) as ledger, ledger.internal("test") as grant:
        assert right(method, *data.read(grant, range(200))) == 1


def test_the_generator_nears_the_records_in_both_senses_and_its_start_is_the_gaussians(learned) -> None:
    method, log = learned
    refined = [row for row in log if row]
    assert len(refined) == 60 and refined[-1]["distance"] < 0.7 * refined[0]["distance"] < 0
    assert sum(row["cross_entropy"] for row in refined[-10:]) < 0.7 * sum(row["cross_entropy"] for row in refined[:10])
    fresh = build(spec(200), cutoff=4.0)
    fresh._start.laws = method._start.laws
    labels = torch.arange(40) % 2
    drawn = fresh._start.images(labels, named_rng(0, "s"))
    assert torch.equal(fresh.sample(labels, named_rng(0, "s")), (drawn * 255).round().to(torch.uint8))


def test_the_classifier_chooses_among_candidates_and_keeps_the_labels(learned) -> None:
    """Of draws from the Gaussians, in whose labels a classifier of random weights believes more or less."""
    labels = torch.tensor([0] * 60 + [1] * 60)
    weights = torch.randn(learned[0]._judge.weights.shape, generator=named_rng(0, "weights"))

    def sampled(least: float, candidates: int) -> torch.Tensor:
        method = build(spec(200), cutoff=4.0, least_probability=least, candidates=candidates)
        method._start.laws, method._judge.weights = learned[0]._start.laws, 0.1 * weights
        return method._probability(method.sample(labels, named_rng(0, "s")) / 255, labels)

    plain = sampled(0.0, 4)
    least = float(plain.median())
    one, two, eight = (sampled(least, candidates) for candidates in (1, 2, 8))
    # One draw is the same with and without a wish. A further one is taken where it is better, and asked for where the
    # last one was not good enough; pixels are rounded after that.
    assert torch.equal(plain, one) and float(plain.std()) > 0.05
    good = one > least + 0.01
    assert torch.equal(two[good], one[good]) and bool((two > one - 0.01).all()) and bool((two > one + 0.05).any())
    assert float((eight < least).float().mean()) < 0.5 * float((two < least).float().mean())


def test_a_sample_takes_a_share_of_the_refinement_between_the_least_and_all_of_it(learned) -> None:
    labels = torch.arange(200) % 2

    def sampled(least_strength: float, strength: float = 1.0) -> torch.Tensor:
        method = build(spec(200), cutoff=4.0, width=16, least_strength=least_strength)
        method.load(learned[0].public_state() | {"judge": learned[0]._judge.weights}, None)
        method._sampled.last.weight.data.mul_(strength)
        method._sampled.last.bias.data.mul_(strength)
        return method.sample(labels, named_rng(0, "s")).float()

    none, whole, half = sampled(1.0, 0.0), sampled(1.0), sampled(0.5)
    # Where clamping does not hide what is added; blocks draw their shares after what they are made of.
    added = (whole - none).abs().amax((1, 2, 3))
    sure = added > 40
    assert int(sure.sum()) > 20
    places = (whole - none).abs().flatten(1).argmax(1, keepdim=True)
    share = ((half - none).flatten(1).gather(1, places) / (whole - none).flatten(1).gather(1, places))[sure]
    assert 0.45 < float(share.min()) < 0.6 and 0.9 < float(share.max()) < 1.05
    assert float(share.mean()) == pytest.approx(0.75, abs=0.06)
