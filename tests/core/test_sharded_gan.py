"""The gradient-sanitised GAN: what a step reads, what it releases, and what each switch of DP-GAN-DPAC changes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from toys import CPU, TINY_DPAC, TINY_GAN, TOY, Recorder, toy_records

from methods import dpac
from methods.core import registry
from methods.core.method import Context
from methods.core.partition import partition
from methods.core.privacy.grant import Grant
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import NO_BUDGET, Budget, PublicSpec
from methods.core.sharded import gan
from methods.core.sharded.losses import image_gradients
from methods.core.sharded.nets import build_classifier
from methods.core.sharded.one_shard import OneShardStep
from methods.core.speed import layout
from methods.core.speed.choices import CHOICES
from workflow.common.errors import UserError

LABELS = torch.arange(60) % 10


def start(folder: Path, method: str, data: PrivateData, warm_start: Path | None = None, **overrides):
    hp = registry.hyper(method, (TINY_GAN if method != "dpac" else TINY_DPAC) | overrides)
    private = method != "nonprivate"
    budget = Budget(10.0, 1e-5, "published") if private else Budget(math.inf, 1e-5, "none")
    releases = registry.load(method).plan(hp, TOY, budget)
    made = registry.load(method)(hp, Context(TOY, releases, 0, CPU))
    ledger = Ledger.open(folder / "ledger.jsonl", releases, budget, noise_key=b"1")
    made.prepare(data, ledger, warm_start)
    return made, ledger


def test_shards_are_disjoint_and_depend_on_the_seed_alone():
    shards = partition(60, 7, seed=3)
    assert shards.shape == (7, 8)
    assert len(shards.unique()) == 56
    assert torch.equal(shards, partition(60, 7, seed=3))
    assert not torch.equal(shards, partition(60, 7, seed=4))


@pytest.mark.parametrize("method", ["gs_wgan", "dpac"])
def test_a_step_reads_one_shard_and_charges_one_release_of_batch_size_rows(tmp_path, method):
    data = Recorder(toy_records())
    made, ledger = start(tmp_path, method, data)
    for t in range(3):
        data.seen = set()
        made.step(t, data, ledger)
        assert any(data.seen <= set(shard.tolist()) for shard in made.mechanism.shards)
    (release,) = made.context.releases
    assert ledger.uses(release.name) == 3
    assert (release.rows, release.rate, release.max_uses) == (3, 1 / 6, 4)
    assert release.sensitivity == 2 * made.hp.clip
    assert (release.state, release.draws) == ("hidden", "per_step")


def test_a_step_reads_the_drawn_shards_records_and_a_second_visit_continues_where_the_first_ended(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(Grant, "shard", lambda grant: 4)
    data = Recorder(toy_records())
    made, ledger = start(tmp_path, "gs_wgan", data, critic_batch=10)
    starts, take = [], made.critics.take

    def watched(shard):
        network = take(shard)
        starts.append(network.scorer.linear.parametrizations.weight.original.clone())
        return network

    made.critics.take = watched
    for t in range(2):
        made.step(t, data, ledger)
    # The shard of the same number is the one that a warm start trains the same critic on.
    assert data.seen == set(partition(60, 6, seed=0)[4].tolist())
    kept = made.critics.state()
    assert list(kept) == ["4"] and not torch.equal(starts[0], starts[1])


def test_shards_are_drawn_uniformly(tmp_path):
    data = Recorder(toy_records())
    made, ledger = start(tmp_path, "gs_wgan", data, steps=240, batch_size=1)
    visits = [0] * 6
    for t in range(240):
        data.seen = set()
        made.step(t, data, ledger)
        visits[next(k for k, shard in enumerate(made.mechanism.shards) if data.seen <= set(shard.tolist()))] += 1
    # Each count is Bin(240, 1/6): 40, standard deviation 5.8.
    assert min(visits) > 40 - 4 * 5.8 and max(visits) < 40 + 4 * 5.8


def test_public_draws_are_those_of_the_use_so_that_a_lost_step_s_are_not_repeated(tmp_path, monkeypatch):
    made, ledger = start(tmp_path, "gs_wgan", toy_records())
    names, whole = [], gan.named_rng
    monkeypatch.setattr(gan, "named_rng", lambda *given: names.append(given[1:]) or whole(*given))
    with ledger.charge(made.context.releases[0].name):
        # Lost: the step that it was for comes again.
        pass
    made.step(0, toy_records(), ledger)
    assert [name for name in names if name[0] == "step"] == [("step", 1)]


def test_noise_dominates_what_the_generator_sees(tmp_path):
    made, ledger = start(tmp_path, "gs_wgan", toy_records(), batch_size=50)
    (release,) = made.context.releases
    norm = made.step(0, toy_records(), ledger)["noisy_gradient_norm"]
    # A row of 784 pixels: clip <= 1 beside noise of standard deviation 2 * clip * multiplier per pixel.
    expected = 2 * release.clip * release.noise * math.sqrt(784)
    assert norm == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("method", ["gs_wgan", "dpac"])
def test_the_generator_learns_from_the_noisy_answers_alone(tmp_path, method, monkeypatch):
    monkeypatch.setattr(Grant, "rows", lambda self, rows: torch.ones_like(rows) / 28)
    states = []
    for name, data in (("a", toy_records()), ("b", PrivateData(torch.zeros(60, 1, 28, 28, dtype=torch.uint8), LABELS))):
        made, ledger = start(tmp_path / name, method, data)
        log = [made.step(t, data, ledger) for t in range(3)]
        states.append((made.public_state(), log))
    (first, first_log), (second, second_log) = states
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first_log == second_log


@pytest.mark.parametrize(("weight", "start_at"), [(0.2, 0), (0.2, 10), (1.0, 0)])
def test_dpac_fuses_both_gradients_into_one_row_per_image(tmp_path, weight, start_at, monkeypatch):
    data = toy_records()
    made, ledger = start(
        tmp_path, "dpac", data, critic_weight=1 - weight, classifier_weight=weight, classifier_start=start_at
    )
    made._train = lambda *_: None
    critic = made.critics.take(0)
    fakes, labels, rng = torch.rand(3, 1, 28, 28), torch.tensor([0, 1, 2]), torch.Generator()
    with ledger.charge("image_gradient") as grant:
        step = OneShardStep(0, made.mechanism.shards, data, grant, rng, CPU, made)
        step.shared = made.public_phase(5, step.release, rng)
        got = made.shard_gradients(5, critic, fakes, labels, step)
    of_critic = image_gradients(critic.scorer, fakes, labels, "fp32")
    of_classifier = image_gradients(build_classifier(made.hp, made.context, 5), fakes, labels, "fp32")
    expected = of_critic if start_at > 5 else (1 - weight) * of_critic + weight * of_classifier
    assert torch.allclose(got, expected, atol=1e-7)


def phases(tmp_path, monkeypatch, **overrides) -> list[int]:
    """Returns the batch sizes of the classifier's updates in one step: fakes come by 20, records by at most 4."""
    sizes = []
    whole = dpac.score_loss

    def watched(scorer, images, *rest):
        sizes.append(len(images))
        return whole(scorer, images, *rest)

    monkeypatch.setattr(dpac, "score_loss", watched)
    data = toy_records()
    made, ledger = start(tmp_path, "dpac", data, fakes_per_class=2, **overrides)
    made.step(0, data, ledger)
    return sizes


