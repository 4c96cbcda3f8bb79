"""What PATE-GAN, G-PATE and DataLens share: teachers that never leave, one kind of vote that does, and a generator."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from methods.core.accounting import data_dependent
from methods.core.method import Context, Method, StepLog, check_quarters, check_records
from methods.core.optimisers import adam, descend, restore, states, update_average
from methods.core.partition import partition
from methods.core.privacy.grant import Grant
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import PublicSpec, Release
from methods.core.rng import named_rng, seeded
from methods.core.speed.precision import PRECISIONS
from methods.core.speed.transfers import sent
from methods.core.teachers.ensemble import Teachers
from methods.core.teachers.nets import DISCRIMINATORS, Generator
from workflow.common.errors import UserError
from workflow.common.settings import setting

_BLOCK = 1000
# Of DataLens' and G-PATE's published settings: their teachers.
NORMED = {"teacher_network": "conv_norm"}


@dataclass(frozen=True)
class TeacherHyper:
    """Hyper-parameters that the three methods share; defaults are DataLens' for MNIST at epsilon 10."""

    steps: int = setting(109, "rounds: each trains the teachers and releases one vote", low=1, high=1_000_000)
    batch_size: int = setting(15, "generated images put to the vote per round", low=2, high=4096)  # batch norm needs 2
    num_teachers: int = setting(4000, "disjoint parts of the records, one teacher each", low=1, high=10_000)
    teacher_network: str = setting(
        "conv", "of a teacher: conv (DCGAN), conv_norm (with batch norm), or mlp (one layer)", choices=DISCRIMINATORS
    )
    hidden: int = setting(256, "units of a teacher's dense hidden layer", low=1, high=8192)
    channels: int = setting(32, "channels of a conv teacher's second layer, labels apart", low=1, high=1024)
    teacher_batch: int = setting(30, "records per teacher and update, at most its part", low=1, high=65_536)
    teacher_steps: int = setting(2, "updates of each teacher per round", low=0, high=1000)
    pretrain_steps: int = setting(10, "updates of each teacher before the first round", low=0, high=100_000)
    teacher_rate: float = setting(1e-3, "teachers' learning rate (Adam)", low=1e-9, high=10)
    teacher_decay: float = setting(0.0, "share of its weights a teacher loses per update", low=0, high=0.9999)
    width: int = setting(128, "channels of the generator's feature maps", low=1, high=512)
    latent: int = setting(50, "size of the latent, uniform in (-1, 1)", low=1, high=4096)
    learning_rate: float = setting(1e-3, "generator learning rate (Adam, betas 0.5, 0.999)", low=1e-9, high=10)
    generator_steps: int = setting(1, "generator updates per round; they cost no privacy", low=1, high=10_000)
    ema: float = setting(0.0, "decay of the sampled generator's average; 0: the last one", low=0, high=0.9999)
    teacher_memory: str = setting(
        "fp32", "how weights and moments of teachers are kept; bf16: in half of the memory, rounded without bias",
        choices=PRECISIONS, group="teacher memory",
    )  # fmt: skip
    precision: str = setting(
        "fp32", "of products within teachers; their updates, norms and votes, and the generator, stay fp32",
        choices=PRECISIONS, group="teacher precision",
    )  # fmt: skip

    @property
    def slots(self) -> int | None:
        """How many Adam moments all teachers share; None where each has its own."""
        return None


@dataclass(frozen=True)
class SharingHyper(TeacherHyper):
    """The same with the option to do as DataLens' and G-PATE's code does; its defaults are theirs for MNIST."""

    as_released: bool = setting(
        False, "teachers share moments, as the authors' code does, at the noise of what they count: costs more than the"
        " budget", group="as released",
    )  # fmt: skip
    released_slots: int = setting(
        50, "with as_released, networks of the authors' graph, which teachers take in turn", 1, 10_000,
        group="as released",
    )  # fmt: skip

    @property
    def slots(self) -> int | None:
        return self.released_slots if self.as_released else None


