"""What is done for speed alone changes no result: each choice turned off, and all of them, agrees within rounding.

Adam turns the rounding of a gradient near zero into a step of whole size, so what is compared are gradients: those that
are sent to the generator, the generator's own, and the losses' at given weights. Only the warm start's critics, which
leave nothing but weights, are compared by how far they moved.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from torch import nn
from toys import CPU, TINY_DPAC, TINY_GAN, TOY, toy_records

from methods.commands import arguments
from methods.core import registry
from methods.core.method import Context
from methods.core.privacy import dp_sgd
from methods.core.privacy.grant import Grant
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.noise import NoiseSource
from methods.core.release import NO_BUDGET, Budget, PublicSpec
from methods.core.rng import named_rng, seeded
from methods.core.scattering.features import Scattering
from methods.core.sharded import pretraining, stacks
from methods.core.sharded.losses import critic_loss, image_gradients, score_loss
from methods.core.sharded.nets import Classifier, Critic, DCGANGenerator, ResNetGenerator, build_critic, draw_latents
from methods.core.sharded.stacks import NetworkBatch
from methods.core.speed import layout, written_gradients
from methods.core.speed.choices import CHOICES, Choices
from methods.core.speed.precision import mixed_precision
from methods.core.speed.upsampling import doubled_bilinearly, transposed

# Largest distance of a gradient, as a share of its norm. Single precision keeps 1e-7 of a product and sums hundreds of
# them; over two steps, a weight that Adam moved otherwise has been seen to make 1e-4 of it.
GRADIENT, AFTER_STEPS = 1e-5, 1e-3
# The same of a warm-started critic's movement, whose every step is Adam's.
MOVEMENT = 1e-2

BUDGET = Budget(10.0, 1e-5, "sound")
ALONE = {name: {name: False} for name in vars(Choices())}
EVERY = ALONE | {"all": dict.fromkeys(ALONE, False)}
# Choices that no sharded method comes to.
ELSEWHERE = {
    "separable_doubling", "one_backward_pass", "row_chunks", "remembered_features", "batched_teachers", "keep_freed",
    # On a GPU alone, or off as they are: tests/device.
    "pinned_copies", "compiled", "cuda_graphs",
}  # fmt: skip
SHARDED = [off for off in EVERY if off not in ELSEWHERE]


@pytest.fixture(autouse=True)
def _small_work_takes_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    # Else the choice would be made for large work alone, or on a GPU alone, and these tests would compare a path to
    # itself.
    monkeypatch.setattr(layout, "_MAP_BYTES", 2**16)
    monkeypatch.setattr(written_gradients, "_WIDE", 8)
    monkeypatch.setattr(written_gradients, "_MANY", 0)
    monkeypatch.setitem(stacks._GROUPED, "cpu", True)


@pytest.fixture
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def apart(on: torch.Tensor, off: torch.Tensor) -> float:
    """Returns the distance of two tensors as a share of the first one's norm."""
    assert on.norm() > 0
    return float((on - off).norm() / on.norm())


