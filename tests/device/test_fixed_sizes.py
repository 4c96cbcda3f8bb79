"""On a GPU what a record is multiplied with has one size, however many records a Poisson batch has.

A GPU's libraries choose their kernels by the sizes of operands. Were these a batch's, one record more or less could
move the last digits of all others, and with them which of their units are on. Tried on a pretended card.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from pretended import CUDA, pretended_card
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from methods.core.privacy import dp_sgd
from methods.core.privacy.grant import Grant
from methods.core.privacy.noise import NoiseSource
from methods.core.release import Release
from methods.core.rng import named_rng, seeded
from methods.core.scattering.features import Scattering
from methods.core.speed.remembered import Remembered

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here, which cannot be pretended beside it")

CPU = torch.device("cpu")
RELEASE = Release(
    name="g", kind="gaussian", clip=0.5, noise=0.0, bounded="sum", rows=1000, rate=0.1, sampling="poisson",
    max_uses=99, adjacency="add_or_remove",
)  # fmt: skip


class Products(TorchDispatchMode):
    """Notes the sizes of all that is multiplied."""

    NAMES = ("mm", "bmm", "addmm", "baddbmm", "mv", "convolution", "convolution_backward")

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in self.NAMES:
            self.sizes.append((name, *(list(value.shape) for value in args if isinstance(value, torch.Tensor))))
        return func(*args, **(kwargs or {}))


def network() -> nn.Module:
    with seeded(0, "network"):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 1)
        )


def losses(model: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    return model(rows.view(-1, 1, 8, 8)).squeeze(1).square() * 9


def summed(batch: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, list[Any]]:
    """Returns the sum of clipped gradients on the processor, and the sizes of a step's products."""
    model = copy.deepcopy(network()).to(device)
    optimizer = dp_sgd.PrivateOptimizer(model, torch.optim.SGD(model.parameters(), lr=1.0), RELEASE, 1)
    totals: list[torch.Tensor] = []
    grant = Grant(RELEASE, NoiseSource(b"0"), 1)
    grant.noise = lambda total: totals.append(total.cpu().double()) or 0 * total
    with Products() as products:
        optimizer.step(grant, losses, batch.to(device))
    return totals[0], products.sizes


def test_a_step_of_dp_sgd_multiplies_the_same_sizes_whatever_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    records = torch.randn(300, 64, generator=named_rng(0, "records"))
    here = {count: summed(records[:count], CPU)[0] for count in (1, 99, 100, 140, 300)}
    with pretended_card(monkeypatch):
        there = {count: summed(records[:count], CUDA) for count in here}
    # A hundred are expected, and 140 are room enough; more come in parts of as many.
    assert there[99][1] and there[1][1] == there[99][1] == there[100][1] == there[140][1]
    assert there[300][1] == 3 * there[99][1]
    for count, total in here.items():
        torch.testing.assert_close(getattr(there[count][0], "held", there[count][0]), total, rtol=1e-4, atol=1e-6)


def test_a_row_that_is_not_finite_fills_a_part_up_and_counts_as_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    records = torch.randn(5, 64, generator=named_rng(0, "records"))
    records[0] = torch.inf
    with pretended_card(monkeypatch):
        total = summed(records, CUDA)[0]
    torch.testing.assert_close(total, summed(records[1:], CPU)[0], rtol=1e-4, atol=1e-6)


def test_features_are_made_of_as_many_images_whatever_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(256, (7, 1, 8, 8), generator=named_rng(0, "images")).to(torch.uint8)
    here = Remembered(Scattering((1, 8, 8)), 324, 7, CPU)(images)
    sizes = []
    with pretended_card(monkeypatch):
        features = Scattering((1, 8, 8), CUDA)
        for count in (7, 6, 1, 0):
            with Products() as products:
                made = Remembered(features, features.size, 7, CUDA)(images[:count])
            sizes.append(products.sizes)
            torch.testing.assert_close(made.cpu(), here[:count], rtol=0, atol=2e-3)
    assert sizes[0] and sizes[0] == sizes[1] == sizes[2] == sizes[3]
