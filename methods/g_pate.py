"""G-PATE: teachers vote on randomly projected, discretised image gradients (Long et al., NeurIPS 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from methods.core.accounting import data_dependent
from methods.core.privacy.grant import Grant
from methods.core.privacy.noise import count_votes
from methods.core.release import PublicSpec, Release
from methods.core.speed.transfers import sent
from methods.core.teachers.gan import NORMED, Round, SharingHyper, TeacherGAN, vote_release, with_default
from workflow.common.errors import UserError
from workflow.common.search_space import choice, linear, times
from workflow.common.settings import setting

# Of a round's projections, or its counts: a gigabyte.
_MOST_NUMBERS = 2**28


class GPATE(TeacherGAN):
    """Each image gradient is projected to a few dimensions, and in each of them the teachers vote for a bin.

    One record moves one teacher, hence two counts of each ballot by one: sqrt(2) in L2. The refusal of a vote without
    majority and the winner both come from the same noisy counts.
    """

    NAME = "g_pate"
    SOURCES = (
        "Long, Wang, Yang, Kailkhura, Zhang, Gunter, Li, G-PATE, NeurIPS 2021, section 4; main.py, model.py and "
        "rdp_utils.py of the authors' repository; Papernot et al., Scalable private learning with PATE, ICLR 2018",
        *TeacherGAN.SHARED,
        "departure, unless as_released: each teacher has its own moments; the authors' code restores nothing but the "
        "weights of the teachers that take a network of its graph in turn (50 networks for 2,000 teachers)",
        "departure: refusal and winner are read from one noisy histogram; the authors pay for two noisy answers, which "
        "the worst case makes dearer",
        "departure: the authors' epsilon depends on the votes; here such a bound is computed next to the worst "
        "case and kept private, as the votes are",
        "departure: the authors published no CelebA nor Fashion-MNIST command; the defaults serve for both",
    )

    @dataclass(frozen=True)
    class Hyper(SharingHyper):
        """Hyper-parameters; defaults are the authors' for MNIST at epsilon 10."""

        steps: int = with_default("steps", 51)
        batch_size: int = with_default("batch_size", 30)
        num_teachers: int = with_default("num_teachers", 2000)
        teacher_steps: int = with_default("teacher_steps", 1)
        pretrain_steps: int = with_default("pretrain_steps", 0)
        latent: int = with_default("latent", 100)
        projected: int = setting(10, "dimensions that an image's gradient is projected to", low=1, high=4096)
        bins: int = setting(10, "equal bins of each projected dimension", low=2, high=1024)
        step_size: float = setting(
            1e-4, "projected gradients beyond +- this fall in the outer bins; pixels in [0, 1]", low=1e-9, high=1e3
        )
        threshold: float = setting(0.5, "least noisy count of a winner, as a share of teachers", low=0, high=1)
        scale: float = setting(1.0, "factor on the aggregated gradient that moves a target", low=1e-9, high=1e6)

    PAPER: Mapping[tuple[str, float], Mapping[str, Any]] = {
        ("mnist", 10.0): NORMED,
        ("mnist", 1.0): NORMED | {
            "num_teachers": 4000, "batch_size": 15, "steps": 131, "latent": 50, "released_slots": 100,
        },
    }  # fmt: skip

    SEARCH = {
        "num_teachers": times(0.4, 2),
        "steps": times(0.3, 2),
        "batch_size": times(0.5, 2),
        "teacher_rate": times(0.3, 3),
        "teacher_decay": linear(0, 0.5),
        "projected": times(0.3, 2),
        "bins": choice(2, 3, 4),
        "threshold": linear(0.3, 0.8),
        "scale": times(0.2, 5),
        "generator_steps": times(0.4, 3),
        "learning_rate": times(0.3, 3),
        "ema": choice(0.9, 0.95, 0.97),
    }

    @classmethod
    def check(cls, hp: Hyper, public: PublicSpec) -> None:
        super().check(hp, public)
        entries = int(torch.Size(public.image_shape).numel())
        if hp.projected > entries:
            raise UserError(
                f"g_pate.projected must be at most {entries}, the entries of an image of {public.dataset}; got"
                f" {hp.projected}"
            )
        numbers = hp.batch_size * hp.projected * max(entries, hp.bins)
        if numbers > _MOST_NUMBERS:
            raise UserError(
                f"g_pate.batch_size times g_pate.projected is too large for images of {entries} entries and {hp.bins}"
                f" bins: a round would hold {numbers} numbers, more than {_MOST_NUMBERS}; give smaller ones"
            )

    @classmethod
    def counted(cls, hp: Hyper, public: PublicSpec, noise: float) -> tuple[Release, ...]:
        """Returns the counts of the bins, one ballot for each projected dimension of each image."""
        ballots = hp.batch_size * hp.projected
        return (vote_release(hp, noise, kind="gaussian", clip=1.0, bounded="votes", answers=ballots),)

    def _vote(self, grant: Grant, current: Round) -> torch.Tensor:
        """Returns the noisy counts [B * projected, bins]."""
        projections = self._projections(current.number)
        choices = torch.cat([
            bins_of(torch.einsum("nbd,bdp->nbp", gradients, projections), self.hp.step_size, self.hp.bins).flatten(1)
            for gradients in self._teachers.gradients(current.images, current.labels)
        ])  # fmt: skip
        if self.hp.slots is not None:
            # A slot's counts are a row of a sum: its teachers move together.
            counts = [count_votes(choices[slot :: self.hp.slots], self.hp.bins) for slot in range(self.hp.slots)]
            return grant.sum([torch.stack(counts).flatten(1).float()]).view(-1, self.hp.bins)
        self._account(choices)
        return grant.votes(choices, self.hp.bins)

    def _account(self, choices: torch.Tensor) -> None:
        release = self._release
        if release.kind == "none":
            return
        counts = count_votes(choices, self.hp.bins)
        doubt = data_dependent.log_doubt_of_winner(counts, release.scale, self.hp.threshold * self.hp.num_teachers)
        self._spent = self._spent + data_dependent.gaussian_cost(doubt, release.noise)

    def _learn(self, current: Round, answer: torch.Tensor) -> torch.Tensor:
        most, winner = answer.max(dim=1)
        centres = (2 * winner + 1 - self.hp.bins) * (self.hp.step_size / self.hp.bins)
        kept = torch.where(most >= self.hp.threshold * self.hp.num_teachers, centres, 0.0)
        moves = torch.einsum("bp,bdp->bd", kept.view(len(current.images), -1), self._projections(current.number))
        return self._regress(current, current.images + self.hp.scale * moves.view_as(current.images))

    def _projections(self, t: int) -> torch.Tensor:
        """Returns the round's public projections [B, C * H * W, projected], entries N(0, 1 / projected)."""
        shape = (self.hp.batch_size, int(torch.Size(self.public.image_shape).numel()), self.hp.projected)
        entries = torch.randn(shape, generator=self._rng("projections", t))
        return sent(entries / self.hp.projected**0.5, self.device)


def bins_of(values: torch.Tensor, bound: float, bins: int) -> torch.Tensor:
    """Returns the bin int64, 0 .. bins - 1, of each of values among equal bins of [-bound, bound]; outside, the last.

    NaN counts as 0.
    """
    share = (values.nan_to_num(0.0) / bound).clamp(-1, 1) / 2 + 0.5
    return (share * bins).long().clamp(0, bins - 1)
