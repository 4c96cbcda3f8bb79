"""The gradient-sanitised GAN: what a step reads, what it releases, and what each switch of DP-GAN-DPAC changes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from methods.core import registry, sharded_gan
from methods.core.method import Context
from methods.core.privacy import Budget, Grant, Ledger, PublicSpec
from methods.core.private_data import PrivateData
from methods.core.sharded_gan import Visit
from methods.core.shards import assign
from methods.core.wasserstein import image_gradients
from workflow.common.errors import UserError

LABELS = torch.arange(60) % 10
PUBLIC = PublicSpec("synthetic", (1, 28, 28), 10, 60)
TINY = {
    "steps": 4, "batch_size": 3, "num_shards": 6, "critic_batch": 4, "critic_steps": 1, "warm_start_steps": 0,
    "warm_start_width": 2, "generator": "dcgan", "generator_width": 2, "critic_width": 2,
}  # fmt: skip
TINY_DPAC = TINY | {
    "classifier_start": 0, "classifier_fake_steps": 1, "classifier_real_steps": 1, "fakes_per_class": 1,
}  # fmt: skip


def records(changed: int | None = None) -> PrivateData:
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 1, 28, 28), generator=stream, dtype=torch.uint8)
    if changed is not None:
        images[changed] = 255 - images[changed]
    return PrivateData(images, LABELS)


def start(folder: Path, method: str, data: PrivateData, warm_start: Path | None = None, **overrides):
    hp = registry.hyper(method, (TINY if method != "dpac" else TINY_DPAC) | overrides)
    private = method != "nonprivate"
    budget = Budget(10.0, 1e-5, "published") if private else Budget(math.inf, 1e-5, "none")
    releases = registry.load(method).plan(hp, PUBLIC, budget)
    made = registry.load(method)(hp, Context(PUBLIC, releases, 0, torch.device("cpu")))
    ledger = Ledger.open(folder / "ledger.jsonl", releases, budget, noise_stream=torch.Generator().manual_seed(1))
    made.prepare(data, ledger, warm_start)
    return made, ledger


class Recorder:
    """Stands in for PrivateData and remembers which records were read."""

    def __init__(self, data: PrivateData) -> None:
        self.data, self.seen = data, set()

    def read(self, grant, index):
        self.seen |= set(torch.as_tensor(index).tolist())
        return self.data.read(grant, index)


def test_shards_are_disjoint_and_depend_on_the_seed_alone():
    shards = assign(60, 7, seed=3)
    assert shards.shape == (7, 8)
    assert len(shards.unique()) == 56
    assert torch.equal(shards, assign(60, 7, seed=3))
    assert not torch.equal(shards, assign(60, 7, seed=4))


@pytest.mark.parametrize("method", ["gs_wgan", "dpac"])
def test_a_step_reads_one_shard_and_charges_one_release_of_batch_size_rows(tmp_path, method):
    data = Recorder(records())
    made, ledger = start(tmp_path, method, data)
    for t in range(3):
        data.seen = set()
        made.step(t, data, ledger)
        assert any(data.seen <= set(shard.tolist()) for shard in made.shards)
    (release,) = made.context.releases
    assert ledger.uses(release.name) == 3
    assert (release.rows, release.rate, release.max_uses) == (3, 1 / 6, 4)
    assert release.sensitivity == 2 * made.hp.clip
    assert (release.state, release.draws) == ("hidden", "per_step")


def test_shards_are_drawn_uniformly(tmp_path):
    data = Recorder(records())
    made, ledger = start(tmp_path, "gs_wgan", data, steps=240, batch_size=1)
    visits = [0] * 6
    for t in range(240):
        data.seen = set()
        made.step(t, data, ledger)
        visits[next(k for k, shard in enumerate(made.shards) if data.seen <= set(shard.tolist()))] += 1
    # Each count is Bin(240, 1/6): 40, standard deviation 5.8.
    assert min(visits) > 40 - 4 * 5.8 and max(visits) < 40 + 4 * 5.8


def test_noise_dominates_what_the_generator_sees(tmp_path):
    made, ledger = start(tmp_path, "gs_wgan", records(), batch_size=50)
    (release,) = made.context.releases
    norm = made.step(0, records(), ledger)["noisy_gradient_norm"]
    # A row of 784 pixels: clip <= 1 beside noise of standard deviation 2 * clip * multiplier per pixel.
    expected = 2 * release.clip * release.noise * math.sqrt(784)
    assert norm == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("method", ["gs_wgan", "dpac"])
def test_the_generator_learns_from_the_noisy_answers_alone(tmp_path, method, monkeypatch):
    monkeypatch.setattr(Grant, "gaussian", lambda self, rows: torch.ones_like(rows) / 28)
    states = []
    for name, data in (("a", records()), ("b", PrivateData(torch.zeros(60, 1, 28, 28, dtype=torch.uint8), LABELS))):
        made, ledger = start(tmp_path / name, method, data)
        log = [made.step(t, data, ledger) for t in range(3)]
        states.append((made.public_state(), log))
    (first, first_log), (second, second_log) = states
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first_log == second_log


@pytest.mark.parametrize(("weight", "start_at"), [(0.2, 0), (0.2, 10), (1.0, 0)])
def test_dpac_fuses_both_gradients_into_one_row_per_image(tmp_path, weight, start_at, monkeypatch):
    data = records()
    made, ledger = start(
        tmp_path, "dpac", data, critic_weight=1 - weight, classifier_weight=weight, classifier_start=start_at
    )
    made._train_classifier = lambda *_: None
    critic, _ = made.critics.lend(0)
    fakes, labels = torch.rand(3, 1, 28, 28), torch.tensor([0, 1, 2])
    with ledger.charge("image_gradient") as grant:
        got = made.private_gradients(5, critic, fakes, labels, Visit(0, data, grant, torch.Generator()))
    of_critic = image_gradients(critic, fakes, labels, "fp32")
    of_classifier = image_gradients(made._build_classifier(5)(), fakes, labels, "fp32")
    expected = of_critic if start_at > 5 else (1 - weight) * of_critic + weight * of_classifier
    assert torch.allclose(got, expected, atol=1e-7)


def phases(tmp_path, monkeypatch, **overrides) -> list[int]:
    """Returns the batch sizes of the classifier's updates in one step: fakes come by 20, records by at most 4."""
    sizes = []
    monkeypatch.setattr("methods.dpac.score_update", lambda net, adam, images, *rest: sizes.append(len(images)))
    data = records()
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
    data = records()
    made, ledger = start(tmp_path, "dpac", data, fresh_classifier=False, steps=4)
    for t in range(4):
        made.step(t, data, ledger)
    assert set(made.classifiers.state()) == set(made.critics.state())
    kept, _ = start(tmp_path / "fresh", "dpac", data)
    assert kept.classifiers.state() == {}


