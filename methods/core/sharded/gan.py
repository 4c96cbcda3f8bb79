"""Gradient-sanitised Wasserstein GAN on disjoint shards: what GS-WGAN, DP-GAN-DPAC and their noiseless twin share.

Each shard of the records has a critic of its own. A step draws shards, trains their critics on them, and sends the
generator a noisy clipped gradient of its images. Which shards are drawn, and what is clipped and noised, is the
mechanism's part: `one_shard` as the papers do it, `poisson_shards` soundly. Critics never leave the run's private
folder. Source: GS-WGAN source/main.py, rewritten; departures are listed in SHARED and in the methods' SOURCES.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.utils import parametrize

from methods.core.method import Context, Method, StepLog, check_records, check_size
from methods.core.optimisers import adam, update_average
from methods.core.partition import partition
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import PublicSpec, Release
from methods.core.rng import named_rng
from methods.core.sharded import pretraining
from methods.core.sharded.interface import Mechanism, Networks, ShardStep
from methods.core.sharded.losses import critic_loss, image_gradients
from methods.core.sharded.nets import GENERATORS, SIZES, build_critic, build_generator, draw_latents
from methods.core.sharded.one_shard import OneShard
from methods.core.sharded.poisson_shards import PoissonShards
from methods.core.speed.layout import map_parts
from methods.core.speed.precision import PRECISIONS, computed_in, mixed_precision
from methods.core.speed.transfers import sent
from workflow.common.errors import UserError
from workflow.common.search_space import Space, choice, times
from workflow.common.settings import parse, setting

SAMPLE_BATCH = 500


@dataclass(frozen=True)
class ShardedHyper:
    """Hyper-parameters of the gradient-sanitised GAN; the defaults are GS-WGAN's for MNIST."""

    steps: int = setting(20000, "generator steps", 1, 10_000_000)
    batch_size: int = setting(32, "generated images per generator step, each with its own noisy gradient", 1, 16_384)
    num_shards: int = setting(1000, "disjoint shards of the records, one critic each", 1, 10_000)
    shards_per_step: float = setting(
        0.0, "expected shards per step, Poisson-drawn, their gradients summed; 0: exactly one, as the authors draw", 0,
        10_000,
    )  # fmt: skip
    critic_batch: int = setting(32, "records per critic update", 1, 16_384)
    critic_steps: int = setting(5, "critic updates before each generator step", 1, 1000)
    warm_start_steps: int = setting(
        2000, "private generator steps each critic is trained for beforehand; 0: none", 0, 1_000_000
    )
    warm_start_width: int = setting(64, "width of the throw-away warm-start generators; 64 is the paper's", 1, 256)
    generator: str = setting("resnet", "network of the generator", choices=GENERATORS)
    generator_width: int = setting(64, "base channels of the generator; 64 is the paper's", 1, 512)
    critic_width: int = setting(64, "base channels of critic and classifier; 64 is the paper's", 1, 512)
    spectral_norm: bool = setting(True, "spectral normalisation of critic, classifier and resnet generator")
    generator_learning_rate: float = setting(1e-4, "Adam step size of the generator", 0, 10)
    critic_learning_rate: float = setting(1e-4, "Adam step size of critics and classifier", 0, 10)
    clip: float = setting(1.0, "L2 bound on one image's gradient, in units of score per [0, 1] image", 1e-9, 1e6)
    gradient_penalty: float = setting(10.0, "weight of the gradient penalty", 0, 1e6)
    drift: float = setting(0.001, "weight of the mean squared score", 0, 1e6)
    average_decay: float = setting(
        0.999, "largest decay of the generator's running average, which samples", 0, 0.999999
    )
    precision: str = setting("fp32", "of convolutions; penalties, noise and optimisers stay fp32", choices=PRECISIONS)


def mechanism_of(hp: Any) -> type[Mechanism]:
    """Returns how drawn shards answer a step, as the settings say."""
    return PoissonShards if hp.shards_per_step else OneShard


