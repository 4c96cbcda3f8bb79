"""Canary records in a real training run, and guesses from the released images alone which of them were there."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from methods.core import audit_bounds, registry
from methods.core.arguments import context
from methods.core.audit_mechanism import Audit
from methods.core.checkpoint import load_generator
from methods.core.method import Context
from methods.core.privacy import Budget, Grant, Ledger
from methods.core.private_data import Index, PrivateData
from methods.core.sample import balanced_labels
from methods.core.streams import stream
from methods.core.train import build, train
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
    plan: dict[str, Any],
    data: PrivateData,
    device: torch.device,
    *,
    seed: int = 0,
    canaries: int = CANARIES,
    samples: int = 2000,
    confidence: float = audit_bounds.CONFIDENCE,
) -> Audit:
    """Returns a lower bound on the epsilon of one whole run of a plan's method on `data`, from its images.

    At each of `canaries` random positions stand two images like no other: blocks of black and white, drawn at random,
    with a random label. A fair coin says which of the two is trained on or, where the plan promises add-or-remove,
    whether the first is there at all. The score is how much nearer the nearest of `samples` generated images is to the
    first (root mean square over pixels); `audit_bounds.from_one_run` turns guesses into the bound. The method is
    trained as a run is, ledger and warm start included.

    Raises UserError for more canaries than records, or what training raises.
    """
    if canaries > len(data):
        raise UserError(f"{canaries} canaries do not fit into {len(data)} records; use fewer")
    known = context(plan, device)
    draws = numpy_stream(seed, "audit training")
    positions = draws.permutation(len(data))[:canaries]
    coins = draws.random(canaries) < 0.5
    pairs = _patterns(draws, 2 * canaries, known.public.image_shape).view(2, canaries, *known.public.image_shape)
    labels = torch.from_numpy(draws.integers(known.public.num_classes, size=canaries))
    leaves = any(release.adjacency == "add_or_remove" for release in known.releases)
    chosen = torch.where(torch.from_numpy(coins | leaves)[:, None, None, None], pairs[0], pairs[1])
    door = CanaryData(data, positions, chosen, labels, ~coins if leaves else np.zeros(canaries, dtype=bool))
    with tempfile.TemporaryDirectory() as folder:
        generated = _generate(plan, known, door, Path(folder), samples)
    scores = _nearest(pairs[1], generated) - _nearest(pairs[0], generated)
    bound = audit_bounds.from_one_run(scores, coins, plan["delta"], confidence)
    return Audit(known.releases, canaries, confidence, bound)


def _patterns(draws: np.random.Generator, count: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """Returns uint8 images [count, C, H, W] of 4 x 4 blocks that are black or white at random."""
    channels, height, width = shape
    blocks = draws.integers(2, size=(count, channels, -(-height // 4), -(-width // 4)), dtype=np.uint8) * 255
    return torch.from_numpy(blocks.repeat(4, axis=2).repeat(4, axis=3)[:, :, :height, :width].copy())


def _generate(plan: dict[str, Any], known: Context, door: CanaryData, folder: Path, samples: int) -> torch.Tensor:
    """Trains a run in `folder` and returns its images uint8 [samples, C, H, W]."""
    train(plan, door, folder / "run", known.device, _warm_start(plan, known, door, folder))
    method = build(plan, known.device)
    method.load({name: value.to(known.device) for name, value in load_generator(folder / "run").items()}, None)
    labels = balanced_labels(samples, known.public.num_classes)
    return method.sample(labels, stream(plan["seed"], "audit samples"))


def _warm_start(plan: dict[str, Any], known: Context, door: CanaryData, folder: Path) -> Path | None:
    cls = registry.load(plan["method"])
    settings = cls.warm_start(registry.hyper(plan["method"], plan["hyper"]))
    if settings is None:
        return None
    out = folder / "warm"
    out.mkdir()
    with Ledger.open(folder / "warm.jsonl", (), Budget(float("inf"), 0.5, "none")) as ledger:
        cls.make_warm_start(settings, Context(known.public, (), known.seed, known.device), door, ledger, out)
    return out


def _nearest(canaries: torch.Tensor, generated: torch.Tensor) -> np.ndarray:
    """Returns the distance float64 [m] of each canary to the nearest generated image, per pixel, in grey levels."""
    flat = [images.cpu().flatten(1).double() for images in (canaries, generated)]
    return (torch.cdist(*flat).min(dim=1).values / flat[0].shape[1] ** 0.5).numpy()
