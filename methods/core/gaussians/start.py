"""A start for methods that train step by step: released Gaussians, whose images teach the networks before records do.

What was released once is public: any number of images is drawn from it, and networks learn from them without clip and
noise, as on public data. Each method says only how it takes a batch of such images.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from methods.core.gaussians.mixture import ClassMixtures
from methods.core.gaussians.model import GaussianModel, GaussianSettings
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.privacy.shares import multiplier
from methods.core.release import PublicSpec, Release
from methods.core.speed.transfers import sent
from workflow.common.settings import setting

NONE, GAUSS = "none", "dp_gauss"
# What a method says of the option among its sources.
SOURCES = (
    "option start, ours: the networks first learn from images of DP-Gauss (methods/dp_gauss.py), which are charged and "
    "then public: the recipe of DP-FETA (Li et al., From Easy to Hard, IEEE S&P 2025) without its diffusion model",
    "option start: the private steps begin with fresh optimisers; the release of the Gaussians has the adjacency of "
    "the method's own",
)


@dataclass(frozen=True)
class StartSettings:
    """The settings of a start; a plan without one says nothing of them."""

    start: str = setting(
        NONE, "what the networks learn from before records: none, or dp_gauss, images of charged Gaussians",
        choices=(NONE, GAUSS), group="start",
    )  # fmt: skip
    start_share: float = setting(
        0.3, "share of the budget, in 1 / noise^2, of the start; the steps on records have the rest", low=0.001,
        high=0.999, group="start",
    )  # fmt: skip
    start_steps: int = setting(
        1000, "steps on the start's images, before those on records; free", low=1, high=10_000_000, group="start"
    )

    @property
    def public_steps(self) -> int:
        """How many steps read no record and release nothing."""
        return self.start_steps if self.start == GAUSS else 0

    def started(self, main: Release, public: PublicSpec) -> tuple[Release, ...]:
        """Returns all releases of a run whose own is `main`, a sum over Poisson batches.

        Without a start that is `main` alone. With one its noise is that of a single answer which costs about what all
        of them do, and the start's come first, with the same adjacency.
        """
        if self.start == NONE:
            return (main,)
        rest = multiplier(
            main.noise, share=1 - self.start_share, rate=main.rate, uses=main.max_uses,
            substituted=main.adjacency == "replace_one",
        )  # fmt: skip
        first = _gaussians(main).releases(public, main.noise / self.start_share**0.5)
        return (*first, dataclasses.replace(main, noise=rest))


def _gaussians(main: Release) -> GaussianSettings:
    return GaussianSettings(adjacency=main.adjacency)


class Start:
    """The Gaussians of a run, if it has any: `take` them once, then draw `batch` after batch.

    Attributes:
        main: the method's own release, on records.
        steps: how many steps are taken on drawn images; 0 where the run has no start.
    """

    def __init__(
        self, hp: StartSettings, public: PublicSpec, releases: tuple[Release, ...], device: torch.device
    ) -> None:
        first, self.main = tuple(one for one in releases if one.bounded == "moments"), releases[-1]
        self.steps = hp.public_steps
        self._classes, self._device = public.num_classes, device
        self._model = GaussianModel(_gaussians(self.main), public, first, device) if first else None

    def take(self, data: PrivateData, ledger: Ledger) -> None:
        """Charges the start's releases, each once, and reads every record for each; without a start, does nothing."""
        for number in range(len(self._model.releases) if self._model else 0):
            self._model.take(number, data, ledger)

    def batch(self, size: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns images [size, C, H, W] in [0, 1] of uniform labels int64 [size], from `rng` alone, on the device."""
        labels = torch.randint(self._classes, (size,), generator=rng)
        return self._model.images(labels, rng), sent(labels, self._device)

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint needs besides, noisy answers which need no secrecy; empty without a start."""
        return {"start": self._model.laws.tensors()} if self._model else {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restores what `state` returned, or a state that holds it."""
        if self._model:
            self._model.laws = ClassMixtures.of(state["start"])


class Started(ABC):
    """The part of a method that may have a start: its steps are those on drawn images, then those on records.

    Stands before Method among a class's bases. The class sets the attributes when it is built.

    Attributes:
        optimizers: those that learn on the start and go on.
    """

    hp: Any
    start: Start
    optimizers: tuple[torch.optim.Optimizer, ...]

    @property
    def num_steps(self) -> int:
        return self.start.steps + self.hp.steps

    def prepare(self, data: PrivateData, ledger: Ledger, warm_start: Path | None = None) -> None:
        """Takes the start's releases, if there is one."""
        self.start.take(data, ledger)
        super().prepare(data, ledger, warm_start)

    def step(self, t: int, data: PrivateData, ledger: Ledger) -> dict[str, float]:
        """A step on the start, which reads no data, or, after these, a step on records."""
        if t < self.start.steps:
            return self.public_step(t)
        if self.start.steps and t == self.start.steps:
            self.begin_private()
        return self.private_step(t - self.start.steps, data, ledger)

    @abstractmethod
    def public_step(self, t: int) -> dict[str, float]:
        """One step of all networks on `start.batch`, without clip and noise; returns scalars for the log."""

    def begin_private(self) -> None:
        """Makes ready for the first step on records; called once more where that step was killed."""
        # Moments of gradients without noise are far smaller than noisy ones'.
        for optimizer in self.optimizers:
            optimizer.state.clear()

    @abstractmethod
    def private_step(self, t: int, data: PrivateData, ledger: Ledger) -> dict[str, float]:
        """Step t of those on records; returns scalars for the log that are safe to publish."""
