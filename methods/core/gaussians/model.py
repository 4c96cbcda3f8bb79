"""Gaussians of images by class under a ledger: settings, releases, fit and samples, for any method to begin with."""

from __future__ import annotations

from dataclasses import dataclass

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
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import PublicSpec, Release
from workflow.common.errors import UserError
from workflow.common.settings import setting

NAMES = ("moments", "parts")


@dataclass(frozen=True)
class GaussianSettings:
    """Public choices behind the Gaussians: they must not be made by looking at the records."""

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

    def check(self, public: PublicSpec, owner: str) -> None:
        """Raises UserError for settings that do not go together, or with the data; `owner` names the method."""
        if self.first_share == 1 and self.splits:
            raise UserError(
                f"{owner}.splits must be 0 where first_share is 1, got {self.splits}: classes are split by the second"
                " release; give a first_share below 1, such as 0.1"
            )
        parts = 1 << self.splits
        cutoff = self.cutoff or default_cutoff(public, 0.0, parts)
        size = released_size(public, cutoff, parts)
        if size > MOST_NUMBERS:
            raise UserError(
                f"{owner}.cutoff {cutoff:g} makes {size} numbers of the {public.num_classes} classes of"
                f" {public.dataset}, each in {parts} parts; at most {MOST_NUMBERS} fit into memory: give a lower one,"
                " or fewer splits"
            )

    def releases(self, public: PublicSpec, noise: float) -> tuple[Release, ...]:
        """Returns one use of each release; together they cost what one at `noise` does. num_train is public."""
        shares = zip(NAMES, (self.first_share, 1 - self.first_share), strict=True)
        return tuple(
            moments_release(name, public, noise / share**0.5, self.adjacency) for name, share in shares if share
        )


class GaussianModel:
    """The laws of a data set's images: `take` each release in turn, then draw `images`.

    Once taken the laws are public, and so is whatever is drawn from them: any number of images costs nothing more.

    Attributes:
        releases: those of `GaussianSettings.releases`, as the plan has them.
        laws: what the releases so far say, in coefficients of images; 0 everywhere before the first.
    """

    def __init__(
        self, settings: GaussianSettings, public: PublicSpec, releases: tuple[Release, ...], device: torch.device | str
    ) -> None:
        self.releases = releases
        self._settings, self._public, self._device = settings, public, device
        scale = releases[-1].scale
        self._splits = _affordable(settings, signal(public, scale))
        cutoff = settings.cutoff or default_cutoff(public, scale, 1 << self._splits)
        self._basis = CosineBasis(public.image_shape, cutoff, device)
        self.laws = ClassMixtures.blank(public.num_classes, len(self._basis))

    def take(self, number: int, data: PrivateData, ledger: Ledger) -> None:
        """Charges release `number`, 0 or 1, reads every record once and fits the laws to the answer alone."""
        release, question = self.releases[number], self._question(number)
        laws = question.read(question.ask(release.name, data, ledger), release, self._settings.least_rank)
        # As they are stored, so that a run which continues between two releases asks the same.
        self.laws = ClassMixtures.of(laws.tensors())

    def images(self, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """Returns images float32 [N, C, H, W] in [0, 1] for labels int64 [N], drawn from `rng` alone; on the device."""
        return torch.cat(list(drawn_images(self._basis, self.laws, labels, rng)))

    def _question(self, number: int) -> Question:
        settings = self._settings
        given, share = ((settings.radius, 0.5), (settings.spread_radius, 0.25))[number]
        rows = MomentRows(given or default_radius(self._public, share), settings.constant_share)
        parts = Parts.along(self.laws, self._splits, self._device) if number else None
        return Question(self._basis, rows, self._public.num_classes, parts)


def _affordable(settings: GaussianSettings, found: float) -> int:
    """Returns how many axes may split classes of a signal, so that parts have `least_signal` on average."""
    splits = 0
    while splits < settings.splits and found >= settings.least_signal * (2 << splits):
        splits += 1
    return splits
