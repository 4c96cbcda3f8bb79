"""The same GAN without clipping, noise or shards: what its kind of network reaches in the same time without privacy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from methods.core.release import Budget, PublicSpec, Release
from methods.core.sharded.gan import ShardedGAN, ShardedHyper
from methods.core.sharded.interface import RELEASE
from workflow.common.contracts import format_epsilon
from workflow.common.errors import UserError
from workflow.common.settings import setting


@dataclass(frozen=True)
class Hyper(ShardedHyper):
    """The gradient-sanitised GAN's hyper-parameters with one shard that holds every record."""

    num_shards: int = setting(1, "1: one critic sees every record", 1, 1)
    warm_start_steps: int = setting(0, "0: the only critic trains with the generator", 0, 1_000_000)


class NonPrivate(ShardedGAN):
    """A conditional WGAN-GP with GS-WGAN's networks and optimisers, and no privacy at all."""

    Hyper = Hyper
    SOURCES = (
        "GS-WGAN without its sanitiser (methods/gs_wgan.py) on one shard; no published row",
        "departure: image gradients stay as they are; GS-WGAN's code without noise scales each to the clip's norm",
        *ShardedGAN.SHARED,
    )

    SEARCH = {name: where for name, where in ShardedGAN.SEARCH.items() if name != "clip"}

    @classmethod
    def plan(cls, hp: Any, public: PublicSpec, budget: Budget) -> tuple[Release, ...]:
        """Returns one release without noise. Raises UserError for a finite epsilon: this method keeps no promise."""
        if not math.isinf(budget.epsilon):
            raise UserError(
                f"nonprivate has no privacy, so neither noise nor a cost at epsilon {format_epsilon(budget.epsilon)};"
                " it trains at epsilon inf with accounting none alone; choose another method for a private set"
            )
        return super().plan(hp, public, budget)

    @classmethod
    def check(cls, hp: Any, public: PublicSpec) -> None:
        super().check(hp, public)
        if hp.shards_per_step:
            raise UserError("nonprivate draws no shards: leave shards_per_step at 0")

    @classmethod
    def releases(cls, hp: Any, public: PublicSpec, noise: float) -> tuple[Release, ...]:
        """Returns the gradients of all images of each step, whole and without noise."""
        release = Release(
            name=RELEASE, kind="none", clip=hp.clip, noise=0.0, bounded="function", rows=hp.batch_size, rate=1.0,
            sampling="all", max_uses=hp.steps,
        )  # fmt: skip
        return (release,)
