"""DP-Gauss: a few Gaussians for each class, from noisy second moments; the baseline of this suite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from methods.core.gaussians.mixture import ClassMixtures
from methods.core.gaussians.model import GaussianModel, GaussianSettings
from methods.core.method import Context, Method, StepLog
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import PublicSpec, Release
from workflow.common.search_space import choice, log, times


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
    class Hyper(GaussianSettings):
        """Hyper-parameters: those of the Gaussians."""

    PAPER: Mapping[tuple[str, float], Mapping[str, Any]] = {}

    SEARCH = {
        "constant_share": log(0.02, 0.5),
        "first_share": log(0.03, 0.5),
        "splits": choice(0, 1, 2, 3),
        "least_signal": times(0.2, 5),
        "least_rank": times(0.5, 3),
    }

    def __init__(self, hp: Hyper, context: Context) -> None:
        super().__init__(hp, context)
        self._model = GaussianModel(hp, self.public, context.releases, self.device)

    @classmethod
    def check(cls, hp: Hyper, public: PublicSpec) -> None:
        super().check(hp, public)
        hp.check(public, "dp_gauss")

    @classmethod
    def releases(cls, hp: Hyper, public: PublicSpec, noise: float) -> tuple[Release, ...]:
        """Returns one use of each of the two releases, or of the one that there is."""
        return hp.releases(public, noise)

    @property
    def num_steps(self) -> int:
        return len(self.context.releases)

    def step(self, t: int, data: PrivateData, ledger: Ledger) -> StepLog:
        """Takes release t and fits the laws to it alone."""
        self._model.take(t, data, ledger)
        return {"rank": self._model.laws.basis.shape[1]}

    def sample(self, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        return (self._model.images(labels, rng).cpu() * 255).round().to(torch.uint8)

    def public_state(self) -> dict[str, torch.Tensor]:
        return self._model.laws.tensors()

    def load(self, public: Mapping[str, torch.Tensor], private: Mapping[str, Any] | None) -> None:
        self._model.laws = ClassMixtures.of(public)