def test_mixing_phases_of_unequal_length_is_refused():
    hp = registry.hyper("dpac", TINY_DPAC | {"mix_phases": True, "classifier_fake_steps": 2})
    with pytest.raises(UserError, match="mix_phases"):
        registry.load("dpac").plan(hp, PUBLIC, Budget(10.0, 1e-5, "published"))


@pytest.mark.parametrize("generator", ["dcgan", "resnet"])
def test_fakes_made_part_by_part_are_those_made_at_once(tmp_path, monkeypatch, generator):
    made, _ = start(tmp_path, "gs_wgan", records(), generator=generator)
    labels, sizes, fakes = torch.arange(7), [], []
    made.generator.register_forward_hook(lambda net, inputs, output: sizes.append(len(output)))
    for images_at_once in (7, 3):
        # Spectral norm's vectors move by one iteration a call, however many parts it has: start each from the same.
        state = {name: value.clone() for name, value in made.generator.state_dict().items()}
        monkeypatch.setattr(sharded_gan, "_MAP_BYTES", 4 * made.generator.largest * images_at_once)
        fakes.append(made.fakes_for(labels, torch.Generator().manual_seed(0)))
        made.generator.load_state_dict(state)
    assert sizes == [7, 3, 3, 1]
    torch.testing.assert_close(*fakes)


def warm(folder: Path, data: PrivateData) -> dict[int, torch.Tensor]:
    cls = registry.load("gs_wgan")
    hp = registry.hyper("gs_wgan", TINY | {"warm_start_steps": 2})
    folder.mkdir()
    with Ledger.open(folder / "ledger.jsonl", (), Budget(math.inf, 0.5, "none")) as ledger:
        cls.make_warm_start(cls.warm_start(hp), Context(PUBLIC, (), 0, torch.device("cpu")), data, ledger, folder)
    made, _ = start(folder / "run", "gs_wgan", data, folder, warm_start_steps=2)
    return {shard: made.critics.lend(shard)[0].linear.parametrizations.weight.original.clone() for shard in range(6)}


def test_warm_start_gives_each_shard_its_own_critic_which_no_other_shards_records_move(tmp_path):
    shards = assign(60, 6, seed=0)
    before = warm(tmp_path / "a", records())
    after = warm(tmp_path / "b", records(changed=int(shards[4, 0])))
    moved = [shard for shard in range(6) if not torch.equal(before[shard], after[shard])]
    assert moved == [4]
    assert not torch.equal(before[0], before[1])


def test_an_interrupted_warm_start_keeps_finished_critics(tmp_path):
    whole = warm(tmp_path / "a", records())
    chunk = next((tmp_path / "a").glob("critics-*.safetensors"))
    stamp = chunk.stat().st_mtime_ns
    cls, hp = registry.load("gs_wgan"), registry.hyper("gs_wgan", TINY | {"warm_start_steps": 2})
    with Ledger.open(tmp_path / "a" / "ledger.jsonl", (), Budget(math.inf, 0.5, "none"), resume=True) as ledger:
        context = Context(PUBLIC, (), 0, torch.device("cpu"))
        cls.make_warm_start(cls.warm_start(hp), context, records(), ledger, tmp_path / "a")
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
        registry.load("nonprivate").plan(hp, PUBLIC, Budget(10.0, 1e-5, "sound"))


def test_published_settings_find_the_authors_noise():
    for dataset, records_, noise in (("mnist", 60000, 1.07), ("celeba", 162770, 0.61135)):
        hp = registry.hyper("gs_wgan", registry.paper_settings("gs_wgan", dataset, 10.0))
        public = PublicSpec(dataset, (1, 28, 28), 10, records_)
        (release,) = registry.load("gs_wgan").plan(hp, public, Budget(10.0, 1e-5, "published"))
        assert release.noise == pytest.approx(noise, rel=0.003)


@pytest.mark.parametrize(("field", "value"), [("generator", "vae"), ("precision", "fp8"), ("num_shards", 61)])
def test_settings_that_cannot_work_are_refused_by_name(field, value):
    hp = registry.hyper("gs_wgan", TINY | {field: value})
    with pytest.raises(UserError, match=field):
        registry.load("gs_wgan").plan(hp, PUBLIC, Budget(10.0, 1e-5, "published"))