def with_default(name: str, default: Any) -> Any:
    """Returns the setting `name` of TeacherHyper with another default, for a method's own Hyper."""
    metadata = {field.name: field.metadata for field in fields(TeacherHyper)}
    return setting(default, **metadata[name])


def vote_release(hp: TeacherHyper, noise: float, *, kind: str, clip: float, bounded: str, answers: int) -> Release:
    """Returns the release of one vote per round on batch_size images, a row a teacher; replace-one, num_train public.

    `clip`, `bounded` and `answers` say what a teacher's row is (see Release).
    """
    return Release(
        name="votes", kind=kind, clip=clip, noise=noise, bounded=bounded, rows=hp.num_teachers, rate=1.0,
        sampling="all", max_uses=hp.steps, answers=answers,
    )  # fmt: skip


def _of_slots(hp: TeacherHyper, counted: Release) -> Release:
    """Returns what teachers that share moments release, at the noise of `counted`, which counts a record as one row.

    A record moves the teacher that reads it and, by the moments, all others of its slot, and no more: so a row is the
    sum of a slot's rows, which belongs to the slot's records alone. Of votes, a slot's counts in a ballot have norm
    at most the number of its teachers.
    """
    clip = counted.clip * (hp.num_teachers // hp.slots)
    noise = counted.noise * counted.sensitivity / (2 * clip)
    return dataclasses.replace(counted, clip=clip, noise=noise, bounded="sum", rows=hp.slots)


class Round(NamedTuple):
    """What is public about a round before its vote: images [B, C, H, W] made of latents and one-hot labels."""

    number: int
    rng: torch.Generator
    latents: torch.Tensor
    labels: torch.Tensor
    images: torch.Tensor


class TeacherGAN(Method):
    """Base of the three: a subclass says what the teachers vote on, and how the generator learns from the answer.

    One record moves one teacher, so one row of a vote. Everything the generator sees is a released answer or public
    randomness. The one release is a `vote_release`. Class attribute: NAME keys the random generators.
    """

    Hyper = TeacherHyper
    NAME: ClassVar[str]
    SHARED: ClassVar[tuple[str, ...]] = (
        "records are dealt to the teachers at random, equally many each: a record has one teacher, or none where the "
        "numbers do not divide; every teacher keeps its own Adam moments, unless as_released says otherwise",
        "departure: all teachers see the same generated images, their labels uniform; DataLens' and G-PATE's have the "
        "labels of each teacher's own records",
        "departure: each update and the vote have latents of their own; DataLens and G-PATE draw one batch for all",
        "departure, unless teacher_network is conv_norm: teachers have no batch norm",
        "departure: the generator is sampled with running statistics, not a batch's",
        "departure: the generator starts from torch's initial weights, where DataLens and G-PATE draw N(0, 0.02^2); "
        "teachers draw that as well, without cutting the law at two deviations",
        "departure: layers of stride 2 pad two pixels before an image and one behind it; TensorFlow's one and two",
        "departure: the regression's sum of squares is divided by the batch, which Adam does not notice",
        "departure: pretrain_steps come before the first round's teacher_steps, not in their place",
        "departure: steps are chosen and the noise is calibrated to the budget, by worst-case accounting",
        "departure: targets of the generator's regression are cut to [0, 1], the range of an image",
        "departure, with teacher_memory bf16: weights and moments are kept in 16 bits between rounds, the weights and "
        "second moments rounded so that the mean is right, by at most 2^-7 of a value; updates are in 32 bits",
        "departure, with precision bf16: products within a teacher are of numbers of 16 bits, if the device has those",
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
        return self._hire(None)

    def _hire(self, state: dict[str, Any] | None) -> Teachers:
        hp, seed = self.hp, self.context.seed
        parts = partition(self.public.num_train, hp.num_teachers, seed)
        return Teachers(
            self._discriminator, parts, self.public.num_classes, hp.teacher_rate, seed, self.device, hp.teacher_decay,
            kept=hp.teacher_memory, slots=hp.slots, precision=hp.precision, state=state,
        )  # fmt: skip

    @classmethod
    def check(cls, hp: Any, public: PublicSpec) -> None:
        super().check(hp, public)
        check_records(f"{cls.NAME}.num_teachers", hp.num_teachers, public, "{one_per: 30, at_least: 2}")
        check_quarters(cls.NAME, public)
        seen = min(hp.teacher_batch, public.num_train // hp.num_teachers)
        if hp.teacher_network == "conv_norm" and seen < 2:
            raise UserError(
                f"{cls.NAME}.teacher_network conv_norm sees nothing of one record alone, so teachers need at least 2"
                f" records an update, got {seen}: give a larger teacher_batch, fewer num_teachers, or conv"
            )
        if hp.slots is not None and hp.num_teachers % hp.slots:
            raise UserError(
                f"{cls.NAME}.released_slots must divide num_teachers, {hp.num_teachers}, as all teachers take the"
                f" authors' networks in turn; got {hp.slots}"
            )

    @classmethod
    def releases(cls, hp: Any, public: PublicSpec, noise: float) -> tuple[Release, ...]:
        """Returns what is counted or, with `as_released`, what the authors' code releases: that costs more."""
        (counted,) = cls.counted(hp, public, noise)
        return (counted if hp.slots is None else _of_slots(hp, counted),)

    @classmethod
    def rehearsal(cls, hp: Any) -> Any:
        """Leaves one round, as all are alike, and of what it does again and again one time each; see Method."""
        once = {name: min(1, getattr(hp, name)) for name in ("teacher_steps", "generator_steps")}
        return replace(hp, steps=1, pretrain_steps=0 if hp.teacher_steps else min(1, hp.pretrain_steps), **once)

    @property
    def num_steps(self) -> int:
        return self.hp.steps

    def prepare(self, data: PrivateData, ledger: Ledger, warm_start: Path | None = None) -> None:
        """Trains the teachers against the untrained generator."""
        self._train_teachers(self.hp.pretrain_steps, self._rng("pretrain"), data, ledger)

    def step(self, t: int, data: PrivateData, ledger: Ledger) -> StepLog:
        """Trains the teachers, takes one released vote on new images, and updates the generator from it."""
        rng = self._rng("step", t)
        self._train_teachers(self.hp.teacher_steps, rng, data, ledger)
        latents, labels = self._inputs(rng)
        with torch.no_grad():
            images = self._generator.train()(latents, labels)
        current = Round(t, rng, latents, labels, images)
        with ledger.charge("votes") as grant:
            answer = self._vote(grant, current)
        return {"generator_loss": self._learn(current, answer)}

    @abstractmethod
    def _vote(self, grant: Grant, current: Round) -> torch.Tensor:
        """Returns what the teachers release about the round's images."""

    @abstractmethod
    def _learn(self, current: Round, answer: torch.Tensor) -> torch.Tensor:
        """Updates what is public from the released answer, and returns the generator's last loss."""

    def private_report(self, delta: float) -> dict[str, float]:
        """Returns epsilon at `delta` by the data-dependent bound, where one was kept and is finite; else nothing.

        It is as private as the votes that it is computed from.
        """
        bound = data_dependent.epsilon(self._spent, delta) if self._spent.any() else math.inf
        # JSON has no word for a bound that is none.
        return {"eps_data_dependent": bound} if math.isfinite(bound) else {}

    @torch.no_grad()
    def sample(self, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        self._sampled.eval()
        images = [self._sampled(self._latents(len(part), rng), self._one_hot(part)).cpu()
                  for part in labels.split(_BLOCK)]  # fmt: skip
        return (torch.cat(images) * 255).round().to(torch.uint8)

    def public_state(self) -> dict[str, torch.Tensor]:
        return {name: value.detach() for name, value in self._sampled.state_dict().items()}

    def private_state(self) -> dict[str, Any]:
        return {**states(self._trained()), "teachers": self._teachers.state(), "spent": self._spent}

    def load(self, public: Mapping[str, torch.Tensor], private: Mapping[str, Any] | None) -> None:
        self._sampled.load_state_dict(dict(public))
        if private is not None:
            restore(self._trained(), private)
            # Never beside those of a beginning: there may be no room for two.
            self.__dict__["_teachers"] = self._hire(private["teachers"])
            self._spent = private["spent"].cpu()

    @property
    def checkpoint_growth(self) -> float:
        """Less than in general: teachers have their moments from the start, the others from their first step on."""
        others = sum(value.nbytes for part in self._trained().values() if isinstance(part, nn.Module)
                     for value in part.state_dict().values())  # fmt: skip
        # A tenth more for what else there comes to be, such as names and the log.
        return 1.1 + 2 * others / (others + self._teachers.nbytes)

    def _trained(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Returns, by their names in a checkpoint, the networks and optimisers besides the teachers."""
        return {"generator": self._generator, "optimizer": self._optimizer}

    def _train_teachers(self, steps: int, rng: torch.Generator, data: PrivateData, ledger: Ledger) -> None:
        if not steps:
            return
        fakes = []
        for _ in range(steps):
            latents, labels = self._inputs(rng)
            with torch.no_grad():
                fakes.append((self._generator.train()(latents, labels), labels))
        with contextlib.ExitStack() as held:
            grants = [held.enter_context(ledger.internal("teacher training")) for _ in fakes]
            self._teachers.train(data, grants, fakes, self.hp.teacher_batch)

    def _by_slot(self, chunks: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Yields rows [n, D], one a teacher, as they come, or the sums of them [slots, D] where moments are shared."""
        if self.hp.slots is None:
            yield from chunks
            return
        total, count = None, 0
        for rows in chunks:
            total = rows.new_zeros(self.hp.slots, rows.shape[1]) if total is None else total
            total.index_add_(0, torch.arange(count, count + len(rows), device=rows.device) % self.hp.slots, rows)
            count += len(rows)
        yield total

    def _update_generator(self, loss: torch.Tensor, update: int) -> None:
        """One Adam step, the `update`-th of the run counting from 0, and its part in the sampled average."""
        descend(loss, self._generator, self._optimizer)
        if self.hp.ema:
            update_average(self._sampled, self._generator, update + 1, self.hp.ema)

    def _regress(self, current: Round, targets: torch.Tensor) -> torch.Tensor:
        """Moves the generated images towards targets [B, C, H, W]; returns the last sum of squares per image."""
        for i in range(self.hp.generator_steps):
            images = self._generator.train()(current.latents, current.labels)
            loss = (images - targets.clamp(0, 1)).square().sum() / len(images)
            self._update_generator(loss, current.number * self.hp.generator_steps + i)
        return loss.detach()

    def _rng(self, *names: object) -> torch.Generator:
        return named_rng(self.context.seed, self.NAME, *names)

    def _inputs(self, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns latents [batch_size, latent] and one-hot labels [batch_size, classes], uniform."""
        labels = torch.randint(self.public.num_classes, (self.hp.batch_size,), generator=rng)
        return self._latents(self.hp.batch_size, rng), self._one_hot(labels)

    def _latents(self, count: int, rng: torch.Generator) -> torch.Tensor:
        return sent(torch.rand(count, self.hp.latent, generator=rng) * 2 - 1, self.device)

    def _one_hot(self, labels: torch.Tensor) -> torch.Tensor:
        return F.one_hot(sent(labels, self.device), self.public.num_classes).float()

    def _discriminator(self) -> nn.Module:
        hp = self.hp
        return DISCRIMINATORS[hp.teacher_network](
            self.public.image_shape, self.public.num_classes, hp.hidden, hp.channels
        )
