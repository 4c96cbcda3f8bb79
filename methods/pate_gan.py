"""PATE-GAN: a student discriminator learns from noisy majority votes of teachers (Jordon et al., ICLR 2019)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from methods.core.accounting import data_dependent
from methods.core.method import Context
from methods.core.optimisers import adam, descend
from methods.core.privacy.grant import Grant
from methods.core.release import PublicSpec, Release
from methods.core.rng import seeded
from methods.core.teachers.gan import Round, TeacherGAN, TeacherHyper, vote_release, with_default
from workflow.common.search_space import choice, linear, times
from workflow.common.settings import setting


class PATEGAN(TeacherGAN):
    """The student sees generated images alone, labelled by the noisy vote; the generator sees the student alone.

    A teacher's vote on an image is +1/2 for real and -1/2 for generated, so one record moves an image's sum by 1.
    """

    NAME = "pate_gan"
    SOURCES = (
        "Jordon, Yoon, van der Schaar, PATE-GAN, ICLR 2019, section 4; models/pate_gan.py and "
        "utils/{architectures,helper}.py of BorealisAI's repository, whose only runs are on tables",
        "departure: no image setting is published, so the networks are DataLens' and the defaults a proposal",
        "the row is at chance: a vote is one bit an image, and teachers soon agree that every image is generated, so "
        "no bit tells one image from another, nor where real ones lie. Noise is not what limits it: preset quick's "
        "3,840 bits have Laplace scale 31 of 1,000 votes (python -m methods account pate_gan --set steps=60 "
        "--epsilon 10)",
        *TeacherGAN.SHARED,
        "departure: labels of generated images are uniform; the authors draw them from the true class frequencies, "
        "which nothing accounts for",
        "departure: one vote and one batch of images per round; the authors take five per generator step",
        "departure: latents are uniform in (-1, 1); the code trains on (0, 1) and samples from N(0, 1)",
        "departure: Adam has betas 0.5 and 0.999, and a rate of 1e-3 for generator and teachers; the code 0.9 and "
        "0.999, and 1e-4 for all",
        "departure: a thousand teachers, where the repository's runs have ten; weights start as torch's or N(0, "
        "0.02^2), not as Xavier's",
        "departure: the option labels share trains the student on the noisy share of teachers that vote real, not on "
        "the majority alone: the same release, but without the data-dependent bound",
        "departure: the data-dependent bound is computed next to the worst case and kept private, as the votes are; "
        "its moment is log E exp, where the code adds E exp",
    )

    @dataclass(frozen=True)
    class Hyper(TeacherHyper):
        """Hyper-parameters; defaults are a proposal for 28x28 images, as the authors have none."""

        steps: int = with_default("steps", 1000)
        batch_size: int = with_default("batch_size", 64)
        num_teachers: int = with_default("num_teachers", 1000)
        teacher_steps: int = with_default("teacher_steps", 5)
        pretrain_steps: int = with_default("pretrain_steps", 0)
        labels: str = setting("majority", "of the student: majority (0 or 1), or share", choices=("majority", "share"))
        student_steps: int = setting(5, "student updates per round, on the round's images", low=1, high=10_000)
        student_rate: float = setting(1e-4, "student's learning rate (Adam)", low=1e-9, high=10)

    PAPER: Mapping[tuple[str, float], Mapping[str, Any]] = {}

    SEARCH = {
        "num_teachers": times(0.3, 2),
        "steps": times(0.3, 3),
        "batch_size": times(0.3, 2),
        "teacher_rate": times(0.3, 3),
        "teacher_steps": choice(1, 3, 6),
        "teacher_decay": linear(0, 0.5),
        "labels": choice("majority", "share"),
        "student_steps": times(0.3, 3),
        "student_rate": times(0.2, 5),
        "learning_rate": times(0.3, 5),
        "generator_steps": choice(1, 3, 10),
        "ema": choice(0.8, 0.9, 0.95),
    }

    def __init__(self, hp: Hyper, context: Context) -> None:
        super().__init__(hp, context)
        with seeded(context.seed, self.NAME, "student"):
            self._student = self._discriminator().to(self.device)

    @functools.cached_property
    def _student_optimizer(self) -> torch.optim.Adam:
        return adam(self._student.parameters(), self.hp.student_rate, (0.5, 0.999))

    @classmethod
    def rehearsal(cls, hp: Hyper) -> Hyper:
        return replace(super().rehearsal(hp), student_steps=1)

    @classmethod
    def counted(cls, hp: Hyper, public: PublicSpec, noise: float) -> tuple[Release, ...]:
        """Returns the summed votes of each image, +1/2 or -1/2 a teacher."""
        return (vote_release(hp, noise, kind="laplace", clip=0.5, bounded="sum", answers=hp.batch_size),)

    def _vote(self, grant: Grant, current: Round) -> torch.Tensor:
        """Returns the noisy sums of votes [B], positive where a majority takes the image for real."""
        votes = (self._teachers.logits(current.images, current.labels) > 0).float() - 0.5
        self._account(votes)
        return grant.sum([votes])

    def _account(self, votes: torch.Tensor) -> None:
        release = self._release
        if release.kind != "none" and self.hp.labels == "majority":
            doubt = data_dependent.log_doubt_of_sign(votes.sum(dim=0), release.scale)
            self._spent = self._spent + data_dependent.laplace_cost(doubt, release.noise)

    def _learn(self, current: Round, answer: torch.Tensor) -> torch.Tensor:
        wanted = (answer > 0).float()
        if self.hp.labels == "share":
            wanted = (answer / self.hp.num_teachers + 0.5).clamp(0, 1)
        for _ in range(self.hp.student_steps):
            self._student_step(current, wanted)
        for i in range(self.hp.generator_steps):
            latents, labels = self._inputs(current.rng)
            loss = F.softplus(-self._student(self._generator.train()(latents, labels), labels)).mean()
            self._update_generator(loss, current.number * self.hp.generator_steps + i)
        return loss.detach()

    def _student_step(self, current: Round, wanted: torch.Tensor) -> None:
        loss = F.binary_cross_entropy_with_logits(self._student(current.images, current.labels), wanted)
        descend(loss, self._student, self._student_optimizer)

    def _trained(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return super()._trained() | {"student": self._student, "student_optimizer": self._student_optimizer}
