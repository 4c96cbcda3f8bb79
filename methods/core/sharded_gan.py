"""Gradient-sanitised Wasserstein GAN on disjoint shards: what GS-WGAN, DP-GAN-DPAC and their noiseless twin share.

A step draws one shard, trains that shard's critic on it, and sends the generator one noisy clipped gradient per
generated image. Critics never leave the run's private folder. Source: GS-WGAN source/main.py, rewritten; departures
are listed in the methods' SOURCES.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from methods.core import warm_critics
from methods.core.method import Context, Method, StepLog
from methods.core.nets import GENERATORS, draw_latents
from methods.core.optimisers import adam, update_average
from methods.core.privacy import Budget, Grant, Ledger, PublicSpec, Release, calibrate
from methods.core.private_data import PrivateData
from methods.core.shard_networks import build_critic, build_generator
from methods.core.shards import ShardNetworks, assign
from methods.core.stacks import at_once
from methods.core.streams import stream
from methods.core.summed_shards import FAKES_PER_CLASS, ShardCritics, Visits
from methods.core.wasserstein import DTYPES, critic_update, image_gradients, mixed_precision
from workflow.common.errors import UserError, unknown

RELEASE = "image_gradient"
SAMPLE_BATCH = 500
# A part of maps that the allocator keeps for the next one.
_MAP_BYTES = 2**24


def described(default: Any, text: str) -> Any:
    """Returns a dataclass field with a default and its meaning, unit included."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class ShardedHyper:
    """Hyper-parameters of the gradient-sanitised GAN; the defaults are GS-WGAN's for MNIST."""

    steps: int = described(20000, "generator steps")
    batch_size: int = described(32, "generated images per generator step, each with its own noisy gradient")
    num_shards: int = described(1000, "disjoint shards of the records, one critic each")
    shards_per_step: float = described(
        0.0, "expected shards per step, Poisson-drawn, their gradients summed; 0: exactly one, as the authors draw"
    )
    critic_batch: int = described(32, "records per critic update")
    critic_steps: int = described(5, "critic updates before each generator step")
    warm_start_steps: int = described(2000, "private generator steps each critic is trained for beforehand; 0: none")
    warm_start_width: int = described(64, "width of the throw-away warm-start generators; 64 is the paper's")
    generator: str = described("resnet", "resnet or dcgan")
    generator_width: int = described(64, "base channels of the generator; 64 is the paper's")
    critic_width: int = described(64, "base channels of critic and classifier; 64 is the paper's")
    spectral_norm: bool = described(True, "spectral normalisation of critic, classifier and resnet generator")
    generator_learning_rate: float = described(1e-4, "Adam step size of the generator")
    critic_learning_rate: float = described(1e-4, "Adam step size of critics and classifier")
    clip: float = described(1.0, "L2 bound on one image's gradient, in units of score per [0, 1] image")
    gradient_penalty: float = described(10.0, "weight of the gradient penalty")
    drift: float = described(0.001, "weight of the mean squared score")
    average_decay: float = described(0.999, "largest decay of the generator's running average, which samples")
    precision: str = described("fp32", "fp32 or bf16 (autocast; penalties, noise and optimisers stay fp32)")


@dataclass(frozen=True)
class Visit:
    """What one step may do with the shard that it drew: read it under its grant, with the step's own draws."""

    shard: int
    data: PrivateData
    grant: Grant
    stream: torch.Generator


