"""G-PATE: teachers vote on randomly projected, discretised image gradients (Long et al., NeurIPS 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from methods.core import data_dependent
from methods.core.mechanisms import count_votes
from methods.core.privacy import Grant, PublicSpec
from methods.core.teacher_gan import Round, TeacherGAN, TeacherHyper
from workflow.common.errors import UserError


class GPate(TeacherGAN):
    """Each image gradient is projected to a few dimensions, and in each of them the teachers vote for a bin.

    One record moves one teacher, hence two counts of each ballot by one: sqrt(2) in L2. The refusal of a vote without
    majority and the winner both come from the same noisy counts.
    """

    NAME = "g_pate"
    SOURCES = (
        "Long, Wang, Yang, Kailkhura, Zhang, Gunter, Li, G-PATE, NeurIPS 2021, section 4; main.py, model.py and "
        "rdp_utils.py of the authors' repository; Papernot et al., Scalable private learning with PATE, ICLR 2018",
        *TeacherGAN.SHARED,
        "departure: each teacher has its own moments; the authors' code shares optimiser slots between teachers",
        "departure: refusal and winner are read from one noisy histogram; the authors pay for two noisy answers, which "
        "the worst case makes dearer",
        "departure: the authors' epsilon depends on the votes; here such a bound is computed beside the worst case and "
        "kept private, as the votes are",
        "departure: the authors published no CelebA nor Fashion-MNIST command; the defaults serve for both",
    )

    @dataclass(frozen=True)
    class Hyper(TeacherHyper):
        """Hyper-parameters; defaults are the authors' for MNIST at epsilon 10."""

        steps: int = field(default=51, metadata={"help": "rounds: each trains the teachers and releases one vote"})
        batch_size: int = field(default=30, metadata={"help": "generated images put to the vote per round"})
        num_teachers: int = field(default=2000, metadata={"help": "disjoint parts of the records, one teacher each"})
        teacher_steps: int = field(default=1, metadata={"help": "updates of each teacher per round"})
        pretrain_steps: int = field(default=0, metadata={"help": "updates of each teacher before the first round"})
        latent: int = field(default=100, metadata={"help": "size of the latent, uniform in (-1, 1)"})
        projected: int = field(default=10, metadata={"help": "dimensions that an image's gradient is projected to"})
        bins: int = field(default=10, metadata={"help": "equal bins of each projected dimension"})
        step_size: float = field(
            default=1e-4,
            metadata={"help": "projected gradients beyond +- this fall in the outer bins; pixels in [0, 1]"},
        )
        threshold: float = field(
            default=0.5, metadata={"help": "least noisy count of a winner, as a share of teachers"}
        )
        scale: float = field(default=1.0, metadata={"help": "factor on the aggregated gradient that moves a target"})

    PAPER: Mapping[tuple[str, float], Mapping[str, Any]] = {
        ("mnist", 10.0): {},
        ("mnist", 1.0): {"num_teachers": 4000, "batch_size": 15, "steps": 131, "latent": 50},
    }

    @classmethod
    def _check(cls, hp: Hyper, public: PublicSpec) -> None:
        super()._check(hp, public)
        if hp.bins < 2 or hp.projected < 1 or not hp.step_size > 0:
            raise UserError(
                "g_pate needs bins >= 2, projected >= 1 and step_size > 0, "
                f"got {hp.bins}, {hp.projected} and {hp.step_size}"
            )

    @classmethod
    def _votes(cls, hp: Hyper) -> dict[str, Any]:
        return {"clip": 1.0, "bounded": "votes", "answers": hp.batch_size * hp.projected}

    def _vote(self, grant: Grant, current: Round) -> torch.Tensor:
        """Returns the noisy counts [B * projected, bins]."""
        projections = self._projections(current.number)
        choices = torch.cat([
            bins_of(torch.einsum("nbd,bdp->nbp", gradients, projections), self.hp.step_size, self.hp.bins).flatten(1)
            for gradients in self._teachers.gradients(current.images, current.labels)
        ])  # fmt: skip
        self._account(choices)
        return grant.gaussian_votes(choices, self.hp.bins)

    def _account(self, choices: torch.Tensor) -> None:
        release = self._release
        if release.kind == "none":
            return
        counts = count_votes(choices, self.hp.bins)
        doubt = data_dependent.log_doubt_of_winner(counts, release.scale, self.hp.threshold * self.hp.num_teachers)
        self._spent = self._spent + data_dependent.gaussian_cost(doubt, release.noise)

    def _learn(self, current: Round, answer: torch.Tensor) -> float:
        most, winner = answer.max(dim=1)
        centres = (2 * winner + 1 - self.hp.bins) * (self.hp.step_size / self.hp.bins)
        kept = torch.where(most >= self.hp.threshold * self.hp.num_teachers, centres, 0.0)
        moves = torch.einsum("bp,bdp->bd", kept.view(len(current.images), -1), self._projections(current.number))
        return self._regress(current, current.images + self.hp.scale * moves.view_as(current.images))

    def _projections(self, t: int) -> torch.Tensor:
        """Returns the round's public projections [B, C * H * W, projected], entries N(0, 1 / projected)."""
        shape = (self.hp.batch_size, int(torch.Size(self.public.image_shape).numel()), self.hp.projected)
        draws = torch.randn(shape, generator=self._stream("projections", t))
        return (draws / self.hp.projected**0.5).to(self.device)


def bins_of(values: torch.Tensor, bound: float, bins: int) -> torch.Tensor:
    """Returns the bin int64, 0 .. bins - 1, of each of values among equal bins of [-bound, bound]; outside, the last.

    NaN counts as 0.
    """
    share = (values.nan_to_num(0.0) / bound).clamp(-1, 1) / 2 + 0.5
    return (share * bins).long().clamp(0, bins - 1)
