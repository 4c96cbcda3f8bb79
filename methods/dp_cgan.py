"""DP-CGAN, done soundly: a conditional GAN whose discriminator learns by DP-SGD (Torkzadehmahani et al., 2019)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from methods.core.gaussians import start
from methods.core.method import Context, Method, StepLog, check_records, check_steps
from methods.core.optimisers import adam, blend, descend, restore, states
from methods.core.privacy import dp_sgd
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import PublicSpec, Release
from methods.core.rng import named_rng, seeded
from methods.core.speed.transfers import sent
from workflow.common.search_space import choice, log, times
from workflow.common.settings import setting

_RELEASE = "discriminator_gradient"
_BLOCK = 2000


class DPCGAN(start.Started, Method):
    """The authors' vanilla networks: one hidden layer each. The generator sees only the discriminator."""

    SOURCES = (
        "Torkzadehmahani, Kairouz, Paten, DP-CGAN, CVPR Workshops 2019, sections 3-4; "
        "DP_CGAN/dp_conditional_gan_mnist/DP_CGAN_RdpAcc.py of the authors' repository (vanilla networks)",
        "kept: real and fake examples are clipped apart and only the sum over real ones needs noise",
        "departure: one clip over the whole per-example gradient; the authors clip each of four tensors and count once",
        "departure: true Poisson batches; the authors shuffle 55 000 images and count a Poisson rate of 600 / 60 000",
        "departure: fakes have uniform labels; the authors reuse the private batch's labels, which no epsilon covers",
        "departure: the noise multiplier itself goes to the accountant, not multiplied by the clip (1.232 for 1.12), "
        "and is calibrated to the budget and the number of steps",
        "departure: all 60 000 images are trained on; the authors leave 5 000 of them out",
        "departure: PAPER has the budget 10, the authors stop at 9.6; their repository has MNIST alone; the setting "
        "for Fashion-MNIST is that of DP-MERF's repository, which runs this code",
        "departure: balanced labels are sampled, not the training set's class counts",
        "departure: the learning rate falls over a share of the run, a third as at the published 30 304 steps",
        "departure: options the authors lack, off by default and set by presets for few steps: Adam for the "
        "discriminator, a leaky hidden layer, a larger label input (a one-hot label is faint next to 784 pixels) and "
        "an averaged generator",
        "departure: the generator step draws its own latents and labels, once in generator_every discriminator steps",
        "departure: for 32x32x3 the same two networks at that size; the authors gave none",
        *start.SOURCES,
    )

    @dataclass(frozen=True)
    class Hyper(start.StartSettings):
        """Hyper-parameters; defaults are the authors' for MNIST."""

        steps: int = setting(30000, "discriminator steps, each one release", low=1, high=10_000_000)
        batch_size: int = setting(600, "expected private records per step; as many fakes", low=1, high=65_536)
        clip: float = setting(1.1, "L2 bound of a per-example gradient, all tensors at once", low=1e-9, high=1e6)
        generator_every: int = setting(1, "discriminator steps per generator step", low=1, high=100_000)
        optimizer: str = setting("sgd", "optimiser of the discriminator", choices=("sgd", "adam"))
        learning_rate: float = setting(0.1, "discriminator learning rate at the start", low=0, high=10)
        learning_rate_end: float = setting(0.052, "the same when the decay ends", low=0, high=10)
        decay_share: float = setting(1 / 3, "part of the run over which it falls linearly", low=0, high=1)
        generator_rate: float = setting(1e-3, "generator learning rate (Adam)", low=0, high=10)
        beta1: float = setting(0.9, "first Adam decay rate, of both networks", low=0, high=0.999)
        latent: int = setting(100, "size of the latent, uniform in (-1, 1)", low=1, high=4096)
        hidden: int = setting(128, "hidden units of each network", low=1, high=16_384)
        leak: float = setting(0.0, "slope below zero of the discriminator's hidden layer", low=0, high=1)
        label_scale: float = setting(1.0, "hot entry of the discriminator's label input", low=0, high=1e6)
        ema: float = setting(0.0, "decay of the sampled generator's average; 0: the last one", low=0, high=0.9999)

    PAPER: Mapping[tuple[str, float], Mapping[str, Any]] = {
        ("mnist", 10.0): {"steps": 30000, "batch_size": 600, "clip": 1.1},
        ("fashion_mnist", 10.0): {"steps": 30000, "batch_size": 600, "clip": 1.1},
    }

    SEARCH = {
        "steps": times(0.3, 2),
        "batch_size": times(0.5, 4),
        "clip": times(0.2, 2),
        "learning_rate": times(0.3, 3),
        "learning_rate_end": times(0.2, 2),
        "generator_rate": times(0.3, 3),
        "beta1": choice(0.0, 0.5, 0.9),
        "leak": choice(0.0, 0.2),
        "label_scale": log(1, 15),
        "ema": choice(0.95, 0.99, 0.997),
    }

    def __init__(self, hp: Hyper, context: Context) -> None:
        super().__init__(hp, context)
        self.start = start.Start(hp, self.public, context.releases, self.device)
        pixels, classes = int(torch.Size(self.public.image_shape).numel()), self.public.num_classes
        with seeded(context.seed, "dp_cgan", "networks"):
            self._generator = _network(hp.latent + classes, hp.hidden, pixels, 0.0).to(self.device)
            self._discriminator = _network(pixels + classes, hp.hidden, 1, hp.leak).to(self.device)
        self._sampled = copy.deepcopy(self._generator) if hp.ema else self._generator
        self._g_optimizer = adam(self._generator.parameters(), hp.generator_rate, (hp.beta1, 0.999))
        self._d_optimizer = _optimizer(hp, self._discriminator)
        self.optimizers = self._g_optimizer, self._d_optimizer
        self._private = dp_sgd.PrivateOptimizer(self._discriminator, self._d_optimizer, self.start.main, hp.batch_size)
        self._trained = {
            "generator": self._generator,
            "discriminator": self._discriminator,
            "generator_optimizer": self._g_optimizer,
            "discriminator_optimizer": self._d_optimizer,
        }

    @classmethod
    def check(cls, hp: Hyper, public: PublicSpec) -> None:
        super().check(hp, public)
        check_records("dp_cgan.batch_size", hp.batch_size, public, "{one_per: 4, at_most: 512}")
        check_steps("dp_cgan.generator_every", hp.generator_every, hp.steps)

    @classmethod
    def rehearsal(cls, hp: Hyper) -> Hyper:
        return replace(hp, generator_every=1, start_steps=1)

    @classmethod
    def releases(cls, hp: Hyper, public: PublicSpec, noise: float) -> tuple[Release, ...]:
        """Returns one noisy gradient sum per step over a Poisson batch; add-or-remove, num_train public."""
        return hp.started(dp_sgd.release(_RELEASE, hp, public, noise), public)

    def public_step(self, t: int) -> StepLog:
        """One discriminator step and one generator step."""
        rng = named_rng(self.context.seed, "dp_cgan", "start", t)
        images, labels = self.start.batch(self.hp.batch_size, rng)
        with torch.no_grad():
            fakes = self._fakes(rng)
        rows = self._with_targets(self._labelled(images.flatten(1), labels), fakes)
        descend(_losses(self._discriminator, rows).mean(), self._discriminator, self._d_optimizer)
        return {"generator_loss": self._generator_step(rng)}

    def private_step(self, t: int, data: PrivateData, ledger: Ledger) -> StepLog:
        """One noisy discriminator step, and every `generator_every` of them a generator step."""
        fall = min(1.0, t / max(1.0, self.hp.decay_share * self.hp.steps))
        for group in self._d_optimizer.param_groups:
            group["lr"] = self.hp.learning_rate + fall * (self.hp.learning_rate_end - self.hp.learning_rate)
        rng = named_rng(self.context.seed, "dp_cgan", "step", t)
        with torch.no_grad():
            fakes = self._fakes(rng)
        with ledger.charge(_RELEASE) as grant:
            reals = self._examples(*data.read(grant, grant.poisson_batch(len(data))))
            self._private.step(grant, _losses, self._with_targets(reals, fakes))
        if (t + 1) % self.hp.generator_every:
            return {}
        return {"generator_loss": self._generator_step(rng)}

    @torch.no_grad()
    def sample(self, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        images = [self._generate(self._sampled, part, rng).cpu() for part in labels.split(_BLOCK)]
        return (torch.cat(images) * 255).round().to(torch.uint8).view(-1, *self.public.image_shape)

    def public_state(self) -> dict[str, torch.Tensor]:
        return {name: value.detach() for name, value in self._sampled.state_dict().items()}

    def private_state(self) -> dict[str, Any]:
        return {**states(self._trained), **self.start.state()}

    def load(self, public: Mapping[str, torch.Tensor], private: Mapping[str, Any] | None) -> None:
        self._sampled.load_state_dict(dict(public))
        if private is not None:
            restore(self._trained, private)
            self.start.load(private)

    def _generator_step(self, rng: torch.Generator) -> float:
        scores = self._discriminator(self._fakes(rng)).squeeze(1)
        loss = functional.softplus(-scores).mean()
        descend(loss, self._generator, self._g_optimizer)
        if self.hp.ema:
            blend(self._sampled, self._generator, self.hp.ema)
        return loss.detach()

    def _fakes(self, rng: torch.Generator) -> torch.Tensor:
        """Returns generated examples [batch_size, pixels + classes], their labels independent of any private batch."""
        labels = torch.randint(self.public.num_classes, (self.hp.batch_size,), generator=rng)
        return self._labelled(self._generate(self._generator, labels, rng), labels)

    def _generate(self, generator: nn.Module, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        latent = torch.rand(len(labels), self.hp.latent, generator=rng) * 2 - 1
        return generator(torch.cat([sent(latent, self.device), self._one_hot(labels)], dim=1)).sigmoid()

    def _examples(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        flat = sent(images, self.device).flatten(1).float() / 255
        return self._labelled(flat, labels)

    def _labelled(self, flat: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.cat([flat, self.hp.label_scale * self._one_hot(labels)], dim=1)

    def _with_targets(self, reals: torch.Tensor, fakes: torch.Tensor) -> torch.Tensor:
        targets = torch.cat([torch.ones(len(reals), device=self.device), torch.zeros(len(fakes), device=self.device)])
        return torch.cat([torch.cat([reals, fakes]), targets[:, None]], dim=1)

    def _one_hot(self, labels: torch.Tensor) -> torch.Tensor:
        return functional.one_hot(sent(labels, self.device), self.public.num_classes).float()


def _losses(discriminator: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Returns one cross-entropy per row [B]; a row is an example followed by 1 if it is real, 0 if generated."""
    scores = discriminator(rows[:, :-1]).squeeze(1)
    return functional.binary_cross_entropy_with_logits(scores, rows[:, -1], reduction="none")


def _network(inputs: int, hidden: int, outputs: int, leak: float) -> nn.Sequential:
    network = nn.Sequential(nn.Linear(inputs, hidden), nn.LeakyReLU(leak), nn.Linear(hidden, outputs))
    for layer in (network[0], network[2]):
        nn.init.normal_(layer.weight, std=(2 / layer.in_features) ** 0.5)
        nn.init.zeros_(layer.bias)
    return network


def _optimizer(hp: DPCGAN.Hyper, network: nn.Module) -> torch.optim.Optimizer:
    if hp.optimizer == "adam":
        return adam(network.parameters(), hp.learning_rate, (hp.beta1, 0.999))
    return torch.optim.SGD(network.parameters(), lr=hp.learning_rate)