def flat(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([part.detach().flatten() for part in parts])


def train(folder: Path, **overrides) -> dict[str, torch.Tensor]:
    """Returns what DP-GAN-DPAC sends its generator in two steps without clip and noise, and the generator's gradients.

    Its critics and classifiers take the rates of a long run: what they learn in two steps must show.
    """
    settings = {"critic_width": 4, "critic_steps": 2, "critic_learning_rate": 0.01, "generator_learning_rate": 1e-3}
    hp, method = registry.hyper("dpac", TINY_DPAC | settings | overrides), registry.load("dpac")
    releases = method.plan(hp, TOY, NO_BUDGET)
    gan, sent = method(hp, Context(TOY, releases, 0, CPU)), {}
    answer = gan.mechanism.answer

    def kept(players, t: int, *others) -> tuple[torch.Tensor, torch.Tensor]:
        fakes, sent[f"image gradients of step {t}"] = answer(players, t, *others)
        return fakes, sent[f"image gradients of step {t}"]

    gan.mechanism.answer = kept
    with Ledger.open(folder / "ledger.jsonl", releases, NO_BUDGET, noise_key=b"1") as ledger:
        gan.prepare(toy_records(), ledger)
        for t in range(2):
            gan.step(t, toy_records(), ledger)
            sent[f"generator's gradient in step {t}"] = flat([part.grad for part in gan.generator.parameters()])
    return sent


RUNS: dict[str, dict] = {
    "resnet with spectral norm": {"generator": "resnet", "generator_width": 2},
    "dcgan": {"spectral_norm": False, "generator_width": 8},
    "Poisson-drawn shards": {"spectral_norm": False, "generator_width": 8, "shards_per_step": 3.0},
}


@functools.cache
def all_on(make: Callable[..., dict[str, torch.Tensor]], folder: Path, **arguments) -> dict[str, torch.Tensor]:
    """Returns `make(folder, **arguments)` with every choice on, made once."""
    return make(folder, **arguments)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("all on")


@pytest.mark.parametrize("off", SHARDED)
@pytest.mark.parametrize("run", RUNS)
def test_a_sharded_gan_is_sent_the_same_gradients(run: str, off: str, reference: Path, tmp_path: Path) -> None:
    expected = all_on(train, reference / run, **RUNS[run])
    with CHOICES.changed(**EVERY[off]):
        plain = train(tmp_path, **RUNS[run])
    assert plain.keys() == expected.keys()
    assert {name: apart(value, plain[name]) for name, value in expected.items()} == pytest.approx(
        dict.fromkeys(expected, 0.0), abs=AFTER_STEPS
    )


@pytest.mark.parametrize(
    ("choice", "fast"), [("patches", "patches"), ("folded_signals", "_folded_kernel"), ("written_gradients", "loss")]
)
def test_a_choice_decides_which_path_is_taken(choice: str, fast: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, whole = [], getattr(written_gradients, fast)
    monkeypatch.setattr(written_gradients, fast, lambda *given: calls.append(1) or whole(*given))
    critic = Critic((1, 28, 28), 10, 4, spectral=False)
    batch = torch.rand(3, 1, 28, 28), torch.rand(3, 1, 28, 28), torch.arange(3), torch.rand(3, 1, 1, 1)
    counts = []
    for on in (True, False):
        calls.clear()
        with CHOICES.changed(**{choice: on}):
            critic_loss(critic, *batch, 10.0, 0.001, "fp32").backward()
        counts.append(len(calls))
    assert counts[0] > counts[1]


def pretrain(folder: Path, generator: str) -> dict[str, torch.Tensor]:
    """Returns how far each of nine warm-started critics moved, of two files; with spectral norm."""
    settings = {"warm_start_steps": 2, "critic_steps": 2, "critic_width": 4, "num_shards": 9, "generator": generator}
    hp, context = registry.hyper("gs_wgan", TINY_GAN | settings), Context(TOY, (), 0, CPU)
    start = build_critic(hp, context).state_dict()
    with Ledger.open(folder / "ledger.jsonl", (), NO_BUDGET) as ledger:
        pretraining.pretrain(hp, context, toy_records(), ledger, folder)
    ends = {shard: pretraining.pretrained(folder, shard) for shard in range(9)}
    return {f"critic {shard}": flat([end[name] - start[name] for name in start]) for shard, end in ends.items()}


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize(("generator", "off"), [*(("dcgan", off) for off in SHARDED), ("resnet", "stacks")])
def test_warm_started_critics_move_alike(generator: str, off: str, reference: Path, tmp_path: Path) -> None:
    expected = all_on(pretrain, reference / f"warm start {generator}", generator=generator)
    with CHOICES.changed(**EVERY[off]):
        plain = pretrain(tmp_path, generator)
    assert max(apart(value, plain[name]) for name, value in expected.items()) < MOVEMENT


def scorer(kind: type[nn.Module], form: str) -> nn.Module | NetworkBatch:
    """Returns a scorer: one network, one with spectral norm, or three of either as a batch, each with its own weights.

    Spectral norm's vectors are far from their end, so that iterating them once too often or too seldom shows.
    """
    spectral = "normed" in form
    with seeded(0, "scorer"):
        networks = [kind((1, 28, 28), 10, 4, spectral) for _ in range(3)]
        plain = kind((1, 28, 28), 10, 4, False)
    return NetworkBatch.of(networks, plain, 1e-3) if "batch" in form else networks[0]


def batch(form: str) -> tuple[torch.Tensor, ...]:
    rng, many = named_rng(0, "batch"), (3,) if "batch" in form else ()
    real, fake = (torch.rand(*many, 4, 1, 28, 28, generator=rng) for _ in range(2))
    return real, fake, torch.randint(10, (*many, 4), generator=rng), torch.rand(*many, 4, 1, 1, 1, generator=rng)


def losses(kind: type[nn.Module], form: str) -> dict[str, torch.Tensor]:
    """Returns a loss of the scorer, its gradient by the weights, and then the gradients at fakes of two forms."""
    network, (real, fake, labels, share) = scorer(kind, form), batch(form)
    if isinstance(network, NetworkBatch):
        network._traced()
    weights = list(network.weights.values() if isinstance(network, NetworkBatch) else network.parameters())
    if kind is Critic:
        loss = critic_loss(network, real, fake, labels, share, 10.0, 0.5, "fp32")
    else:
        loss = score_loss(network, real, labels, 10.0, 0.5, "fp32")
    results = {"loss": loss.detach(), "weights": flat(list(torch.autograd.grad(loss.sum(), weights)))}
    results["images"] = image_gradients(network, fake, labels, "fp32")
    one_for_all = (fake[0], labels[0]) if "batch" in form else (fake, labels)
    results["images of all"] = image_gradients(network, *one_for_all, "fp32")
    return results


losses_all_on = functools.cache(losses)


@pytest.mark.parametrize("off", ["written_gradients", "folded_signals", "patches", "stacks", "all"])
@pytest.mark.parametrize("form", ["network", "normed network", "batch", "normed batch"])
@pytest.mark.parametrize("kind", [Critic, Classifier])
def test_losses_and_their_gradients_are_the_same(kind: type[nn.Module], form: str, off: str) -> None:
    expected = losses_all_on(kind, form)
    with CHOICES.changed(**EVERY[off]):
        plain = losses(kind, form)
    for name, value in expected.items():
        assert plain[name].shape == value.shape, name
        assert apart(value, plain[name]) < GRADIENT, name


def test_traced_losses_keep_convolutions_in_the_settings_precision() -> None:
    network, (real, fake, labels, share) = scorer(Critic, "network"), batch("network")
    with CHOICES.changed(written_gradients=False):
        half, single = (image_gradients(network, fake, labels, precision).flatten() for precision in ("bf16", "fp32"))
        loss = critic_loss(network, real, fake, labels, share, 10.0, 0.5, "bf16")
    assert half.dtype == loss.dtype == torch.float32
    assert 1e-3 < apart(single, half) < 0.2


# Arguments that leave spectral norm out.
PLAIN = {ResNetGenerator: (False,), DCGANGenerator: ()}


def generated(kind: type[nn.Module]) -> dict[str, torch.Tensor]:
    with seeded(0, "generator"):
        network = layout.laid_out(kind((1, 28, 28), 10, 8).eval())
    images = network(draw_latents(4, named_rng(0, "latents")), torch.arange(4))
    images.square().sum().backward()
    return {"images": images.detach(), "gradient": flat([part.grad for part in network.parameters()])}


@pytest.mark.parametrize("off", ["folded_upsampling", "by_places", "written_pixel_norm", "channels_last", "all"])
@pytest.mark.parametrize("kind", PLAIN)
def test_generators_make_the_same_images_and_gradients(kind: type[nn.Module], off: str) -> None:
    expected = generated(kind)
    with CHOICES.changed(**EVERY[off]):
        plain = generated(kind)
    for name, value in expected.items():
        assert apart(value, plain[name]) < GRADIENT, name


def generated_together(kind: type[nn.Module]) -> dict[str, torch.Tensor]:
    """Returns images of a batch of three generators, their gradient by the weights, and spectral norm's vectors."""
    arguments = ((1, 28, 28), 10, 4)
    with seeded(0, "generators"):
        networks, plain = [kind(*arguments) for _ in range(3)], kind(*arguments, *PLAIN[kind])
    together = NetworkBatch.of(networks, plain, 1e-3)
    together._traced()
    images = together.generate(draw_latents(12, named_rng(0, "latents")).view(3, 4, -1), torch.arange(4).repeat(3, 1))
    gradients = torch.autograd.grad(images.square().sum(), list(together.weights.values()))
    vectors = flat([vector for pair in together.vectors.values() for vector in pair] or [torch.ones(1)])
    return {"images": images.detach(), "gradient": flat(list(gradients)), "vectors": vectors}


@pytest.mark.parametrize("kind", PLAIN)
def test_a_batch_of_generators_makes_the_same_images_and_gradients(kind: type[nn.Module]) -> None:
    expected = generated_together(kind)
    with CHOICES.changed(stacks=False):
        plain = generated_together(kind)
    for name, value in expected.items():
        assert apart(value, plain[name]) < GRADIENT, name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("layer", [(6, 5, 3, 2, 1), (6, 3, 4, 2, 1), (6, 5, 4, 2, 0), (4, 3, 5, 1, 0)])
def test_a_transposed_convolution_makes_the_same_maps_and_gradients(layer: tuple[int, ...], precision: str) -> None:
    with seeded(0, "transposed"):
        network, maps = nn.ConvTranspose2d(*layer), torch.randn(4, layer[0], 6, 7).requires_grad_()
    results = []
    for on in (True, False):
        with CHOICES.changed(by_places=on), mixed_precision(CPU, precision):
            made = transposed(network, maps)
        results.append([made, *torch.autograd.grad(made.float().square().sum(), [maps, *network.parameters()])])
    for fast, plain in zip(*results, strict=True):
        assert fast.shape == plain.shape and fast.dtype == plain.dtype
        assert apart(plain.detach().float(), fast.detach().float()) < (GRADIENT if precision == "fp32" else 1e-2)


def test_scattering_features_are_the_same_and_their_gradients_too() -> None:
    with seeded(0, "scattering"):
        images, weights = torch.rand(3, 2, 16, 12).requires_grad_(), torch.randn(3, 2 * 81 * 12)
    results = []
    for on in (True, False):
        with CHOICES.changed(patches=on):
            features = Scattering((2, 16, 12))(images)
        results.append((features.detach(), torch.autograd.grad((features * weights).sum(), images)[0]))
    (fast, by_fast), (plain, by_plain) = results
    # What is released is made of features: these must not even be rounded otherwise.
    assert torch.equal(fast, plain)
    assert 0 < apart(by_plain, by_fast) < GRADIENT


def doubled() -> dict[str, torch.Tensor]:
    with seeded(0, "doubled"):
        convolution, maps = nn.Conv2d(3, 2, 5, padding=2), torch.randn(4, 3, 7, 6).requires_grad_()
    images = doubled_bilinearly(maps, convolution)
    gradients = torch.autograd.grad(images.square().sum(), [maps, *convolution.parameters()])
    return {"images": images.detach(), "gradients": flat(list(gradients))}


@pytest.mark.parametrize("off", ["separable_doubling", "all"])
def test_dp_merfs_last_layer_makes_the_same_images_and_gradients(off: str) -> None:
    expected = doubled()
    with CHOICES.changed(**EVERY[off]):
        plain = doubled()
    for name, value in expected.items():
        assert plain[name].shape == value.shape
        assert apart(value, plain[name]) < GRADIENT, name


class _Discriminator(nn.Module):
    """Layers of few places and of many, without a bias and with one; rows [B, 160] to scores [B]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 3, (3, 2), (1, 2), (0, 1)), nn.Tanh(), nn.Conv2d(3, 12, 3, 2, 1, bias=False), nn.Tanh(),
            nn.Conv2d(12, 20, 3), nn.Flatten(), nn.Linear(20, 1), nn.Flatten(0),
        )  # fmt: skip

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.layers(rows.view(-1, 2, 8, 10).contiguous(memory_format=torch.channels_last))


def private_step(kind: str) -> torch.Tensor:
    """Returns what one DP-SGD step moves a network by: five records, one of them not finite, and three fakes."""
    with seeded(0, "dp-sgd"):
        network = _Discriminator().to(memory_format=torch.channels_last)
        records = torch.randn(5, 160) * torch.tensor([0.01, 0.1, 1, 3, torch.inf])[:, None]
        fakes = torch.randn(3, 160)
    public = PublicSpec("toy", (2, 8, 10), 10, 100)
    release = dp_sgd.release("g", SimpleNamespace(clip=0.5, batch_size=5, steps=1), public, noise=0.1)
    release = release if kind == "gaussian" else release.without_noise()
    before = flat(list(network.parameters()))
    sgd = torch.optim.SGD(network.parameters(), lr=1.0)
    private = dp_sgd.PrivateOptimizer(network, sgd, release, expected_batch=5, chunk=2)
    grant = Grant(release, NoiseSource(b"0"), 1)
    private.step(grant, lambda network, rows: network(rows).square() * 3, records, fakes, weight=0.7)
    return before - flat(list(network.parameters()))


@pytest.mark.parametrize("kind", ["gaussian", "none"])
@pytest.mark.parametrize("off", ["one_backward_pass", "row_chunks", "all"])
def test_a_dp_sgd_step_releases_the_same_sum(off: str, kind: str) -> None:
    expected = private_step(kind)
    assert expected.isfinite().all()
    with CHOICES.changed(**EVERY[off]):
        assert apart(expected, private_step(kind)) < GRADIENT


def clipped_sum(folder: Path, method: str) -> torch.Tensor:
    """Returns the sum of clipped gradients of a method's first step, before noise."""
    settings = {"dpgan": {"latent": 4, "dim": 4}, "dp_cgan": {}}[method]
    hp, cls, sums = registry.hyper(method, settings | {"steps": 2, "batch_size": 20}), registry.load(method), []
    releases = cls.plan(hp, TOY, BUDGET)
    gan, noise = cls(hp, Context(TOY, releases, 0, CPU)), Grant.noise
    with (
        Ledger.open(folder / "ledger.jsonl", releases, BUDGET, noise_key=b"1") as ledger,
        mock.patch.object(Grant, "noise", lambda self, like: sums.append(like) or noise(self, like)),
    ):
        gan.prepare(toy_records(), ledger)
        gan.step(0, toy_records(), ledger)
    return sums[0]


@pytest.mark.parametrize("method", ["dpgan", "dp_cgan"])
def test_the_methods_trained_by_dp_sgd_release_the_same_sum(method: str, tmp_path: Path) -> None:
    expected = clipped_sum(tmp_path / "on", method)
    with CHOICES.all_off():
        assert apart(expected, clipped_sum(tmp_path / "off", method)) < GRADIENT


@pytest.mark.parametrize("keep", [True, False])
def test_a_command_keeps_freed_memory_unless_told_not_to(keep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(arguments, "keep_freed", lambda: asked.append(None))
    with CHOICES.changed(keep_freed=keep):
        arguments.use_machine(argparse.Namespace(threads=1, device="cpu"))
    assert bool(asked) == keep


def test_choices_change_for_a_block_alone() -> None:
    with pytest.raises(KeyError), CHOICES.changed(stacks=False, patches=False):
        assert not CHOICES.stacks and not CHOICES.patches and CHOICES.threads
        raise KeyError
    with CHOICES.all_off():
        assert not any(vars(CHOICES).values())
    assert Choices() == CHOICES
    assert {name for name, on in vars(CHOICES).items() if not on} == {"compiled", "cuda_graphs"}


def test_a_choice_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match="speed"), CHOICES.changed(speed=False):
        pass