def test_the_classifier_learns_fakes_then_records_and_each_ablation_drops_or_mixes_a_phase(tmp_path, monkeypatch):
    both = {"classifier_fake_steps": 2, "classifier_real_steps": 2}
    assert phases(tmp_path / "full", monkeypatch, **both) == [20, 20, 4, 4]
    assert phases(tmp_path / "wo_g2r", monkeypatch, g2r=False, **both) == [4, 4]
    assert phases(tmp_path / "wo_r2g", monkeypatch, r2g=False, **both) == [20, 20]
    assert phases(tmp_path / "wo_seq_mixed", monkeypatch, mix_phases=True, **both) == [24, 24]
    assert phases(tmp_path / "before_start", monkeypatch, classifier_start=1, **both) == []


def test_without_init_a_shards_classifier_is_kept_and_no_other_shards(tmp_path):
    data = toy_records()
    made, ledger = start(tmp_path, "dpac", data, fresh_classifier=False, steps=4)
    for t in range(4):
        made.step(t, data, ledger)
    assert set(made.classifiers.state()) == set(made.critics.state())
    fresh, _ = start(tmp_path / "fresh", "dpac", data)
    assert fresh.classifiers is None


def test_mixing_phases_of_unequal_length_is_refused():
    hp = registry.hyper("dpac", TINY_DPAC | {"mix_phases": True, "classifier_fake_steps": 2})
    with pytest.raises(UserError, match="mix_phases"):
        registry.load("dpac").plan(hp, TOY, Budget(10.0, 1e-5, "published"))


