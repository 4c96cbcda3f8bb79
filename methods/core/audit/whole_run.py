"""Canary records in a real training run, and guesses from the released images alone which of them were there."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import torch

from methods.core.audit import bounds
from methods.core.audit.mechanism import Audit
from methods.core.privacy.grant import Grant
from methods.core.privacy.private_data import Index, PrivateData
from methods.core.release import PublicSpec
from methods.core.rng import named_rng
from methods.core.runs import generator, warm_start
from methods.core.runs.plan import Plan
from methods.core.runs.sample import draw
from methods.core.runs.train import train
from workflow.common.errors import UserError
from workflow.common.seeds import numpy_stream

CANARIES = 200


class CanaryData:
    """Training records of which some positions are exchanged for others, or absent: the door of PrivateData.

    `images` uint8 [m, C, H, W] and `labels` int64 [m] stand at `positions` int64 [m]; a position of `absent` bool [m]
    is read as nothing, while the number of records, which is public, stays.
    """

    def __init__(
        self, data: PrivateData, positions: np.ndarray, images: torch.Tensor, labels: torch.Tensor, absent: np.ndarray
    ) -> None:
        self._data, self._images, self._labels = data, images, labels
        self._canary = torch.full((len(data),), -1, dtype=torch.int64)
        self._canary[positions] = torch.arange(len(positions))
        self._absent = torch.zeros(len(data), dtype=torch.bool)
        self._absent[positions[absent]] = True

    def __len__(self) -> int:
        return len(self._data)

    def _keyed(self, *names: object) -> bytes:
        """As PrivateData's, of the records without canaries."""
        return self._data._keyed(*names)

    def read(self, grant: Grant | None, index: Index) -> tuple[torch.Tensor, torch.Tensor]:
        """Reads as PrivateData does, and raises as it does."""
        where = torch.as_tensor(index, dtype=torch.int64).reshape(-1)
        images, labels = self._data.read(grant, where)
        which = self._canary[where]
        images, labels = images.clone(), labels.clone()
        images[which >= 0] = self._images[which[which >= 0]]
        labels[which >= 0] = self._labels[which[which >= 0]]
        kept = ~self._absent[where]
        return images[kept], labels[kept]


def audit(
    plan: Plan,
    data: PrivateData,
    device: torch.device,
    *,
    seed: int = 0,
    canaries: int = CANARIES,
    samples: int = 2000,
    confidence: float = bounds.CONFIDENCE,
) -> Audit:
    """Returns a lower bound on the epsilon of one whole run of a plan's method on `data`, from its images.

    At each of `canaries` random positions stand two images like no other: blocks of black and white, drawn at random,
    with a random label. A fair coin says which of the two is trained on or, where the plan promises add-or-remove,
    whether the first is there at all. The score is how much nearer the nearest of `samples` generated images is to the
    first (root mean square over pixels); `bounds.from_one_run` turns guesses into the bound. The method is
    trained as a run is, ledger and warm start included.

    Raises UserError for more canaries than records, or what training raises.
    """
    if canaries > len(data):
        raise UserError(f"{canaries} canaries do not fit into {len(data)} records; use fewer")
    leaves = any(release.adjacency == "add_or_remove" for release in plan.releases)
    planted = plant(plan.public, data, seed, canaries, leaves)
    with tempfile.TemporaryDirectory() as folder:
        generated = _generate(plan, planted.door, Path(folder), samples, device)
    bound = bounds.from_one_run(scores(planted, generated), planted.coins, plan.budget.delta, confidence)
    return Audit(plan.releases, canaries, confidence, bound)


@dataclasses.dataclass(frozen=True)
class Planted:
    """Records of which those at `positions` int64 [m] are canaries, and the secret of each.

    `coins` bool [m] says whether the first of the canary's `pairs` uint8 [2, m, C, H, W] is read through `door`;
    otherwise its second, or nothing.
    """

    door: CanaryData
    positions: np.ndarray
    coins: np.ndarray
    pairs: torch.Tensor


def plant(public: PublicSpec, data: PrivateData, seed: int, canaries: int, leaves: bool) -> Planted:
    """Puts `canaries` pairs of images at random positions of `data`, which must have as many, with coins of `seed`.

    `leaves`: the False side of a coin is absent, in place of the second image.
    """
    draws = numpy_stream(seed, "audit training")
    positions = draws.permutation(len(data))[:canaries]
    coins = draws.random(canaries) < 0.5
    pairs = _patterns(draws, 2 * canaries, public.image_shape).view(2, canaries, *public.image_shape)
    labels = torch.from_numpy(draws.integers(public.num_classes, size=canaries))
    chosen = torch.where(torch.from_numpy(coins | leaves)[:, None, None, None], pairs[0], pairs[1])
    door = CanaryData(data, positions, chosen, labels, ~coins if leaves else np.zeros(canaries, dtype=bool))
    return Planted(door, positions, coins, pairs)


def scores(planted: Planted, generated: torch.Tensor) -> np.ndarray:
    """Returns float64 [m], how much nearer the nearest of `generated` uint8 [n, C, H, W] is to each first image."""
    return nearest(planted.pairs[1], generated) - nearest(planted.pairs[0], generated)


def _patterns(draws: np.random.Generator, count: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """Returns uint8 images [count, C, H, W] of 4 x 4 blocks that are black or white at random."""
    channels, height, width = shape
    blocks = draws.integers(2, size=(count, channels, -(-height // 4), -(-width // 4)), dtype=np.uint8) * 255
    return torch.from_numpy(blocks.repeat(4, axis=2).repeat(4, axis=3)[:, :, :height, :width].copy())


def _generate(plan: Plan, door: CanaryData, folder: Path, samples: int, device: torch.device) -> torch.Tensor:
    """Trains a run in `folder` and returns its images uint8 [samples, C, H, W]."""
    settings = warm_start.wanted(plan)
    if settings is not None:
        warm_start.make(plan.method, settings, plan.public, door, plan.seed, device, folder / "warm")
    train(plan, door, folder / "run", device, folder / "warm" if settings is not None else None)
    rng = named_rng(plan.seed, "audit samples")
    return torch.from_numpy(draw(plan, generator.load(folder / "run"), samples, device, rng)[0])


def nearest(canaries: torch.Tensor, generated: torch.Tensor) -> np.ndarray:
    """Returns the distance float64 [m] of each canary to the nearest generated image, per pixel, in grey levels."""
    one, two = (images.cpu().flatten(1).double() for images in (canaries, generated))
    # Exact, as all are whole numbers below 2^53: equal distances compare equal.
    squares = (one**2).sum(1)[:, None] + (two**2).sum(1) - 2 * one @ two.T
    return (squares.min(dim=1).values.sqrt() / one.shape[1] ** 0.5).numpy()