class _ShardedGAN(Method):
    """Base of the methods whose generator learns from shard critics; subclasses may add to the image gradient."""

    Hyper = ShardedHyper

    @classmethod
    def plan(cls, hp: Any, public: PublicSpec, budget: Budget) -> tuple[Release, ...]:
        """Returns the one release of a run, its noise calibrated.

        `batch_size` image gradients a step from one shard; or, with `shards_per_step`, the sum of one row for each of
        the shards of a Poisson draw, which holds the gradients of all images of the step.
        """
        check(hp, public)

        def releases(noise: float) -> tuple[Release, ...]:
            return (_sum_of_shards(hp, noise) if hp.shards_per_step else _one_shard(hp, noise),)

        return releases(calibrate(releases, budget))

    @classmethod
    def warm_start(cls, hp: Any) -> dict[str, Any] | None:
        """Returns what determines the warm-started critics, or None if the critics start untrained."""
        if not hp.warm_start_steps:
            return None
        shared = (
            "num_shards", "critic_batch", "critic_steps", "warm_start_steps", "warm_start_width", "generator",
            "critic_width", "spectral_norm", "critic_learning_rate", "gradient_penalty", "drift", "precision",
        )  # fmt: skip
        return {name: getattr(hp, name) for name in shared}

    @classmethod
    def make_warm_start(
        cls, settings: Mapping[str, Any], context: Context, data: PrivateData, ledger: Ledger, out: Path
    ) -> None:
        """Trains every critic on its own shard against its own throw-away generator, as both papers do off-line."""
        hp = ShardedHyper(**settings)
        check(hp, context.public)
        warm_critics.make(hp, context, data, ledger, out)

    def __init__(self, hp: Any, context: Context) -> None:
        super().__init__(hp, context)
        check(hp, context.public)
        self.generator = build_generator(hp, context, hp.generator_width, "generator")
        self.average = build_generator(hp, context, hp.generator_width, "generator")
        self.optimizer = adam(self.generator.parameters(), hp.generator_learning_rate)
        self.shards = assign(context.public.num_train, hp.num_shards, context.seed)
        self.critics: ShardNetworks | ShardCritics | None = None

    @property
    def num_steps(self) -> int:
        return self.hp.steps

    def prepare(self, data: PrivateData, ledger: Ledger, warm_start: Path | None = None) -> None:
        if self.hp.warm_start_steps and warm_start is None:
            raise UserError("warm_start_steps is not 0 but no critics were given; make them by methods.core.warmstart")
        build = partial(build_critic, self.hp, self.context)
        if self.hp.shards_per_step:
            self.critics = ShardCritics(self.hp, build)
        else:
            self.critics = ShardNetworks(build, self.hp.critic_learning_rate, warm_start)

    def resume(self, data: PrivateData, ledger: Ledger, warm_start: Path | None = None) -> None:
        self.prepare(data, ledger, warm_start)

    def step(self, t: int, data: PrivateData, ledger: Ledger) -> StepLog:
        """Draws a shard, or several, trains their critics, and moves the generator by one noisy gradient."""
        name, size = self.next_release(ledger)
        with ledger.charge(name) as grant:
            # Keyed by the use: a resumed run draws what the straight run drew, and lost steps' draws are not repeated.
            uses = sum(ledger.uses(release.name) for release in self.context.releases)
            draws = stream(self.context.seed, "step", uses - 1)
            ask = self._ask_many_shards if self.hp.shards_per_step else self._ask_one_shard
            fakes, noisy = ask(t, size, data, grant, draws)
        self.optimizer.zero_grad(set_to_none=True)
        fakes.backward(noisy / size)
        self.optimizer.step()
        update_average(self.average, self.generator, t + 1, self.hp.average_decay)
        return {"noisy_gradient_norm": float(noisy.flatten(1).norm(dim=1).mean())}

    def _ask_one_shard(
        self, t: int, size: int, data: PrivateData, grant: Grant, draws: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns fakes [B, C, H, W] with their graph and a noisy gradient for each, from the one drawn shard."""
        visit = Visit(grant.shard(), data, grant, draws)
        critic, optimizer = self.critics.lend(visit.shard)
        self._train_critic(critic, optimizer, visit)
        self.critics.keep(visit.shard, optimizer)
        labels = self.uniform_labels(size, draws)
        fakes = _make(self.generator, labels, draws, self.hp.precision)
        gradients = self.private_gradients(t, critic, fakes, labels, visit)
        return fakes, grant.gaussian(gradients.flatten(1)).view(-1, *fakes.shape).sum(0)

    def _ask_many_shards(
        self, t: int, size: int, data: PrivateData, grant: Grant, draws: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns fakes [B, C, H, W] with their graph and the noisy mean of the drawn shards' gradients."""
        drawn = grant.poisson_batch(self.hp.num_shards)
        labels = self.uniform_labels(size, draws)
        fakes = _make(self.generator, labels, draws, self.hp.precision)
        pool, _ = self.balanced_fakes(FAKES_PER_CLASS, draws)
        # Draws of its own: the critics' batches do not depend on whether a phase is shared.
        shared = self.shared_phase(t, stream(draws.initial_seed(), "shared phase"))
        classes = self.public.num_classes
        visits = (
            Visits(some, self.shards[some], data, grant, draws, pool, classes, shared)
            for some in at_once(drawn, self.device)
        )
        rows = (self.summed_gradients(t, visit, fakes.detach(), labels).flatten(1) for visit in visits)
        total = grant.gaussian_sum(rows, fakes.numel(), self.device)
        # By the expected number: the one that was drawn is a secret.
        return fakes, total.view_as(fakes) / self.hp.shards_per_step

    def next_release(self, ledger: Ledger) -> tuple[str, int]:
        """Returns the name of the release that the coming step charges, and the number B of images it generates."""
        return RELEASE, self.hp.batch_size

    def private_gradients(
        self, t: int, critic: nn.Module, fakes: torch.Tensor, labels: torch.Tensor, visit: Visit
    ) -> torch.Tensor:
        """Returns gradients [N * B, C, H, W], not yet private, from the shard that this step drew.

        N = 1: one gradient per fake. Otherwise N blocks of one per fake, each row sanitised apart; the generator gets
        the sum of the blocks.
        """
        return image_gradients(critic, fakes, labels, self.hp.precision)

    def shared_phase(self, t: int, stream: torch.Generator) -> Any:
        """Returns what all drawn shards of a step share, made of public values alone; `Visits` brings it to each."""
        return None

    def summed_gradients(self, t: int, visits: Visits, fakes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns gradients [M, B, C, H, W], not yet private, of fakes [B, C, H, W] from each of some drawn shards."""
        return self.critics.gradients(visits, fakes, labels)

    def uniform_labels(self, count: int, stream: torch.Generator) -> torch.Tensor:
        """Returns labels int64 [N], uniform over classes: the true frequencies stay private."""
        return torch.randint(self.public.num_classes, (count,), generator=stream).to(self.device)

    def read_batch(self, visit: Visit) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns `critic_batch` distinct random records of the shard: images [B, C, H, W] in [0, 1], labels [B].

        B is the shard's size where that is smaller.
        """
        records = self.shards[visit.shard]
        return _read(records, self.hp.critic_batch, visit.data, visit.grant, visit.stream, self.device)

    @torch.no_grad()
    def fakes_for(self, labels: torch.Tensor, stream: torch.Generator) -> torch.Tensor:
        """Returns current fakes [N, C, H, W] for labels [N], without a graph."""
        return _make(self.generator, labels, stream, self.hp.precision)

    def balanced_fakes(self, per_class: int, stream: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns current fakes [classes * per_class, C, H, W] and labels 0 .. classes - 1, again and again."""
        labels = torch.arange(self.public.num_classes).repeat(per_class).to(self.device)
        return self.fakes_for(labels, stream), labels

    def _train_critic(self, critic: nn.Module, optimizer: torch.optim.Optimizer, visit: Visit) -> None:
        hp, stream = self.hp, visit.stream
        batches = [self.read_batch(visit) for _ in range(hp.critic_steps)]
        # The generator does not move in between, so one pass makes the fakes of all updates.
        fakes = self.fakes_for(torch.cat([labels for _, labels in batches]), stream).split([len(y) for _, y in batches])
        for (images, labels), fake in zip(batches, fakes, strict=True):
            critic_update(critic, optimizer, images, fake, labels, stream, hp.gradient_penalty, hp.drift, hp.precision)

    @torch.no_grad()
    def sample(self, labels: torch.Tensor, stream: torch.Generator) -> torch.Tensor:
        """Returns uint8 images [N, C, H, W] of the averaged generator."""
        self.average.eval()
        made = []
        for part in labels.split(SAMPLE_BATCH):
            images = self.average(draw_latents(len(part), stream).to(self.device), part.to(self.device))
            made.append((images * 255).round().to(torch.uint8).cpu())
        return torch.cat(made)

    def public_state(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().contiguous() for name, value in self.average.state_dict().items()}

    def private_state(self) -> dict[str, Any]:
        return {
            "generator": self.generator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "critics": self.critics.state() if self.critics else {},
        }

    def load(self, public: Mapping[str, torch.Tensor], private: Mapping[str, Any] | None) -> None:
        self.average.load_state_dict(dict(public))
        if private is not None:
            self.generator.load_state_dict(private["generator"])
            self.optimizer.load_state_dict(private["optimizer"])
            self.critics.load(private["critics"])


def _one_shard(hp: Any, noise: float) -> Release:
    return Release(
        name=RELEASE, kind="gaussian", clip=hp.clip, noise=noise, bounded="function", rows=hp.batch_size,
        rate=1 / hp.num_shards, sampling="one_shard_of_k", max_uses=hp.steps, draws="per_step", state="hidden",
    )  # fmt: skip


def _sum_of_shards(hp: Any, noise: float) -> Release:
    # A shard's row holds the gradients of all images: clipped at the radius that contains each of them clipped alone.
    return Release(
        name=RELEASE, kind="gaussian", clip=hp.clip * math.sqrt(hp.batch_size), noise=noise, bounded="sum",
        rows=hp.num_shards, rate=hp.shards_per_step / hp.num_shards, sampling="poisson", max_uses=hp.steps,
        state="hidden",
    )  # fmt: skip


def check(hp: Any, public: PublicSpec) -> None:
    """Raises UserError for hyper-parameters that do not go together or an image size the networks do not make."""
    if hp.generator not in GENERATORS:
        raise unknown("generator", hp.generator, GENERATORS)
    if hp.precision not in ("fp32", "bf16"):
        raise unknown("precision", hp.precision, ("fp32", "bf16"))
    if tuple(public.image_shape[1:]) not in ((28, 28), (32, 32)):
        raise UserError(f"the GAN networks make 28x28 or 32x32 images, {public.dataset} has {public.image_shape}")
    if not 1 <= hp.num_shards <= public.num_train:
        raise UserError(f"num_shards must be 1 to {public.num_train} (the records), got {hp.num_shards}")
    if not 0 <= hp.shards_per_step <= hp.num_shards:
        raise UserError(f"shards_per_step must be 0 to num_shards, {hp.num_shards}; got {hp.shards_per_step:g}")
    if hp.shards_per_step and (hp.warm_start_steps or hp.spectral_norm):
        raise UserError(
            "shards_per_step trains its critics as a stack, from the first step on: it needs warm_start_steps 0 and"
            f" spectral_norm false, got {hp.warm_start_steps} and {str(hp.spectral_norm).lower()}"
        )
    for name in ("steps", "batch_size", "critic_batch", "critic_steps"):
        if getattr(hp, name) < 1:
            raise UserError(f"{name} must be at least 1, got {getattr(hp, name)}")


def _make(generator: nn.Module, labels: torch.Tensor, stream: torch.Generator, precision: str) -> torch.Tensor:
    """Returns fakes [N, C, H, W] of the labels [N], in single precision whatever the layers' is.

    Without a graph they are made part by part where the maps of all would need new memory from the system each time.
    """
    latents = draw_latents(len(labels), stream).to(labels.device)
    traced_or_gpu = torch.is_grad_enabled() or labels.device.type != "cpu"
    size = len(labels) if traced_or_gpu else max(1, _MAP_BYTES // (generator.largest * DTYPES[precision].itemsize))
    with mixed_precision(labels.device, precision), parametrize.cached():
        parts = zip(latents.split(size), labels.split(size), strict=True)
        return torch.cat([generator(*part).float() for part in parts])


def _read(
    records: torch.Tensor, size: int, data: PrivateData, grant: Grant, stream: torch.Generator, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    chosen = records[torch.randperm(len(records), generator=stream)[:size]]
    images, labels = data.read(grant, chosen)
    return images.to(device).float() / 255, labels.to(device)
