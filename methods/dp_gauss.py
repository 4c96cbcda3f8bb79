"""DP-Gauss: a Gaussian for each class, from one noisy release of second moments; the baseline of this suite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from methods.core.gaussians.fitting import ClassGaussians
from methods.core.gaussians.release import Layout, default_cutoff, default_radius, moments_release
from methods.core.method import Context, Method, StepLog
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import PublicSpec, Release
from workflow.common.errors import UserError
from workflow.common.settings import setting

_BLOCK = 2000
# Some 2 GiB while they are fitted.
_MOST_NUMBERS = 20_000_000


class DPGauss(Method):
    """Releases the second moments of each class's low frequencies once, and samples from the normal laws they say.

    Nothing is trained, so a run takes seconds. A record moves all matrices together by at most sqrt(2), whatever the
    number of classes (`methods.core.privacy.moments`); counts and means are entries of the same matrices.
    """

    SOURCES = (
        "this suite's own; releasing moments and sampling from Gaussians goes back to Chanyaswad, Liu, Mittal, "
        "RON-Gauss (arXiv 1709.00054)",
        "departure from RON-Gauss: a fixed cosine basis in place of a random projection, classes have means and "
        "covariances of their own, and all moments are one release of sensitivity sqrt(2)",
        "the James-Stein estimator (1961) draws classes together; noisy eigenvalues are corrected as in the spiked "
        "covariance model (Benaych-Georges, Nadakuditi 2011)",
    )

    @dataclass(frozen=True)
    class Hyper:
        """Hyper-parameters, all public: they must not be chosen by looking at the records."""

        radius: float = setting(
            0.0, "norm that an image is cut to, in pixel units [0, 1]; 0: 0.36 root of its entries", low=0, high=1e6
        )
        cutoff: float = setting(
            0.0, "lowest frequency left out, in half waves a side; 0: follows records and noise", low=0, high=256
        )
        constant_share: float = setting(
            0.1, "share of a record's squared norm that counts and means get, the spread has the rest", low=0.001,
            high=0.999,
        )  # fmt: skip
        least_rank: int = setting(12, "fewest directions in which classes spread", low=1, high=100_000)
        adjacency: str = setting(
            "replace_one", "neighbours: replace_one, or add_or_remove", choices=("replace_one", "add_or_remove")
        )

    PAPER: Mapping[tuple[str, float], Mapping[str, Any]] = {}

    def __init__(self, hp: Hyper, context: Context) -> None:
        super().__init__(hp, context)
        (self._release,) = context.releases
        cutoff = hp.cutoff or default_cutoff(self.public, self._release.scale)
        radius = hp.radius or default_radius(self.public)
        self._layout = Layout.of(self.public, radius, cutoff, hp.constant_share, self.device)
        self._moments = torch.zeros(0)
        classes, size = self.public.num_classes, len(self._layout.basis)
        self._gaussians = ClassGaussians(torch.zeros(classes, size), torch.zeros(size, 1), torch.zeros(classes, 1, 1))

    @classmethod
    def check(cls, hp: Hyper, public: PublicSpec) -> None:
        super().check(hp, public)
        cutoff = hp.cutoff or default_cutoff(public, 0.0)
        size = Layout.of(public, 1.0, cutoff, hp.constant_share).size
        if size > _MOST_NUMBERS:
            raise UserError(
                f"dp_gauss.cutoff {cutoff:g} makes {size} numbers of the {public.num_classes} classes of"
                f" {public.dataset}, at most {_MOST_NUMBERS} fit into memory; give a lower one"
            )

    @classmethod
    def releases(cls, hp: Hyper, public: PublicSpec, noise: float) -> tuple[Release, ...]:
        """Returns one use of all classes' second moments; num_train public."""
        return (moments_release(public, noise, hp.adjacency),)

    @property
    def num_steps(self) -> int:
        return 1

    def prepare(self, data: PrivateData, ledger: Ledger, warm_start: Path | None = None) -> None:
        """Takes the one release."""
        self._moments = self._layout.release(data, ledger)

    def step(self, t: int, data: PrivateData, ledger: Ledger) -> StepLog:
        """Fits the Gaussians; reads no data."""
        self._gaussians = self._layout.fit(self._moments, self._release, self.hp.least_rank).float()
        return {"rank": self._gaussians.basis.shape[1]}

    @torch.no_grad()
    def sample(self, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        images = []
        for part in labels.split(_BLOCK):
            normal = torch.randn(len(part), self._gaussians.basis.shape[1], generator=rng)
            images.append(self._layout.images(self._gaussians, part, normal).cpu())
        return (torch.cat(images) * 255).round().to(torch.uint8)

    def public_state(self) -> dict[str, torch.Tensor]:
        return dict(vars(self._gaussians))

    def private_state(self) -> dict[str, Any]:
        return {"moments": self._moments}

    def load(self, public: Mapping[str, torch.Tensor], private: Mapping[str, Any] | None) -> None:
        self._gaussians = ClassGaussians(**{name: value.cpu() for name, value in public.items()})
        if private is not None:
            self._moments = private["moments"]