@pytest.mark.parametrize("generator", ["dcgan", "resnet"])
def test_fakes_made_part_by_part_are_those_made_at_once(tmp_path, monkeypatch, generator):
    made, _ = start(tmp_path, "gs_wgan", toy_records(), generator=generator)
    labels, sizes, fakes = torch.arange(7), [], []
    made.generator.register_forward_hook(lambda net, inputs, output: sizes.append(len(output)))
    for images_at_once in (7, 3):
        # Spectral norm's vectors move by one iteration a call, however many parts it has: start each from the same.
        state = {name: value.clone() for name, value in made.generator.state_dict().items()}
        monkeypatch.setattr(layout, "_MAP_BYTES", 4 * made.generator.largest * images_at_once)
        fakes.append(made.fakes_for(labels, torch.Generator().manual_seed(0)))
        made.generator.load_state_dict(state)
    assert sizes == [7, 3, 3, 1]
    torch.testing.assert_close(*fakes)
    with CHOICES.changed(map_parts=False):
        made.fakes_for(labels, torch.Generator().manual_seed(0))
    assert sizes[4:] == [7]


def warm(folder: Path, data: PrivateData) -> dict[int, torch.Tensor]:
    cls = registry.load("gs_wgan")
    hp = registry.hyper("gs_wgan", TINY_GAN | {"warm_start_steps": 2})
    folder.mkdir()
    with Ledger.open(folder / "ledger.jsonl", (), NO_BUDGET) as ledger:
        cls.make_warm_start(cls.warm_start(hp), Context(TOY, (), 0, CPU), data, ledger, folder)
    made, _ = start(folder / "run", "gs_wgan", data, folder, warm_start_steps=2)
    critics = (made.critics.take(shard).scorer for shard in range(6))
    return {shard: critic.linear.parametrizations.weight.original.clone() for shard, critic in enumerate(critics)}


def test_warm_start_gives_each_shard_its_own_critic_which_no_other_shards_records_move(tmp_path):
    shards = partition(60, 6, seed=0)
    before = warm(tmp_path / "a", toy_records())
    after = warm(tmp_path / "b", toy_records(changed=int(shards[4, 0])))
    moved = [shard for shard in range(6) if not torch.equal(before[shard], after[shard])]
    assert moved == [4]
    assert not torch.equal(before[0], before[1])


def test_an_interrupted_warm_start_keeps_finished_critics(tmp_path):
    whole = warm(tmp_path / "a", toy_records())
    chunk = next((tmp_path / "a").glob("critics-*.safetensors"))
    stamp = chunk.stat().st_mtime_ns
    cls, hp = registry.load("gs_wgan"), registry.hyper("gs_wgan", TINY_GAN | {"warm_start_steps": 2})
    with Ledger.open(tmp_path / "a" / "ledger.jsonl", (), NO_BUDGET, resume=True) as ledger:
        context = Context(TOY, (), 0, CPU)
        cls.make_warm_start(cls.warm_start(hp), context, toy_records(), ledger, tmp_path / "a")
    assert chunk.stat().st_mtime_ns == stamp and len(whole) == 6


def test_runs_share_critics_exactly_when_their_critic_settings_agree():
    base = registry.load("gs_wgan").warm_start(registry.hyper("gs_wgan", {}))
    dpac = registry.load("dpac")
    assert dpac.warm_start(registry.hyper("dpac", {"g2r": False, "steps": 7, "batch_size": 5})) == base
    assert dpac.warm_start(registry.hyper("dpac", {"critic_width": 32})) != base
    assert dpac.warm_start(registry.hyper("dpac", {"warm_start_steps": 0})) is None


def test_nonprivate_refuses_a_budget():
    hp = registry.hyper("nonprivate", {})
    with pytest.raises(UserError, match="epsilon inf"):
        registry.load("nonprivate").plan(hp, TOY, Budget(10.0, 1e-5, "sound"))


def test_published_settings_find_the_authors_noise():
    for dataset, records_, noise in (("mnist", 60000, 1.07), ("celeba", 162770, 0.61135)):
        hp = registry.hyper("gs_wgan", registry.paper_settings("gs_wgan", dataset, 10.0))
        public = PublicSpec(dataset, (1, 28, 28), 10, records_)
        (release,) = registry.load("gs_wgan").plan(hp, public, Budget(10.0, 1e-5, "published"))
        assert release.noise == pytest.approx(noise, rel=0.003)


@pytest.mark.parametrize(
    ("field", "value"), [("generator", "vae"), ("precision", "fp8"), ("num_shards", 61), ("steps", 0)]
)
def test_settings_that_cannot_work_are_refused_by_name(field, value):
    with pytest.raises(UserError, match=field):
        hp = registry.hyper("gs_wgan", TINY_GAN | {field: value})
        registry.load("gs_wgan").plan(hp, TOY, Budget(10.0, 1e-5, "published"))
