"""What PATE-GAN, G-PATE and DataLens share: teachers that never leave, one kind of vote that does, and a generator."""

from __future__ import annotations

import copy
import functools
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from methods.core import data_dependent
from methods.core.dcgan import DISCRIMINATORS, Generator
from methods.core.ensembles import Teachers
from methods.core.method import Context, Method, StepLog
from methods.core.optimisers import adam, descend, update_average
from methods.core.privacy import Budget, Grant, Ledger, PublicSpec, Release, calibrate
from methods.core.private_data import PrivateData
from methods.core.shards import assign
from methods.core.streams import seeded, stream
from workflow.common.errors import UserError, unknown

_BLOCK = 1000
# Batch norm needs two images.
_LEAST = {
    "steps": 1, "batch_size": 2, "hidden": 1, "channels": 1, "teacher_batch": 1, "teacher_steps": 0,
    "pretrain_steps": 0, "width": 1, "latent": 1, "generator_steps": 1,
}  # fmt: skip


@dataclass(frozen=True)
class TeacherHyper:
    """Hyper-parameters that the three methods share; defaults are DataLens' for MNIST at epsilon 10."""

    steps: int = field(default=109, metadata={"help": "rounds: each trains the teachers and releases one vote"})
    batch_size: int = field(default=15, metadata={"help": "generated images put to the vote per round"})
    num_teachers: int = field(default=4000, metadata={"help": "disjoint parts of the records, one teacher each"})
    teacher_network: str = field(default="conv", metadata={"help": "of a teacher: conv (DCGAN), or mlp (one layer)"})
    hidden: int = field(default=256, metadata={"help": "units of a teacher's dense hidden layer"})
    channels: int = field(default=32, metadata={"help": "channels of a conv teacher's second layer, labels apart"})
    teacher_batch: int = field(default=30, metadata={"help": "records per teacher and update, at most its part"})
    teacher_steps: int = field(default=2, metadata={"help": "updates of each teacher per round"})
    pretrain_steps: int = field(default=10, metadata={"help": "updates of each teacher before the first round"})
    teacher_rate: float = field(default=1e-3, metadata={"help": "teachers' learning rate (Adam)"})
    teacher_decay: float = field(default=0.0, metadata={"help": "share of its weights a teacher loses per update"})
    width: int = field(default=128, metadata={"help": "channels of the generator's feature maps"})
    latent: int = field(default=50, metadata={"help": "size of the latent, uniform in (-1, 1)"})
    learning_rate: float = field(default=1e-3, metadata={"help": "generator learning rate (Adam, betas 0.5, 0.999)"})
    generator_steps: int = field(default=1, metadata={"help": "generator updates per round; they cost no privacy"})
    ema: float = field(default=0.0, metadata={"help": "decay of the sampled generator's average; 0: the last one"})


class Round(NamedTuple):
    """What is public about a round before its vote: images [B, C, H, W] made of latents and one-hot labels."""

    number: int
    draws: torch.Generator
    latents: torch.Tensor
    labels: torch.Tensor
    images: torch.Tensor


