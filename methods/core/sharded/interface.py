"""What a way for shards to answer a step offers the GAN, and what it asks of the GAN's players."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from methods.core.privacy.grant import Grant
from methods.core.privacy.private_data import PrivateData
from methods.core.release import Release

RELEASE = "image_gradient"


class Networks(Protocol):
    """The network of one shard, or a batch of those of M shards, each with its own optimiser."""

    @property
    def scorer(self) -> Any:
        """What the losses take."""

    def descend(self, make_loss: Callable[[Any], torch.Tensor]) -> None:
        """One optimiser step of each network down its own entry of the loss that `make_loss(scorer)` returns."""

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Returns values [...] that are the same for all networks in the form of values of each: [...] or [M, ...]."""


class Store(Protocol):
    """A network for every shard; `shards` are a step's in the form of its mechanism, see `ShardStep`."""

    def take(self, shards: Any, /) -> Networks:
        """Returns the networks of the shards of a step, to work with."""

    def put(self, shards: Any, networks: Any, /) -> None:
        """Stores what `take` returned as the networks of the shards."""

    def state(self) -> dict[str, Any]:
        """Returns all that a checkpoint needs."""

    def load(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned."""


class ShardStep(Protocol):
    """What one step may do with the shards that it drew: read them under its grant, with the step's own rng."""

    @property
    def shards(self) -> Any:
        """What the mechanism's `Store.take` takes."""

    @property
    def release(self) -> str:
        """The name of the release that the step charges."""

    @property
    def shared(self) -> Any:
        """What `Players.public_phase` returned."""

    def read(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns `size` distinct random records of each shard, or all it has: images in [0, 1], and labels int64.

        [B, C, H, W] and [B] of one shard, [M, B, C, H, W] and [M, B] of M.
        """

    def critic_batches(self, steps: int, size: int) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yields for each critic update: records as `read`, fakes of the same labels, labels, and uniform shares."""

    def copies(self, networks: Any) -> Networks:
        """Returns a copy, for each shard, of the one network that `Mechanism.new` made."""


class Players(Protocol):
    """The networks of the GAN, as `sharded.gan.ShardedGAN` documents them."""

    def train_critics(self, step: ShardStep) -> Networks: ...
    def public_phase(self, t: int, release: str, rng: torch.Generator) -> Any: ...
    def shard_gradients(
        self, t: int, critics: Networks, fakes: torch.Tensor, labels: torch.Tensor, step: ShardStep
    ) -> torch.Tensor: ...
    def generate(self, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor: ...
    def uniform_labels(self, count: int, rng: torch.Generator) -> torch.Tensor: ...
    def fakes_for(self, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor: ...
    def balanced_fakes(self, per_class: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]: ...


class Mechanism(ABC):
    """How drawn shards answer a step; its one release is named RELEASE.

    Args:
        hp: the method's hyper-parameters.
        shards: record indices int64 [K, size], each shard's.
        device: where networks live.
    """

    def __init__(self, hp: Any, shards: torch.Tensor, device: torch.device) -> None:
        self.hp, self.shards, self.device = hp, shards, device

    @classmethod
    @abstractmethod
    def check(cls, hp: Any) -> None:
        """Raises UserError for hyper-parameters that the mechanism cannot do."""

    @classmethod
    @abstractmethod
    def release(cls, hp: Any, noise: float) -> Release:
        """Returns what a run releases at the noise multiplier `noise`."""

    @abstractmethod
    def networks(self, build: Callable[[], nn.Module], warm_start: Path | None = None) -> Store:
        """Returns a store of one network per shard, as `build` makes it or as the warm start left it."""

    @abstractmethod
    def new(self, build: Callable[[], nn.Module]) -> Networks:
        """Returns a new network that belongs to no shard yet; see `ShardStep.copies`."""

    @abstractmethod
    def answer(
        self, players: Players, t: int, size: int, data: PrivateData, grant: Grant, rng: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns fakes [B, C, H, W] of step t with their graph, B = `size`, and their noisy gradients, the same shape.

        It is the only code between the drawn shards and the generator.
        """