class ShardedGAN(Method):
    """Base of the methods whose generator learns from shard critics; subclasses may add to the image gradient."""

    Hyper = ShardedHyper
    SHARED: ClassVar[tuple[str, ...]] = (
        "departure: exactly `steps` generator steps, in the warm start too; the repositories make one more",
        "departure: critic batches are fresh random subsets of the shard; the repositories walk through epochs",
        "departure: a warm start's generators always make critic_batch images; the repositories' as many as the last "
        "critic batch has, 32 or 28 on MNIST",
        "departure: the warm start takes critic_steps per generator step; DP-GAN-DPAC's 5 for CelebA too, which has 10",
        "departure: all critics start from one initialisation; each warm-start generator from its own",
        "departure: the running average starts at decay 1/2, the repositories' at 0",
        "departure: spectral norm is torch's, whose vectors start after 16 iterations and move u first, then v; the "
        "repositories' start at random and move v first",
        "departure: spectral norm iterates once per update of critic or classifier and once for all fakes of a step's "
        "critic updates; the repositories' on every forward pass, three times a critic update and six times or "
        "more a step in the generator",
        "departure: spectral norm stands still in the pass that yields the image gradients and while sampling; its "
        "vectors are never trained nor averaged, where the repositories' optimisers and averages take them along",
        "departure: the DCGAN generator for 32x32 is ours, the repositories define 28x28 alone; for 64x64 all "
        "networks have a layer or block more",
    )

    SEARCH = {
        "steps": times(0.5, 1.5),
        "batch_size": times(0.2, 1.5),
        "clip": times(0.2, 3),
        "generator_learning_rate": times(0.3, 3),
        "average_decay": choice(0.98, 0.99, 0.995),
    }
    # A warm start would have to be made anew for each value, which takes longer than the trial itself.
    SEARCH_OF_CRITICS: ClassVar[Space] = {
        "critic_steps": choice(1, 2, 4),
        "critic_learning_rate": times(0.3, 3),
        "gradient_penalty": times(0.3, 2),
    }
    SEARCH_OF_SHARDS: ClassVar[Space] = {"num_shards": times(0.5, 3), "shards_per_step": times(0.4, 3)}

    @classmethod
    def search_space(cls, hp: Any) -> Space:
        """Returns `SEARCH`, and what else the form that `hp` chooses has: untrained critics, several shards."""
        critics = {} if hp.warm_start_steps else cls.SEARCH_OF_CRITICS
        return {**cls.SEARCH, **critics, **(cls.SEARCH_OF_SHARDS if hp.shards_per_step else {})}

    @classmethod
    def check(cls, hp: Any, public: PublicSpec) -> None:
        super().check(hp, public)
        check_size("the GAN's networks make", SIZES, public)
        check_records("num_shards", hp.num_shards, public, "{one_per: 60, at_least: 2}")
        mechanism_of(hp).check(hp)

    @classmethod
    def rehearsal(cls, hp: Any) -> Any:
        """Starts from untrained critics, which learn once a step; see Method."""
        return replace(hp, warm_start_steps=0, critic_steps=1)

    @classmethod
    def releases(cls, hp: Any, public: PublicSpec, noise: float) -> tuple[Release, ...]:
        """Returns the one release of a run: the image gradients of each step, as the mechanism answers."""
        return (mechanism_of(hp).release(hp, noise),)

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
    def check_warm_start(cls, settings: Mapping[str, Any], public: PublicSpec) -> None:
        ShardedGAN.check(parse(ShardedHyper, settings, "warm-start setting"), public)

    @classmethod
    def make_warm_start(
        cls, settings: Mapping[str, Any], context: Context, data: PrivateData, ledger: Ledger, out: Path
    ) -> None:
        """Trains every critic on its own shard against its own throw-away generator, as both papers do off-line."""
        hp = parse(ShardedHyper, settings, "warm-start setting")
        ShardedGAN.check(hp, context.public)
        pretraining.pretrain(hp, context, data, ledger, out)

    def __init__(self, hp: Any, context: Context) -> None:
        super().__init__(hp, context)
        self.check(hp, context.public)
        self.generator = build_generator(hp, context, hp.generator_width, "generator")
        self.average = build_generator(hp, context, hp.generator_width, "generator")
        self.optimizer = adam(self.generator.parameters(), hp.generator_learning_rate)
        shards = partition(context.public.num_train, hp.num_shards, context.seed)
        self.mechanism = mechanism_of(hp)(hp, shards, self.device)

    @property
    def num_steps(self) -> int:
        return self.hp.steps

    @property
    def step_releases(self) -> tuple[Release, ...]:
        """The releases that steps charge."""
        return self.context.releases

    def prepare(self, data: PrivateData, ledger: Ledger, warm_start: Path | None = None) -> None:
        self.make_networks(warm_start)

    def resume(self, data: PrivateData, ledger: Ledger, warm_start: Path | None = None) -> None:
        self.make_networks(warm_start)

    def make_networks(self, warm_start: Path | None = None) -> None:
        """Makes the networks that each shard has, as they are before any shard was drawn."""
        if self.hp.warm_start_steps and warm_start is None:
            raise UserError("warm_start_steps is not 0 but no critics were given; make them by methods warm-start")
        self.critics = self.mechanism.networks(self.new_critic, warm_start)

    def new_critic(self) -> nn.Module:
        """Returns the critic that every shard starts from."""
        return build_critic(self.hp, self.context)

    def step(self, t: int, data: PrivateData, ledger: Ledger) -> StepLog:
        """Draws shards, trains their critics, and moves the generator by one noisy gradient."""
        release, size = self.next_release(ledger)
        with ledger.charge(release) as grant:
            # Keyed by the use: a resumed run draws what the straight run drew, and lost steps' draws are not repeated.
            uses = sum(ledger.uses(release.name) for release in self.step_releases)
            rng = named_rng(self.context.seed, "step", uses - 1)
            fakes, noisy = self.mechanism.answer(self, t, size, data, grant, rng)
        self.move_generator(t, fakes, noisy / size)
        return {"noisy_gradient_norm": noisy.flatten(1).norm(dim=1).mean()}

    def move_generator(self, t: int, fakes: torch.Tensor, gradients: torch.Tensor) -> None:
        """Moves the generator down the gradients of its images [B, C, H, W], for the t-th time from 0 on."""
        self.optimizer.zero_grad(set_to_none=True)
        fakes.backward(gradients)
        self.optimizer.step()
        update_average(self.average, self.generator, t + 1, self.hp.average_decay)

    def next_release(self, ledger: Ledger) -> tuple[str, int]:
        """Returns the name of the release that the coming step charges, and the number B of images it generates."""
        return self.step_releases[0].name, self.hp.batch_size

    def train_critics(self, step: ShardStep) -> Networks:
        """Returns the critics of the step's shards after `critic_steps` updates on their records and on fakes."""
        hp = self.hp
        critics = self.critics.take(step.shards)
        for real, fake, labels, share in step.critic_batches(hp.critic_steps, hp.critic_batch):

            def loss(scorer: Any, batch: tuple[torch.Tensor, ...] = (real, fake, labels, share)) -> torch.Tensor:
                return critic_loss(scorer, *batch, hp.gradient_penalty, hp.drift, hp.precision)

            critics.descend(loss)
        self.critics.put(step.shards, critics)
        return critics

    def public_phase(self, t: int, release: str, rng: torch.Generator) -> Any:
        """Returns what all drawn shards of a step share, made of public values alone; a `ShardStep` brings it along."""
        return None

    def shard_gradients(
        self, t: int, critics: Networks, fakes: torch.Tensor, labels: torch.Tensor, step: ShardStep
    ) -> torch.Tensor:
        """Returns the gradients of fakes [B, C, H, W], not yet private, from each of the step's shards.

        [B, C, H, W] of one shard, [M, B, C, H, W] of M. One shard may return N blocks, [N * B, C, H, W], each row
        sanitised apart; the generator gets the sum of the blocks.
        """
        return image_gradients(critics.scorer, fakes, labels, self.hp.precision)

    def generate(self, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """Returns the generator's images [N, C, H, W] of the labels [N], in single precision whatever the layers' is.

        Traced where torch traces; latents come from `rng`.
        """
        latents = sent(draw_latents(len(labels), rng), labels.device)
        with mixed_precision(labels.device, self.hp.precision), parametrize.cached():
            size = computed_in(labels.device, self.hp.precision).itemsize
            parts = map_parts(self.generator.largest * size, latents, labels)
            return torch.cat([self.generator(*part).float() for part in parts])

    def uniform_labels(self, count: int, rng: torch.Generator) -> torch.Tensor:
        """Returns labels int64 [N], uniform over classes: the true frequencies stay private."""
        return sent(torch.randint(self.public.num_classes, (count,), generator=rng), self.device)

    @torch.no_grad()
    def fakes_for(self, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """Returns current fakes [N, C, H, W] for labels [N], without a graph."""
        return self.generate(labels, rng)

    def balanced_fakes(self, per_class: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns current fakes [classes * per_class, C, H, W] and labels 0 .. classes - 1, again and again."""
        labels = torch.arange(self.public.num_classes, device=self.device).repeat(per_class)
        return self.fakes_for(labels, rng), labels

    @torch.no_grad()
    def sample(self, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """Returns uint8 images [N, C, H, W] of the averaged generator."""
        self.average.eval()
        parts = []
        for part in labels.split(SAMPLE_BATCH):
            images = self.average(draw_latents(len(part), rng).to(self.device), part.to(self.device))
            parts.append((images * 255).round().to(torch.uint8).cpu())
        return torch.cat(parts)

    def public_state(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().contiguous() for name, value in self.average.state_dict().items()}

    def private_state(self) -> dict[str, Any]:
        return {
            "generator": self.generator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "critics": self.critics.state(),
        }

    def load(self, public: Mapping[str, torch.Tensor], private: Mapping[str, Any] | None) -> None:
        self.average.load_state_dict(dict(public))
        if private is not None:
            self.generator.load_state_dict(private["generator"])
            self.optimizer.load_state_dict(private["optimizer"])
            self.critics.load(private["critics"])
