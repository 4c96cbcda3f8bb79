"""The sharded GANs with a start: generator and one critic learn from drawn images, then every shard has that critic."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import nn

from methods.core.gaussians.start import NONE, SOURCES, Start, Started, StartSettings
from methods.core.method import Context, StepLog
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import PublicSpec, Release
from methods.core.rng import named_rng
from methods.core.sharded.gan import ShardedGAN, ShardedHyper
from methods.core.sharded.losses import critic_loss, image_gradients
from methods.core.sharded.stacks import NetworkBatch, NetworkStore
from methods.core.speed.transfers import sent
from workflow.common.errors import UserError


@dataclass(frozen=True)
class StartingHyper(StartSettings, ShardedHyper):
    """The gradient-sanitised GAN's hyper-parameters, and those of its start."""


class StartingGAN(Started, ShardedGAN):
    """A sharded GAN whose networks may learn from drawn images before the shards answer.

    Attributes:
        learners: the networks besides the generator that learn so, by name, each alone in its store; empty without a
            start.
    """

    Hyper = StartingHyper
    OF_THE_START: ClassVar[tuple[str, ...]] = (
        *SOURCES,
        "option start goes with shards_per_step: one critic learns from the drawn images, batch_size at a time, and "
        "every shard's begins as a copy of it",
    )

    @classmethod
    def check(cls, hp: Any, public: PublicSpec) -> None:
        super().check(hp, public)
        if hp.start != NONE and not hp.shards_per_step:
            name = cls.__module__.removeprefix("methods.")
            raise UserError(
                f"{name}.start {hp.start} needs shards_per_step above 0, as in the run {name}_sound, got 0: where one"
                f" shard answers a step, each critic begins on its own records; give shards_per_step, or start {NONE}"
            )

    @classmethod
    def rehearsal(cls, hp: Any) -> Any:
        """As without a start, whose steps are one."""
        return replace(super().rehearsal(hp), start_steps=1)

    @classmethod
    def releases(cls, hp: Any, public: PublicSpec, noise: float) -> tuple[Release, ...]:
        """Returns the start's releases, if there is one, and the image gradients of each step."""
        return hp.started(*super().releases(hp, public, noise), public)

    def __init__(self, hp: Any, context: Context) -> None:
        super().__init__(hp, context)
        self.start = Start(hp, self.public, context.releases, self.device)
        self.optimizers = (self.optimizer,)
        self._only = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.learners = self.learners_of_the_start() if self.start.steps else {}

    @property
    def step_releases(self) -> tuple[Release, ...]:
        return (self.start.main,) if self.start.steps else super().step_releases

    def learners_of_the_start(self) -> dict[str, NetworkStore]:
        """Returns the networks that learn from drawn images, as they are before they do."""
        return {"critic": NetworkStore(super().new_critic, 1, self.hp.critic_learning_rate)}

    def new_critic(self) -> nn.Module:
        return self.learned("critic", super().new_critic())

    def learned(self, name: str, network: nn.Module) -> nn.Module:
        """Returns `network` with the weights that the learner `name` has so far; as it is where there is none."""
        if name in self.learners:
            weights = self.learners[name].take(self._only).weights
            network.load_state_dict({part: value[0] for part, value in weights.items()})
        return network

    @contextlib.contextmanager
    def learner(self, name: str) -> Iterator[NetworkBatch]:
        """Yields the learner `name`, a batch of one network, and keeps what becomes of it."""
        network = self.learners[name].take(self._only)
        yield network
        self.learners[name].put(self._only, network)

    def public_step(self, t: int) -> StepLog:
        """As many updates of the critic as a step on records has, and one step of the generator."""
        hp, rng = self.hp, named_rng(self.context.seed, "start", t)
        for _ in range(hp.critic_steps):
            self.learn(*self.start.batch(hp.batch_size, rng), rng)
        labels = self.uniform_labels(hp.batch_size, rng)
        fakes = self.generate(labels, rng)
        with self.learner("critic") as critic:
            gradients = image_gradients(critic.scorer, fakes.detach(), labels, hp.precision)[0]
        super().move_generator(t, fakes, gradients / hp.batch_size)
        return {"gradient_norm": gradients.flatten(1).norm(dim=1).mean()}

    def learn(self, images: torch.Tensor, labels: torch.Tensor, rng: torch.Generator) -> None:
        """One update of the critic on drawn images [B, C, H, W] of labels int64 [B], against fakes of the same."""
        hp, share = self.hp, sent(torch.rand(len(labels), 1, 1, 1, generator=rng), images.device)
        batch = images, self.fakes_for(labels, rng), labels, share
        with self.learner("critic") as critic:
            seen = [critic.spread(part) for part in batch]
            critic.descend(lambda scorer: critic_loss(scorer, *seen, hp.gradient_penalty, hp.drift, hp.precision))

    def begin_private(self) -> None:
        """Gives every shard what was learned, with a fresh optimiser."""
        super().begin_private()
        self.make_networks()

    def private_step(self, t: int, data: PrivateData, ledger: Ledger) -> StepLog:
        return ShardedGAN.step(self, t, data, ledger)

    def move_generator(self, t: int, fakes: torch.Tensor, gradients: torch.Tensor) -> None:
        """Moves it as without a start, whose steps count: the average goes on from them."""
        super().move_generator(self.start.steps + t, fakes, gradients)

    def private_state(self) -> dict[str, Any]:
        learners = {"learners": {name: store.state() for name, store in self.learners.items()}} if self.learners else {}
        return super().private_state() | self.start.state() | learners

    def load(self, public: Mapping[str, torch.Tensor], private: Mapping[str, Any] | None) -> None:
        super().load(public, private)
        if private is not None:
            self.start.load(private)
            for name, store in self.learners.items():
                store.load(private["learners"][name])
