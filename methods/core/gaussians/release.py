"""The one noisy answer that a Gaussian per class is made of: declared, asked for once, and read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from methods.core.gaussians.basis import CosineBasis
from methods.core.gaussians.fitting import ClassGaussians, fit
from methods.core.gaussians.rows import MomentRows
from methods.core.privacy.grant import Grant
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.moments import packed_size
from methods.core.privacy.private_data import PrivateData
from methods.core.release import PublicSpec, Release

RELEASE = "moments"
_BLOCK = 2000
_MOST_CUTOFF = 20.0


def moments_release(public: PublicSpec, noise: float, adjacency: str = "replace_one") -> Release:
    """Returns one use of the second moments of all records by class, at a noise multiplier of their sensitivity."""
    return Release(
        name=RELEASE, kind="gaussian", clip=1.0, noise=noise, bounded="moments", rows=public.num_train, rate=1.0,
        sampling="all", max_uses=1, adjacency=adjacency,
    )  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """The public choices behind the moments: in which coefficients of images they are taken, and how these are cut."""

    basis: CosineBasis
    rows: MomentRows
    classes: int

    @classmethod
    def of(
        cls, public: PublicSpec, radius: float, cutoff: float, constant_share: float, device: torch.device | str = "cpu"
    ) -> Layout:
        """Returns the layout for a data set; see `MomentRows` and `CosineBasis` for the numbers."""
        basis = CosineBasis(public.image_shape, cutoff, device)
        return cls(basis, MomentRows(radius, constant_share), public.num_classes)

    @property
    def size(self) -> int:
        """How many numbers are released."""
        return self.classes * packed_size(len(self.basis) + 1)

    def release(self, data: PrivateData, ledger: Ledger) -> torch.Tensor:
        """Charges the release, reads every record once and returns the noisy packed moments float64 [classes, P]."""
        with ledger.charge(RELEASE) as grant:
            return grant.moments(self._rows(data, grant), self.classes, len(self.basis) + 1)

    def fit(self, moments: torch.Tensor, release: Release, least_rank: int) -> ClassGaussians:
        """Returns the Gaussians, in coefficients, of moments that were released as `release`."""
        return fit(self.rows.read(moments.cpu(), release.scale), least_rank)

    def images(self, gaussians: ClassGaussians, labels: torch.Tensor, normal: torch.Tensor) -> torch.Tensor:
        """Returns images [N, C, H, W] in [0, 1] of classes int64 [N], of standard normal numbers [N, r]."""
        coefficients = gaussians.draw(labels.cpu(), normal).float()
        return self.basis.images(coefficients.to(self.basis.device)).clamp(0.0, 1.0)

    def _rows(self, data: PrivateData, grant: Grant) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        cut = grant.release.kind != "none"
        for index in torch.arange(len(data)).split(_BLOCK):
            images, labels = data.read(grant, index)
            pixels = images.to(self.basis.device).float() / 255
            yield self.rows.of(self.basis.coefficients(pixels), cut), labels.to(self.basis.device)


def default_cutoff(public: PublicSpec, scale: float) -> float:
    """Returns the cutoff unless told otherwise: it grows slowly with a class's records over the noise's scale."""
    if not scale:
        return _MOST_CUTOFF
    signal = public.num_train / public.num_classes / scale
    return min(max(4.0, round(4.0 * signal**0.13)), _MOST_CUTOFF)


def default_radius(public: PublicSpec) -> float:
    """Returns the norm that images are cut to unless told otherwise, in pixel units [0, 1]: that of a mid-grey one."""
    return 0.36 * math.sqrt(math.prod(public.image_shape))
