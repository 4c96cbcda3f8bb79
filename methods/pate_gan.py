"""PATE-GAN: a student discriminator learns from noisy majority votes of teachers (Jordon et al., ICLR 2019)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from methods.core import data_dependent
from methods.core.method import Context
from methods.core.optimisers import adam
from methods.core.privacy import Grant, PublicSpec
from methods.core.streams import seeded
from methods.core.teacher_gan import Round, TeacherGAN, TeacherHyper
from workflow.common.errors import unknown

_LABELS = ("majority", "share")


class PateGAN(TeacherGAN):
    """The student sees generated images alone, labelled by the noisy vote; the generator sees the student alone.

    A teacher's vote on an image is +1/2 for real and -1/2 for generated, so one record moves an image's sum by 1.
    """

    NAME, KIND = "pate_gan", "laplace"
    SOURCES = (
        "Jordon, Yoon, van der Schaar, PATE-GAN, ICLR 2019, section 4; models/pate_gan.py and "
        "utils/{architectures,helper}.py of BorealisAI's repository, whose only runs are on tables",
        "departure: no image setting is published, so the networks are DataLens' and the defaults a proposal",
        *TeacherGAN.SHARED,
        "departure: labels of generated images are uniform; the authors draw them from the true class frequencies, "
        "which nothing accounts for",
        "departure: one vote and one batch of images per round; the authors take five per generator step",
        "departure: the option labels share trains the student on the noisy share of teachers that vote real, not on "
        "the majority alone: the same release, but without the data-dependent bound",
        "departure: the data-dependent bound is computed beside the worst case and kept private, as the votes are; its "
        "moment is log E exp, where the code adds E exp",
    )

    @dataclass(frozen=True)
    class Hyper(TeacherHyper):
        """Hyper-parameters; defaults are a proposal for 28x28 images, as the authors have none."""

        steps: int = field(default=1000, metadata={"help": "rounds: each trains the teachers and releases one vote"})
        batch_size: int = field(default=64, metadata={"help": "generated images put to the vote per round"})
        num_teachers: int = field(default=1000, metadata={"help": "disjoint parts of the records, one teacher each"})
        teacher_steps: int = field(default=5, metadata={"help": "updates of each teacher per round"})
        pretrain_steps: int = field(default=0, metadata={"help": "updates of each teacher before the first round"})
        labels: str = field(default="majority", metadata={"help": "of the student: majority (0 or 1), or share"})
        student_steps: int = field(default=5, metadata={"help": "student updates per round, on the round's images"})
        student_rate: float = field(default=1e-4, metadata={"help": "student's learning rate (Adam)"})

    PAPER: Mapping[tuple[str, float], Mapping[str, Any]] = {}

    def __init__(self, hp: Hyper, context: Context) -> None:
        super().__init__(hp, context)
        with seeded(context.seed, self.NAME, "student"):
            self._student = self._discriminator().to(self.device)

    @functools.cached_property
    def _student_optimizer(self) -> torch.optim.Adam:
        return adam(self._student.parameters(), self.hp.student_rate, (0.5, 0.999))

    @classmethod
    def _check(cls, hp: Hyper, public: PublicSpec) -> None:
        super()._check(hp, public)
        if hp.labels not in _LABELS:
            raise unknown("pate_gan.labels", hp.labels, _LABELS)

    @classmethod
    def _votes(cls, hp: Hyper) -> dict[str, Any]:
        return {"clip": 0.5, "bounded": "sum", "answers": hp.batch_size}

    def _vote(self, grant: Grant, current: Round) -> torch.Tensor:
        """Returns the noisy sums of votes [B], positive where a majority takes the image for real."""
        votes = (self._teachers.logits(current.images, current.labels) > 0).float() - 0.5
        self._account(votes)
        return grant.laplace_sum([votes])

    def _account(self, votes: torch.Tensor) -> None:
        release = self._release
        if release.kind != "none" and self.hp.labels == "majority":
            doubt = data_dependent.log_doubt_of_sign(votes.sum(dim=0), release.scale)
            self._spent = self._spent + data_dependent.laplace_cost(doubt, release.noise)

    def _learn(self, current: Round, answer: torch.Tensor) -> float:
        wanted = (answer > 0).float()
        if self.hp.labels == "share":
            wanted = (answer / self.hp.num_teachers + 0.5).clamp(0, 1)
        for _ in range(self.hp.student_steps):
            self._student_step(current, wanted)
        for i in range(self.hp.generator_steps):
            latents, labels = self._inputs(current.draws)
            loss = F.softplus(-self._student(self._generator.train()(latents, labels), labels)).mean()
            self._update_generator(loss, current.number * self.hp.generator_steps + i)
        return loss.item()

    def _student_step(self, current: Round, wanted: torch.Tensor) -> None:
        logits = self._student(current.images, current.labels)
        self._student_optimizer.zero_grad(set_to_none=True)
        F.binary_cross_entropy_with_logits(logits, wanted).backward()
        self._student_optimizer.step()

    def private_state(self) -> dict[str, Any]:
        student = {
            "student": dict(self._student.state_dict()),
            "student_optimizer": self._student_optimizer.state_dict(),
        }
        return super().private_state() | student

    def load(self, public: Mapping[str, torch.Tensor], private: Mapping[str, Any] | None) -> None:
        super().load(public, private)
        if private is not None:
            self._student.load_state_dict(private["student"])
            self._student_optimizer.load_state_dict(private["student_optimizer"])
