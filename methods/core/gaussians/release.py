"""The noisy answers that Gaussians are made of: declared, asked for once each, and read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from methods.core.gaussians.basis import CosineBasis
from methods.core.gaussians.fitting import fit
from methods.core.gaussians.mixture import ClassMixtures, Parts
from methods.core.gaussians.rows import MomentRows
from methods.core.privacy.grant import Grant
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.moments import packed_size
from methods.core.privacy.private_data import PrivateData
from methods.core.release import PublicSpec, Release
from methods.core.speed.transfers import sent

_BLOCK = 2000
_LEAST_CUTOFF, _MOST_CUTOFF = 4, 20
# Of the release: some 2 GiB while Gaussians are fitted.
MOST_NUMBERS = 20_000_000


def moments_release(name: str, public: PublicSpec, noise: float, adjacency: str = "replace_one") -> Release:
    """Returns one use of the second moments of all records by class, at a noise multiplier of their sensitivity."""
    return Release(
        name=name, kind="gaussian", clip=1.0, noise=noise, bounded="moments", rows=public.num_train, rate=1.0,
        sampling="all", max_uses=1, adjacency=adjacency,
    )  # fmt: skip


@dataclass(frozen=True)
class Question:
    """What one release asks: second moments of images' coefficients, by class, or by parts of classes.

    With `parts` the classes' centres are taken off first. All of it is public when the records are read.
    """

    basis: CosineBasis
    rows: MomentRows
    classes: int
    parts: Parts | None = None

    def ask(self, release: str, data: PrivateData, ledger: Ledger) -> torch.Tensor:
        """Charges the release, reads every record once and returns noisy packed moments float64 [classes * K, P]."""
        parts = self.parts.count if self.parts else 1
        with ledger.charge(release) as grant:
            return grant.moments(self._rows(data, grant), self.classes * parts, len(self.basis) + 1)

    def read(self, moments: torch.Tensor, release: Release, least_rank: int) -> ClassMixtures:
        """Returns the Gaussians of coefficients that an answer to `release` says."""
        laws = fit(self.rows.read(moments.cpu(), release.scale), self.classes, least_rank)
        return laws.moved(self.parts.centres.cpu()) if self.parts else laws

    def _rows(self, data: PrivateData, grant: Grant) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        cut = grant.release.kind != "none"
        for index in torch.arange(len(data)).split(_BLOCK):
            images, labels = (sent(read, self.basis.device) for read in data.read(grant, index))
            vectors = self.basis.coefficients(images.float() / 255)
            if self.parts:
                vectors, labels = self.parts.place(vectors, labels)
            yield self.rows.of(vectors, cut), labels


def drawn_images(
    basis: CosineBasis, laws: ClassMixtures, labels: torch.Tensor, rng: torch.Generator
) -> Iterator[torch.Tensor]:
    """Yields images [R, C, H, W] in [0, 1], in order, of classes int64 [N], drawn from `rng` alone; on the device."""
    for part in labels.cpu().split(_BLOCK):
        coefficients = sent(laws.draw(part, rng).float(), basis.device)
        yield basis.images(coefficients).clamp(0.0, 1.0)


def signal(public: PublicSpec, scale: float) -> float:
    """Returns the records of a class, were all alike, over the noise's scale; infinite without noise."""
    return public.num_train / public.num_classes / scale if scale else math.inf


def default_cutoff(public: PublicSpec, scale: float, parts: int = 1) -> float:
    """Returns the cutoff unless told otherwise: it grows slowly with the signal, and memory allows it."""
    cutoff = round(min(max(_LEAST_CUTOFF, 8.3 * signal(public, scale) ** 0.05), _MOST_CUTOFF))
    while cutoff > _LEAST_CUTOFF and released_size(public, cutoff, parts) > MOST_NUMBERS:
        cutoff -= 1
    return float(cutoff)


def released_size(public: PublicSpec, cutoff: float, parts: int = 1) -> int:
    """Returns how many numbers are released of a data set whose classes have so many parts."""
    return public.num_classes * parts * packed_size(len(CosineBasis(public.image_shape, cutoff)) + 1)


def default_radius(public: PublicSpec, share: float) -> float:
    """Returns a norm that vectors are cut to unless told otherwise, a share of the white image's."""
    return share * math.sqrt(math.prod(public.image_shape))