class TeacherGAN(Method):
    """Base of the three: a subclass says what the teachers vote on, and how the generator learns from the answer.

    One record moves one teacher, so one row of a vote. Everything the generator sees is a released answer or public
    randomness. Class attributes: NAME keys the random streams; KIND is the noise of the one release, "votes".
    """

    Hyper = TeacherHyper
    NAME: ClassVar[str]
    KIND: ClassVar[str] = "gaussian"
    SHARED: ClassVar[tuple[str, ...]] = (
        "records are dealt to the teachers at random, equally many each: a record has one teacher, or none where the "
        "numbers do not divide; every teacher keeps its own Adam moments",
        "departure: all teachers see the same generated images, their labels uniform; a vote is on new ones",
        "departure: teachers have no batch norm; the generator is sampled with running statistics, not a batch's",
        "departure: the generator starts from torch's initial weights, where DataLens and G-PATE draw N(0, 0.02^2)",
        "departure: pretrain_steps come before the first round's teacher_steps, not in their place",
        "departure: steps are chosen and the noise is calibrated to the budget, by worst-case accounting",
        "departure: targets of the generator's regression are cut to [0, 1], the range of an image",
        "departure: options the authors lack, off by default and set by presets: dense teachers whose label weighs the "
        "hidden units, teachers that forget old generators by losing a share of their weights at each update, several "
        "generator updates per released answer, an averaged generator",
    )

    def __init__(self, hp: Any, context: Context) -> None:
        super().__init__(hp, context)
        (self._release,) = context.releases
        shape, classes = self.public.image_shape, self.public.num_classes
        with seeded(context.seed, self.NAME, "networks"):
            self._generator = Generator(shape, classes, hp.width, hp.latent).to(self.device)
        self._sampled = copy.deepcopy(self._generator) if hp.ema else self._generator
        self._spent = torch.zeros_like(data_dependent.ORDERS)

    @functools.cached_property
    def _optimizer(self) -> torch.optim.Adam:
        # On first use: the first optimiser of a process loads torch's compiler, which sampling does without.
        return adam(self._generator.parameters(), self.hp.learning_rate, (0.5, 0.999))

    @functools.cached_property
    def _teachers(self) -> Teachers:
        # On first use: gigabytes at the papers' sizes, which sampling does without.
        hp, seed = self.hp, self.context.seed
        parts = assign(self.public.num_train, hp.num_teachers, seed)
        return Teachers(
            self._discriminator, parts, self.public.num_classes, hp.teacher_rate, seed, self.device, hp.teacher_decay
        )

    @classmethod
    def plan(cls, hp: Any, public: PublicSpec, budget: Budget) -> tuple[Release, ...]:
        """Returns one use of the votes per step, each of batch_size images; replace-one, num_train public."""
        cls._check(hp, public)
        kind = "none" if budget.accounting == "none" else cls.KIND

        def releases(noise: float) -> tuple[Release, ...]:
            shape = cls._votes(hp)
            return (Release("votes", kind, noise=noise, rows=hp.num_teachers, rate=1.0, sampling="all",
                            max_uses=hp.steps, **shape),)  # fmt: skip

        return releases(calibrate(releases, budget))

    @classmethod
    def _check(cls, hp: Any, public: PublicSpec) -> None:
        """Raises UserError for settings that make no sense for `public`."""
        if hp.teacher_network not in DISCRIMINATORS:
            raise unknown(f"{cls.NAME}.teacher_network", hp.teacher_network, DISCRIMINATORS)
        if not 1 <= hp.num_teachers <= public.num_train:
            raise UserError(
                f"{cls.NAME}.num_teachers must be 1 .. {public.num_train}, the number of records; got {hp.num_teachers}"
            )
        for name, least in _LEAST.items():
            if getattr(hp, name) < least:
                raise UserError(f"{cls.NAME}.{name} must be {least} or more, got {getattr(hp, name)}")
        for name in ("ema", "teacher_decay"):
            if not 0 <= getattr(hp, name) < 1:
                raise UserError(f"{cls.NAME}.{name} must be in [0, 1), got {getattr(hp, name)}")
        if public.image_shape[1] % 4 or public.image_shape[2] % 4:
            raise UserError(f"{cls.NAME} needs image sides that are multiples of 4, got {public.image_shape}")

    @classmethod
    @abstractmethod
    def _votes(cls, hp: Any) -> dict[str, Any]:
        """Returns clip, bounded and answers of the release."""

    @property
    def num_steps(self) -> int:
        return self.hp.steps

    def prepare(self, data: PrivateData, ledger: Ledger, warm_start: Path | None = None) -> None:
        """Trains the teachers against the untrained generator."""
        self._train_teachers(self.hp.pretrain_steps, self._stream("pretrain"), data, ledger)

    def step(self, t: int, data: PrivateData, ledger: Ledger) -> StepLog:
        """Trains the teachers, takes one released vote on new images, and updates the generator from it."""
        draws = self._stream("step", t)
        self._train_teachers(self.hp.teacher_steps, draws, data, ledger)
        latents, labels = self._inputs(draws)
        with torch.no_grad():
            images = self._generator.train()(latents, labels)
        current = Round(t, draws, latents, labels, images)
        with ledger.charge("votes") as grant:
            answer = self._vote(grant, current)
        return {"generator_loss": self._learn(current, answer)}

    @abstractmethod
    def _vote(self, grant: Grant, current: Round) -> torch.Tensor:
        """Returns what the teachers release about the round's images."""

    @abstractmethod
    def _learn(self, current: Round, answer: torch.Tensor) -> float:
        """Updates what is public from the released answer, and returns the generator's last loss."""

    def private_report(self, delta: float) -> dict[str, float]:
        """Returns epsilon at `delta` by the data-dependent bound, where one was kept; else nothing.

        It is as private as the votes that it is computed from.
        """
        return {"eps_data_dependent": data_dependent.epsilon(self._spent, delta)} if self._spent.any() else {}

    @torch.no_grad()
    def sample(self, labels: torch.Tensor, stream: torch.Generator) -> torch.Tensor:
        self._sampled.eval()
        images = [self._sampled(self._latents(len(part), stream), self._one_hot(part)).cpu()
                  for part in labels.split(_BLOCK)]  # fmt: skip
        return (torch.cat(images) * 255).round().to(torch.uint8)

    def public_state(self) -> dict[str, torch.Tensor]:
        return {name: value.detach() for name, value in self._sampled.state_dict().items()}

    def private_state(self) -> dict[str, Any]:
        return {
            "generator": dict(self._generator.state_dict()),
            "optimizer": self._optimizer.state_dict(),
            "teachers": self._teachers.state(),
            "spent": self._spent,
        }

    def load(self, public: Mapping[str, torch.Tensor], private: Mapping[str, Any] | None) -> None:
        self._sampled.load_state_dict(dict(public))
        if private is not None:
            self._generator.load_state_dict(private["generator"])
            self._optimizer.load_state_dict(private["optimizer"])
            self._teachers.load(private["teachers"])
            self._spent = private["spent"].cpu()

    def _train_teachers(self, steps: int, draws: torch.Generator, data: PrivateData, ledger: Ledger) -> None:
        for _ in range(steps):
            latents, labels = self._inputs(draws)
            with torch.no_grad():
                fakes = self._generator.train()(latents, labels)
            with ledger.internal("teacher training") as grant:
                self._teachers.train(data, grant, fakes, labels, self.hp.teacher_batch)

    def _update_generator(self, loss: torch.Tensor, update: int) -> None:
        """One Adam step, the `update`-th of the run counting from 0, and its part in the sampled average."""
        descend(loss, self._generator, self._optimizer)
        if self.hp.ema:
            update_average(self._sampled, self._generator, update + 1, self.hp.ema)

    def _regress(self, current: Round, targets: torch.Tensor) -> float:
        """Moves the generated images towards targets [B, C, H, W]; returns the last sum of squares per image."""
        for i in range(self.hp.generator_steps):
            images = self._generator.train()(current.latents, current.labels)
            loss = (images - targets.clamp(0, 1)).square().sum() / len(images)
            self._update_generator(loss, current.number * self.hp.generator_steps + i)
        return loss.item()

    def _stream(self, *names: object) -> torch.Generator:
        return stream(self.context.seed, self.NAME, *names)

    def _inputs(self, draws: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns latents [batch_size, latent] and one-hot labels [batch_size, classes], uniform."""
        labels = torch.randint(self.public.num_classes, (self.hp.batch_size,), generator=draws)
        return self._latents(self.hp.batch_size, draws), self._one_hot(labels)

    def _latents(self, count: int, draws: torch.Generator) -> torch.Tensor:
        return (torch.rand(count, self.hp.latent, generator=draws) * 2 - 1).to(self.device)

    def _one_hot(self, labels: torch.Tensor) -> torch.Tensor:
        return F.one_hot(labels.to(self.device), self.public.num_classes).float()

    def _discriminator(self) -> nn.Module:
        hp = self.hp
        return DISCRIMINATORS[hp.teacher_network](
            self.public.image_shape, self.public.num_classes, hp.hidden, hp.channels
        )
