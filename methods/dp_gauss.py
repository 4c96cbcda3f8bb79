"""DP-Gauss: a few Gaussians for each class, from noisy second moments; the baseline of this suite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from methods.core.gaussians.basis import CosineBasis
from methods.core.gaussians.mixture import ClassMixtures, Parts
from methods.core.gaussians.release import (
    MOST_NUMBERS,
    Question,
    default_cutoff,
    default_radius,
    drawn_images,
    moments_release,
    released_size,
    signal,
)
from methods.core.gaussians.rows import MomentRows
from methods.core.method import Context, Method, StepLog
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import PublicSpec, Release
from workflow.common.errors import UserError
from workflow.common.settings import setting


class DPGauss(Method):
    """Releases second moments of images' low frequencies by class, and samples from the normal laws that they say.

    A first release gives each class a mean and its principal axes. Both are then public, so a second one may take the
    means off, which leaves shorter vectors for the same noise, and split each class along its axes. With a first share
    of 1 the first release is all there is: one Gaussian a class. Nothing is trained, so a run takes seconds. A record
    moves all matrices of a release together by at most sqrt(2), however many they are (`methods.core.privacy.moments`).
    """

    SOURCES = (
        "this suite's own; releasing moments and sampling from Gaussians goes back to Chanyaswad, Liu, Mittal, "
        "RON-Gauss (arXiv 1709.00054)",
        "departure from RON-Gauss: a fixed cosine basis in place of a random projection; classes, and parts of them, "
        "have means and covariances of their own; moments are released at sensitivity sqrt(2)",
        "the James-Stein estimator (1961) draws laws together; noisy eigenvalues are corrected as in the spiked "
        "covariance model (Benaych-Georges, Nadakuditi 2011)",
    )

    @dataclass(frozen=True)
    class Hyper:
        """Hyper-parameters, all public: they must not be chosen by looking at the records."""

        radius: float = setting(
            0.0, "norm that an image is cut to, in pixel units [0, 1]; 0: 0.5 root of its entries", low=0, high=1e6
        )
        spread_radius: float = setting(
            0.0, "norm that its distance from the class mean is cut to; 0: 0.25 root of its entries", low=0, high=1e6
        )
        cutoff: float = setting(
            0.0, "lowest frequency left out, in half waves a side; 0: follows records and noise", low=0, high=256
        )
        constant_share: float = setting(
            0.1, "share of a row's squared norm for counts and means; the spread has the rest", low=0.001, high=0.999
        )
        first_share: float = setting(
            0.1, "share of the budget, in 1 / noise^2, of the first release; 1: there is no second", low=0.001, high=1
        )
        splits: int = setting(1, "most axes that split each class: 2^splits Gaussians each", low=0, high=6)
        least_signal: float = setting(
            3000.0, "records over the noise's scale that parts have at least, or fewer axes split", low=0, high=1e9
        )
        least_rank: int = setting(12, "fewest directions in which classes spread", low=1, high=100_000)
        adjacency: str = setting(
            "replace_one", "neighbours: replace_one, or add_or_remove", choices=("replace_one", "add_or_remove")
        )

    PAPER: Mapping[tuple[str, float], Mapping[str, Any]] = {}

    def __init__(self, hp: Hyper, context: Context) -> None:
        super().__init__(hp, context)
        scale = context.releases[-1].scale
        self._splits = _affordable(hp, signal(self.public, scale))
        cutoff = hp.cutoff or default_cutoff(self.public, scale, 1 << self._splits)
        self._basis = CosineBasis(self.public.image_shape, cutoff, self.device)
        self._laws = ClassMixtures.blank(self.public.num_classes, len(self._basis))

    @classmethod
    def check(cls, hp: Hyper, public: PublicSpec) -> None:
        super().check(hp, public)
        if hp.first_share == 1 and hp.splits:
            raise UserError(
                f"dp_gauss.splits must be 0 where first_share is 1, got {hp.splits}: classes are split by the second"
                " release; give a first_share below 1, such as 0.1"
            )
        parts = 1 << hp.splits
        cutoff = hp.cutoff or default_cutoff(public, 0.0, parts)
        size = released_size(public, cutoff, parts)
        if size > MOST_NUMBERS:
            raise UserError(
                f"dp_gauss.cutoff {cutoff:g} makes {size} numbers of the {public.num_classes} classes of"
                f" {public.dataset}, each in {parts} parts; at most {MOST_NUMBERS} fit into memory: give a lower one,"
                " or fewer splits"
            )

    @classmethod
    def releases(cls, hp: Hyper, public: PublicSpec, noise: float) -> tuple[Release, ...]:
        """Returns one use of each release; together they cost what one at `noise` does. num_train is public."""
        shares = {"moments": hp.first_share, "parts": 1 - hp.first_share}
        return tuple(
            moments_release(name, public, noise / share**0.5, hp.adjacency) for name, share in shares.items() if share
        )

    @property
    def num_steps(self) -> int:
        return len(self.context.releases)

    def step(self, t: int, data: PrivateData, ledger: Ledger) -> StepLog:
        """Takes release t and fits the laws to it alone."""
        release, question = self.context.releases[t], self._question(t)
        laws = question.read(question.ask(release.name, data, ledger), release, self.hp.least_rank)
        # As they are stored, so that a run which continues between two releases asks the same.
        self._laws = ClassMixtures.of(laws.tensors())
        return {"rank": self._laws.basis.shape[1]}

    def sample(self, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        images = torch.cat(list(drawn_images(self._basis, self._laws, labels, rng)))
        return (images * 255).round().to(torch.uint8)

    def public_state(self) -> dict[str, torch.Tensor]:
        return self._laws.tensors()

    def load(self, public: Mapping[str, torch.Tensor], private: Mapping[str, Any] | None) -> None:
        self._laws = ClassMixtures.of(public)

    def _question(self, t: int) -> Question:
        given, share = ((self.hp.radius, 0.5), (self.hp.spread_radius, 0.25))[t]
        rows = MomentRows(given or default_radius(self.public, share), self.hp.constant_share)
        parts = Parts.along(self._laws, self._splits, self.device) if t else None
        return Question(self._basis, rows, self.public.num_classes, parts)


def _affordable(hp: DPGauss.Hyper, found: float) -> int:
    """Returns how many axes may split classes of a signal, so that parts have `least_signal` on average."""
    splits = 0
    while splits < hp.splits and found >= hp.least_signal * (2 << splits):
        splits += 1
    return splits
