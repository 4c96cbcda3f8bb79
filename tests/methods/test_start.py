"""A start from images of charged Gaussians: what it costs, who reads records when, and what is learned of it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from toys import CPU, TINY_DPAC, TINY_GAN, TOY, Killed, killed_at, toy_records, unrehearsed

from methods.core import registry
from methods.core.accounting.calibration import epsilon
from methods.core.gaussians.model import GaussianModel
from methods.core.method import Method
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.privacy.shares import multiplier
from methods.core.release import Budget, PublicSpec, Release
from methods.core.rng import named_rng
from methods.core.runs import train
from methods.core.runs.plan import Plan
from methods.core.runs.rehearsal import rehearse
from workflow.common.errors import UserError

FREE, TEN, ONE = (Budget(value, 1e-5, "sound" if value < 100 else "none") for value in (float("inf"), 10.0, 1.0))
START = {"start": "dp_gauss", "start_steps": 3}
SHARDS = {"shards_per_step": 2.0, "spectral_norm": False}
SMALL = {
    "dpgan": {"steps": 4, "batch_size": 6, "dim": 2, "latent": 3, "generator_every": 1, "ema": 0.5},
    "dp_cgan": {"steps": 4, "batch_size": 6, "hidden": 8},
    "gs_wgan": TINY_GAN | SHARDS,
    "dpac": TINY_DPAC | SHARDS | {"classifier_start": 2},
}  # fmt: skip
RELEASES = ["moments", "parts"]


def planned(method: str, budget: Budget = TEN, public: PublicSpec = TOY, **overrides: object) -> Plan:
    return Plan.make(method, "run", SMALL[method] | START | overrides, public, budget, seed=0)


def built(method: str, budget: Budget = TEN, public: PublicSpec = TOY, **overrides: object) -> Method:
    return planned(method, budget, public, **overrides).build(CPU)


def halves(count: int = 60) -> PrivateData:
    """Dark images of class 0 and bright ones of class 1, a little different each."""
    labels = torch.arange(count) % 2
    spread = torch.randint(40, (count, 1, 28, 28), generator=named_rng(0, "halves"))
    return PrivateData((30 + 180 * labels[:, None, None, None] + spread).to(torch.uint8), labels)


class Closed:
    """Records that nobody may read."""

    def __len__(self) -> int:
        raise AssertionError("records were counted")

    def read(self, *_: object) -> None:
        raise AssertionError("records were read")


def spent(ledger: Ledger, method: Method) -> list[int]:
    return [ledger.uses(release.name) for release in method.context.releases]


# What it costs.


@pytest.mark.parametrize(("method", "budget"), [*((method, TEN) for method in SMALL), ("dp_cgan", ONE)])
def test_the_whole_plan_meets_the_budget_and_a_larger_share_moves_noise_to_the_steps(method, budget):
    public = PublicSpec("toy", (1, 28, 28), 10, 600)
    found = []
    for share in (0.2, 0.6):
        plan = planned(method, budget, public, start_share=share, batch_size=60)
        assert [one.name for one in plan.releases[:2]] == RELEASES and len(plan.releases) == 3
        assert 0.99 * budget.epsilon < plan.costs["sound"] <= budget.epsilon
        found.append([one.noise for one in plan.releases])
    (first, second, main), (its_first, its_second, its_main) = found
    assert first == pytest.approx(3 * second) and its_first == pytest.approx(3 * its_second)
    assert its_first < 0.8 * first and its_main > 1.05 * main


@pytest.mark.parametrize("method", SMALL)
def test_all_releases_of_a_plan_promise_the_same(method):
    promise = "add_or_remove" if method in ("dpgan", "dp_cgan") else "replace_one"
    assert {release.adjacency for release in planned(method).releases} == {promise}
    assert planned(method).build(CPU).start.main == planned(method).releases[-1]


def by_share(substituted: bool, share: float) -> tuple[float, float]:
    """The sound epsilon of 2000 uses at a share of what noise 0.7 costs, and that of one answer which has the share."""
    adjacency = "replace_one" if substituted else "add_or_remove"
    sigma = multiplier(0.7, share=share, rate=0.01, uses=2000, substituted=substituted)
    fields = dict(name="r", kind="gaussian", clip=1.0, bounded="sum", rows=10_000, adjacency=adjacency)
    many = Release(**fields, noise=sigma, rate=0.01, sampling="poisson", max_uses=2000)
    one = Release(**fields, noise=0.7 / share**0.5, rate=1.0, sampling="all", max_uses=1)
    return epsilon([many], 1e-5, "sound"), epsilon([one], 1e-5, "sound")


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize("substituted", [False, True])
def test_many_drawn_sums_take_about_their_share_of_the_budget(substituted, share):
    found, wanted = by_share(substituted, share)
    assert found == pytest.approx(wanted, rel=0.25)


def test_without_noise_there_is_none_to_share():
    assert multiplier(0.0, share=0.5, rate=0.1, uses=3) == 0
    assert {release.kind for release in planned("dpgan", FREE).releases} == {"none"}


@pytest.mark.parametrize("method", SMALL)
def test_a_plan_without_a_start_says_nothing_of_it_and_one_with_a_start_says_all(method):
    bare, whole = planned(method, start="none", start_steps=1000), planned(method)
    assert not [name for name in bare.to_dict()["hyper"] if name.startswith("start")] and len(bare.releases) == 1
    assert bare.build(CPU).num_steps == 4
    named = {name: value for name, value in whole.to_dict()["hyper"].items() if name.startswith("start")}
    assert named == {"start": "dp_gauss", "start_share": 0.3, "start_steps": 3}
    for plan in (bare, whole):
        assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


@pytest.mark.parametrize(
    ("method", "overrides", "message"),
    [
        ("gs_wgan", {"shards_per_step": 0.0}, "gs_wgan.start dp_gauss needs shards_per_step above 0"),
        ("gs_wgan", {"shards_per_step": 0.0, "warm_start_steps": 9}, "gs_wgan.start dp_gauss needs shards_per_step"),
        ("dpac", {"shards_per_step": 0.0, "as_released": True}, "dpac.start dp_gauss needs shards_per_step above 0"),
        ("dpac", {"as_released": True}, "leave mix_phases and as_released off"),
        ("dp_cgan", {"start": "dp_ntk"}, "hyper-parameter dp_cgan.start must be none or dp_gauss, got 'dp_ntk'$"),
        ("dpgan", {"start": "gauss"}, "must be none or dp_gauss, got 'gauss'; did you mean 'dp_gauss'?"),
        ("gs_wgan", {"start": None}, "gs_wgan.start must be none or dp_gauss, got None; did you mean 'none'?"),
        ("dpgan", {"start_share": 1.0}, "dpgan.start_share must be 0.001 to 0.999, got 1.0"),
    ],
)
def test_pairs_that_cannot_be_are_refused_in_one_line(method, overrides, message):
    with pytest.raises(UserError, match=message) as refusal:
        planned(method, **overrides)
    assert "\n" not in str(refusal.value)


def test_a_method_of_no_noise_knows_no_start():
    with pytest.raises(UserError, match="unknown hyper-parameter of nonprivate 'start'"):
        registry.hyper("nonprivate", {"start": "dp_gauss"})


# Who reads when.


@pytest.mark.parametrize("method", SMALL)
def test_records_are_read_twice_then_not_at_all_then_once_a_step(method, tmp_path, monkeypatch):
    one, data, begun = built(method), toy_records(), []
    begin = one.begin_private
    monkeypatch.setattr(one, "begin_private", lambda: (begun.append(spent(ledger, one)), begin()))
    with Ledger.open(tmp_path / "ledger.jsonl", one.context.releases, TEN, noise_key=b"1") as ledger:
        one.prepare(data, ledger)
        assert spent(ledger, one) == [1, 1, 0] and one.num_steps == 7
        for t in range(3):
            assert one.step(t, Closed(), ledger)
        assert spent(ledger, one) == [1, 1, 0]
        for t in range(3, 7):
            one.step(t, data, ledger)
        assert spent(ledger, one) == [1, 1, 4] and begun == [[1, 1, 0]]


@pytest.mark.parametrize("method", SMALL)
def test_a_rehearsal_has_a_step_of_either_kind_before_anything_is_charged(method, monkeypatch):
    plan, seen = planned(method), []
    for name in ("public_step", "private_step"):
        whole = getattr(plan.method_class, name)
        monkeypatch.setattr(plan.method_class, name, noting(whole, name, seen))
    rehearse(plan, CPU)
    assert seen == [("public_step", 0), ("private_step", 0)]
    if method == "dpac":
        assert plan.method_class.rehearsal(plan.hyper).classifier_start == 0


def noting(whole: Callable, name: str, seen: list) -> Callable:
    def step(self: Method, t: int, *more: object) -> object:
        seen.append((name, t))
        return whole(self, t, *more)

    return step


@pytest.mark.parametrize("at", [1, 3, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", SMALL)
def test_a_run_killed_in_either_phase_ends_as_one_that_was_not(method, at, tmp_path, monkeypatch):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    train.train(planned(method), toy_records(), straight, CPU)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, method, at)
        train.train(planned(method), toy_records(), broken, CPU, checkpoint_seconds=0)
    record = train.train(planned(method), toy_records(), broken, CPU)
    assert record["steps_done"] == record["steps_planned"] == 7
    assert (straight / "generator.safetensors").read_bytes() == (broken / "generator.safetensors").read_bytes()
    charges = [json.loads(line).get("charge") for line in (broken / "ledger.jsonl").read_text().splitlines()]
    assert sum(charge in RELEASES for charge in charges) == 2


@pytest.mark.parametrize("secret", [False, True])
def test_a_run_killed_between_the_starts_two_releases_takes_each_once(secret, tmp_path, monkeypatch):
    taken, whole = [], GaussianModel.take

    def take(model: GaussianModel, number: int, *more: object) -> None:
        taken.append(number)
        if taken == [0, 1]:
            raise Killed
        whole(model, number, *more)

    monkeypatch.setattr(GaussianModel, "take", take)
    unrehearsed(monkeypatch)
    plan = planned("dp_cgan")
    with pytest.raises(Killed):
        train.train(plan, toy_records(), tmp_path / "run", CPU, secret_noise=secret)
    record = train.train(plan, toy_records(), tmp_path / "run", CPU, secret_noise=secret)
    assert record["steps_done"] == 7 and taken == [0, 1, 0, 1]
    charges = [json.loads(line).get("charge") for line in (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()]
    assert [charges.count(name) for name in RELEASES] == [1, 1]


# What is learned.


LEARNING = {
    "dpgan": {"batch_size": 16, "dim": 4, "learning_rate": 0.005, "generator_rate": 0.005, "unit_gain": True},
    "dp_cgan": {
        "batch_size": 16, "hidden": 16, "label_scale": 5.0, "optimizer": "adam", "learning_rate": 0.005,
        "generator_rate": 0.0, "leak": 0.2,
    },
    "gs_wgan": {"batch_size": 16, "generator_width": 4, "critic_width": 4, "critic_steps": 2},
    "dpac": {"batch_size": 16, "generator_width": 4, "critic_width": 4, "critic_steps": 2},
}  # fmt: skip
RATES = {"generator_learning_rate": 0.005, "critic_learning_rate": 0.005, "average_decay": 0.5}


@pytest.fixture(scope="module", params=SMALL)
def started(request, tmp_path_factory) -> tuple[str, Method, Ledger]:
    """A method after the last step on its start, made of records without noise."""
    name = request.param
    more = LEARNING[name] | (RATES if "critic_width" in LEARNING[name] else {})
    one = built(name, FREE, PublicSpec("halves", (1, 28, 28), 2, 60), start_steps=60, **more)
    path = tmp_path_factory.mktemp("start") / "ledger.jsonl"
    with Ledger.open(path, one.context.releases, FREE, noise_key=b"2") as ledger:
        one.prepare(halves(), ledger)
        for t in range(60):
            one.step(t, Closed(), ledger)
        yield name, one, ledger


def brightness(method: Method) -> list[float]:
    labels = torch.arange(2).repeat(20)
    images = method.sample(labels, named_rng(0, "samples")).float()
    return [float(images[labels == label].mean()) for label in (0, 1)]


def test_drawn_images_are_of_their_label_and_the_generator_learns_it_without_a_record(started):
    name, method, _ = started
    images, labels = method.start.batch(40, named_rng(0, "batch"))
    assert images.shape == (40, 1, 28, 28) and float(images.min()) >= 0 and float(images.max()) <= 1
    assert [float(255 * images[labels == label].mean()) for label in (0, 1)] == pytest.approx([50, 230], abs=4)
    if name == "dp_cgan":
        # Its generator of one hidden layer would take long, so it stands still: the discriminator learns alone.
        drawn, fakes = method._labelled(images.flatten(1), labels), method._fakes(named_rng(0, "fakes"))
        with torch.no_grad():
            real, generated = method._discriminator(drawn), method._discriminator(fakes)
        assert float(real.min()) > float(generated.max())
        return
    dark, bright = brightness(method)
    assert bright > dark + 60


def test_steps_on_records_begin_with_what_was_learned_and_forget_the_optimisers_moments(started):
    name, method, _ = started
    before = method.private_state()["generator"]
    before = {key: value.clone() for key, value in before.items()}
    method.begin_private()
    assert all(torch.equal(value, before[key]) for key, value in method.private_state()["generator"].items())
    assert all(not optimizer.state for optimizer in method.optimizers)
    if name in ("dpgan", "dp_cgan"):
        assert len(method.optimizers) == 2
        return
    learned = method.learners["critic"].take(torch.tensor([0]))
    fresh = method.critics.state()
    for part, value in learned.weights.items():
        assert len(fresh["weights"][part]) == method.hp.num_shards
        assert torch.equal(fresh["weights"][part], value.expand_as(fresh["weights"][part]))
    assert not fresh["updates"].any() and int(learned.updates) == 120
    untaught = built(name, FREE, method.public, **{field: getattr(method.hp, field) for field in ("critic_width",)})
    first = untaught.learners["critic"].take(torch.tensor([0])).weights
    assert any(not torch.equal(value, first[part]) for part, value in learned.weights.items())


def test_the_sampled_average_goes_on_from_the_start():
    method = built("gs_wgan", average_decay=0.9)
    with torch.no_grad():
        for network, value in ((method.generator, 1.0), (method.average, 0.0)):
            for parameter in network.parameters():
                parameter.fill_(value)
    fakes = method.generate(torch.arange(3), named_rng(0, "fakes"))
    method.move_generator(0, fakes, torch.zeros_like(fakes))
    # The fourth of all steps has a fifth of the average; the first would have a half.
    assert all(torch.allclose(value, torch.tensor(0.2)) for value in method.average.parameters())


def test_each_classifier_of_a_step_begins_as_a_copy_of_the_one_that_learned(started):
    name, method, _ = started
    if name != "dpac":
        assert "classifier" not in method.private_state().get("learners", {})
        return
    one, other = (method._new_classifier(t).state_dict() for t in (5, 6))
    learned = method.learners["classifier"].take(torch.tensor([0])).weights
    for part, value in learned.items():
        assert torch.equal(one[part], value[0]) and torch.equal(other[part], value[0])
    images, labels = method.start.batch(40, named_rng(1, "batch"))
    network = method._new_classifier(5)
    right, wrong = network(images, labels), network(images, 1 - labels)
    assert float((right > wrong).float().mean()) > 0.9
