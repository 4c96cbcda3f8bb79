"""DP-CGAN, done soundly: a conditional GAN whose discriminator learns by DP-SGD (Torkzadehmahani et al., 2019)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from methods.core import dp_sgd
from methods.core.method import Context, Method, StepLog
from methods.core.optimisers import adam, blend, descend
from methods.core.privacy import Budget, Ledger, PublicSpec, Release
from methods.core.private_data import PrivateData
from methods.core.streams import seeded, stream
from workflow.common.errors import unknown

_RELEASE = "discriminator_gradient"
_OPTIMIZERS = ("sgd", "adam")
_BLOCK = 2000


class DPCgan(Method):
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
        "departure: balanced labels are sampled, not the training set's class counts",
        "departure: the learning rate falls over a share of the run, a third as at the published 30 304 steps",
        "departure: options the authors lack, off by default and set by presets for few steps: Adam for the "
        "discriminator, a leaky hidden layer, a larger label input (a one-hot label is faint beside 784 pixels) and "
        "an averaged generator",
        "departure: the generator step draws its own latents and labels, once in generator_every discriminator steps",
        "departure: for 32x32x3 the same two networks at that size; the authors gave none",
    )

    @dataclass(frozen=True)
    class Hyper:
        """Hyper-parameters; defaults are the authors' for MNIST."""

        steps: int = field(default=30000, metadata={"help": "discriminator steps, each one release"})
        batch_size: int = field(default=600, metadata={"help": "expected private records per step; as many fakes"})
        clip: float = field(default=1.1, metadata={"help": "L2 bound of a per-example gradient, all tensors at once"})
        generator_every: int = field(default=1, metadata={"help": "discriminator steps per generator step"})
        optimizer: str = field(default="sgd", metadata={"help": "of the discriminator: sgd, or adam"})
        learning_rate: float = field(default=0.1, metadata={"help": "discriminator learning rate at the start"})
        learning_rate_end: float = field(default=0.052, metadata={"help": "the same when the decay ends"})
        decay_share: float = field(default=1 / 3, metadata={"help": "part of the run over which it falls linearly"})
        generator_rate: float = field(default=1e-3, metadata={"help": "generator learning rate (Adam)"})
        beta1: float = field(default=0.9, metadata={"help": "first Adam decay rate, of both networks"})
        latent: int = field(default=100, metadata={"help": "size of the latent, uniform in (-1, 1)"})
        hidden: int = field(default=128, metadata={"help": "hidden units of each network"})
        leak: float = field(default=0.0, metadata={"help": "slope below zero of the discriminator's hidden layer"})
        label_scale: float = field(default=1.0, metadata={"help": "hot entry of the discriminator's label input"})
        ema: float = field(default=0.0, metadata={"help": "decay of the sampled generator's average; 0: the last one"})

    PAPER: Mapping[tuple[str, float], Mapping[str, Any]] = {
        ("mnist", 10.0): {"steps": 30000, "batch_size": 600, "clip": 1.1},
        ("fashion_mnist", 10.0): {"steps": 30000, "batch_size": 600, "clip": 1.1},
    }

    def __init__(self, hp: Hyper, context: Context) -> None:
        super().__init__(hp, context)
        (release,) = context.releases
        pixels, classes = int(torch.Size(self.public.image_shape).numel()), self.public.num_classes
        with seeded(context.seed, "dp_cgan", "networks"):
            self._generator = _network(hp.latent + classes, hp.hidden, pixels, 0.0).to(self.device)
            self._discriminator = _network(pixels + classes, hp.hidden, 1, hp.leak).to(self.device)
        self._sampled = copy.deepcopy(self._generator) if hp.ema else self._generator
        self._g_optimizer = adam(self._generator.parameters(), hp.generator_rate, (hp.beta1, 0.999))
        self._d_optimizer = _optimizer(hp, self._discriminator)
        self._private = dp_sgd.PrivateOptimizer(
            self._discriminator, self._d_optimizer, release, hp.batch_size
        )

    @classmethod
    def plan(cls, hp: Hyper, public: PublicSpec, budget: Budget) -> tuple[Release, ...]:
        """Returns one noisy gradient sum per step over a Poisson batch; add-or-remove, num_train public."""
        if hp.optimizer not in _OPTIMIZERS:
            raise unknown("dp_cgan.optimizer", hp.optimizer, _OPTIMIZERS)
        release = dp_sgd.plan(
            _RELEASE, clip=hp.clip, batch_size=hp.batch_size, steps=hp.steps, public=public, budget=budget
        )
        return (release,)

    @property
    def num_steps(self) -> int:
        return self.hp.steps

    def step(self, t: int, data: PrivateData, ledger: Ledger) -> StepLog:
        """One noisy discriminator step, and every `generator_every` of them a generator step."""
        done = min(1.0, t / max(1.0, self.hp.decay_share * self.hp.steps))
        for group in self._d_optimizer.param_groups:
            group["lr"] = self.hp.learning_rate + done * (self.hp.learning_rate_end - self.hp.learning_rate)
        draws = stream(self.context.seed, "dp_cgan", "step", t)
        with torch.no_grad():
            fakes = self._fakes(draws)
        with ledger.charge(_RELEASE) as grant:
            reals = self._examples(*data.read(grant, grant.poisson_batch(len(data))))
            wanted = torch.cat([torch.ones(len(reals)), torch.zeros(len(fakes))]).to(self.device)
            self._private.step(grant, _losses, torch.cat([torch.cat([reals, fakes]), wanted[:, None]], dim=1))
        if (t + 1) % self.hp.generator_every:
            return {}
        return {"generator_loss": self._generator_step(draws)}

    @torch.no_grad()
    def sample(self, labels: torch.Tensor, stream: torch.Generator) -> torch.Tensor:
        images = [self._generate(self._sampled, part, stream).cpu() for part in labels.split(_BLOCK)]
        return (torch.cat(images) * 255).round().to(torch.uint8).view(-1, *self.public.image_shape)

    def public_state(self) -> dict[str, torch.Tensor]:
        return {name: value.detach() for name, value in self._sampled.state_dict().items()}

    def private_state(self) -> dict[str, Any]:
        return {
            "generator": dict(self._generator.state_dict()),
            "discriminator": dict(self._discriminator.state_dict()),
            "generator_optimizer": self._g_optimizer.state_dict(),
            "discriminator_optimizer": self._d_optimizer.state_dict(),
        }

    def load(self, public: Mapping[str, torch.Tensor], private: Mapping[str, Any] | None) -> None:
        self._sampled.load_state_dict(dict(public))
        if private is not None:
            self._generator.load_state_dict(private["generator"])
            self._discriminator.load_state_dict(private["discriminator"])
            self._g_optimizer.load_state_dict(private["generator_optimizer"])
            self._d_optimizer.load_state_dict(private["discriminator_optimizer"])

    def _generator_step(self, draws: torch.Generator) -> float:
        scores = self._discriminator(self._fakes(draws)).squeeze(1)
        loss = functional.softplus(-scores).mean()
        descend(loss, self._generator, self._g_optimizer)
        if self.hp.ema:
            blend(self._sampled, self._generator, self.hp.ema)
        return loss.item()

    def _fakes(self, draws: torch.Generator) -> torch.Tensor:
        """Returns generated examples [batch_size, pixels + classes], their labels independent of any private batch."""
        labels = torch.randint(self.public.num_classes, (self.hp.batch_size,), generator=draws)
        return self._labelled(self._generate(self._generator, labels, draws), labels)

    def _generate(self, generator: nn.Module, labels: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
        latent = torch.rand(len(labels), self.hp.latent, generator=draws) * 2 - 1
        return generator(torch.cat([latent.to(self.device), self._one_hot(labels)], dim=1)).sigmoid()

    def _examples(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        flat = images.to(self.device).flatten(1).float() / 255
        return self._labelled(flat, labels)

    def _labelled(self, flat: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.cat([flat, self.hp.label_scale * self._one_hot(labels)], dim=1)

    def _one_hot(self, labels: torch.Tensor) -> torch.Tensor:
        return functional.one_hot(labels.to(self.device), self.public.num_classes).float()


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


def _optimizer(hp: DPCgan.Hyper, network: nn.Module) -> torch.optim.Optimizer:
    if hp.optimizer == "adam":
        return adam(network.parameters(), hp.learning_rate, (hp.beta1, 0.999))
    return torch.optim.SGD(network.parameters(), lr=hp.learning_rate)
