"""DP-GAN-DPAC: private image generation with a dual-purpose auxiliary classifier (Chen et al., CVPR 2023)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from methods.core.privacy.ledger import Ledger
from methods.core.release import PublicSpec, Release
from methods.core.sharded.gan import ShardedGAN
from methods.core.sharded.head_start import StartingGAN, StartingHyper
from methods.core.sharded.interface import Networks, ShardStep
from methods.core.sharded.losses import image_gradients, score_loss
from methods.core.sharded.nets import build_classifier
from methods.core.sharded.stacks import NetworkStore
from workflow.common.errors import UserError
from workflow.common.search_space import linear, times
from workflow.common.settings import setting

# The release of a step `as_released` whose classifier has joined.
BOTH = "image_gradients_of_both_nets"
# Images [N, C, H, W] with labels int64 [N] of one update, or [M, N, C, H, W] with [M, N].
Batch = tuple[torch.Tensor, torch.Tensor]
Batches = list[Batch]


@dataclass(frozen=True)
class Hyper(StartingHyper):
    """GS-WGAN's hyper-parameters and the auxiliary classifier's; the defaults are the paper's for MNIST."""

    g2r: bool = setting(True, "the classifier's fake phase (gen2real); false is the ablation w/o g2r")
    r2g: bool = setting(True, "the classifier's real phase (real2gen); false is the ablation w/o r2g")
    mix_phases: bool = setting(False, "one mixed phase of fakes and reals instead of fakes, then reals: a w/o seq")
    fresh_classifier: bool = setting(True, "a new classifier each step; false keeps one per shard: w/o init")
    classifier_start: int = setting(
        6000, "generator steps before the classifier joins; 0 is another w/o seq", 0, 10_000_000
    )
    classifier_fake_steps: int = setting(10, "classifier updates on fakes each generator step", 0, 1000)
    classifier_real_steps: int = setting(10, "classifier updates on records each generator step", 0, 1000)
    fakes_per_class: int = setting(100, "fakes per class in the classifier's fake phase", 1, 4096)
    critic_weight: float = setting(0.8, "weight of the critic's image gradient once the classifier has joined", 0, 1e6)
    classifier_weight: float = setting(
        0.2, "weight of the classifier's image gradient, relative to the critic's", 0, 1e6
    )
    as_released: bool = setting(
        False, "release what the authors' code does, at the noise of what they count: costs more than the budget"
    )
    released_batch: int = setting(
        1000, "with as_released, generated images per step once the classifier has joined", 1, 16_384
    )


class FakePhase(NamedTuple):
    """The classifier of a step after its phase of fakes, and the batches of fakes that it still has to see.

    `classifier` is None where every shard keeps its own.
    """

    classifier: Networks | None
    batches: Batches


class DPAC(StartingGAN):
    """GS-WGAN with a third player: a classifier taught on fakes, then on records of the step's shard.

    Critic and classifier gradients are weighted, summed per image and sanitised once: one release per image, at
    GS-WGAN's cost. `as_released` does what the authors' code does instead, and declares it: once the classifier has
    joined, `released_batch` images a step, with the two nets' gradients clipped and noised apart.
    """

    Hyper = Hyper
    PAPER = {
        ("mnist", 10.0): {},
        ("fashion_mnist", 10.0): {},
        ("celeba", 10.0): {
            "num_shards": 2543, "critic_steps": 10, "warm_start_steps": 12000, "classifier_start": 1000,
            "fakes_per_class": 500,
        },
    }  # fmt: skip
    SOURCES = (
        "Chen, Liu, Ma, Nepal, Xu, Private Image Generation with Dual-Purpose Auxiliary Classifier, CVPR 2023; "
        "source/{main,main_celeba_gender,models,pretrain,config}.py of the authors' repository",
        "departure: the noise is calibrated to the budget (the authors' 1.07 and 0.61135 are what their count gives)",
        "departure, unless as_released: one sanitised gradient per image; the repository weights the critic's and the "
        "classifier's, clips and noises them apart, and counts one",
        "departure, unless as_released: the generator batch stays at batch_size; the repository's grows to 1000 once "
        "the classifier joins and is counted as 32",
        "departure: every batch before the classifier joins is whole; the repository's is as long as the last batch of "
        "its shard, 32 or 28 on MNIST",
        "departure: the classifier's fake phase clears its gradients between updates",
        "ablations are not in the repository: g2r, r2g drop a phase; seq is classifier_start 0 or mix_phases; init "
        "keeps one classifier per shard, since one for all shards would let each record into every step",
        *ShardedGAN.SHARED,
        "option shards_per_step (see methods/gs_wgan.py): the classifier's fake phase is shared by the drawn shards, "
        "as fakes are public; each continues with a copy on its own records. Both gradients are in the shard's one row",
        *StartingGAN.OF_THE_START,
        "option start: the classifier learns from the drawn images too, and every new one begins as a copy of it",
    )

    # Not the numbers of updates of its two phases: the ablation that mixes these needs as many of both.
    SEARCH = {
        **StartingGAN.SEARCH,
        "classifier_start": times(0.3, 1.5),
        "fakes_per_class": times(0.5, 3),
        "critic_weight": linear(0.4, 0.9),
        "classifier_weight": linear(0.1, 0.6),
    }

    @classmethod
    def check(cls, hp: Any, public: PublicSpec) -> None:
        super().check(hp, public)
        if public.num_classes < 2:
            raise UserError(
                f"dpac needs at least 2 classes, {public.dataset} has 1: its classifier sets one against the others;"
                " choose gs_wgan, the same GAN without a classifier"
            )
        if hp.mix_phases and not (hp.g2r and hp.r2g and hp.classifier_fake_steps == hp.classifier_real_steps):
            raise UserError("mix_phases needs g2r, r2g and as many classifier_fake_steps as classifier_real_steps")
        if hp.shards_per_step and (hp.as_released or hp.mix_phases):
            raise UserError("shards_per_step needs two phases of its classifier: leave mix_phases and as_released off")
        if hp.critic_weight + hp.classifier_weight == 0:
            raise UserError("critic_weight and classifier_weight must not both be 0")

    @classmethod
    def rehearsal(cls, hp: Any) -> Any:
        """Lets the classifier join in the second step, if the run gets there, and learn once a step."""
        # With a start, the second step is the first on records.
        soon = 0 if hp.public_steps else min(1, hp.classifier_start)
        start = soon if hp.classifier_start < hp.steps else hp.classifier_start
        once = {name: min(1, getattr(hp, name)) for name in ("classifier_fake_steps", "classifier_real_steps")}
        return replace(super().rehearsal(hp), classifier_start=start, **once)

    @classmethod
    def counted(cls, hp: Any, public: PublicSpec, noise: float) -> tuple[Release, ...]:
        """Returns GS-WGAN's release, which the authors count: the classifier adds to the same rows."""
        return super().releases(hp, public, noise)

    @classmethod
    def releases(cls, hp: Any, public: PublicSpec, noise: float) -> tuple[Release, ...]:
        """Returns what is counted or, with `as_released`, what the authors' code releases: that costs more."""
        releases = cls.counted(hp, public, noise)
        return _as_released(hp, *releases) if hp.as_released else releases

    def make_networks(self, warm_start: Path | None = None) -> None:
        super().make_networks(warm_start)
        self.classifiers = None if self.hp.fresh_classifier else self.mechanism.networks(self._new_classifier)

    def _new_classifier(self, t: int = 0) -> nn.Module:
        """Returns the new classifier of step t; with a start, what that has taught."""
        return self.learned("classifier", build_classifier(self.hp, self.context, t))

    def learners_of_the_start(self) -> dict[str, NetworkStore]:
        build = lambda: build_classifier(self.hp, self.context, 0)  # noqa: E731
        return super().learners_of_the_start() | {"classifier": NetworkStore(build, 1, self.hp.critic_learning_rate)}

    def learn(self, images: torch.Tensor, labels: torch.Tensor, rng: torch.Generator) -> None:
        """One update of the critic as without a classifier, and one of the classifier."""
        super().learn(images, labels, rng)
        with self.learner("classifier") as classifier:
            self._train(classifier, [_spread(classifier, (images, labels))])

    def next_release(self, ledger: Ledger) -> tuple[str, int]:
        if not self.hp.as_released:
            return super().next_release(ledger)
        # By uses, not by steps: uses that a crash lost shorten the phase in which they were lost, not the later one.
        left = [release.name for release in self.step_releases if ledger.uses(release.name) < release.max_uses]
        name = left[0] if left else self.step_releases[-1].name
        return name, self.hp.released_batch if name == BOTH else self.hp.batch_size

    def public_phase(self, t: int, release: str, rng: torch.Generator) -> FakePhase | None:
        """Returns what the classifier learns from fakes in step t; None before it joins.

        Fakes are public, so a new classifier, which is the same for all shards, goes through this phase once.
        """
        hp = self.hp
        if not self._has_joined(t, release):
            return None
        batches = [self.balanced_fakes(hp.fakes_per_class, rng)] * hp.classifier_fake_steps if hp.g2r else []
        if not hp.fresh_classifier:
            return FakePhase(None, batches)
        classifier = self.mechanism.new(lambda: self._new_classifier(t))
        if hp.mix_phases:
            return FakePhase(classifier, batches)
        self._train(classifier, [_spread(classifier, batch) for batch in batches])
        return FakePhase(classifier, [])

    def shard_gradients(
        self, t: int, critics: Networks, fakes: torch.Tensor, labels: torch.Tensor, step: ShardStep
    ) -> torch.Tensor:
        """Returns the weighted sum of the critic's and the classifier's gradients, from each of the step's shards.

        With `as_released` the two are stacked, [2 * B, C, H, W]: weighted first, so that each is clipped at the whole
        bound, as the authors' hooks on either net do.
        """
        gradients = super().shard_gradients(t, critics, fakes, labels, step)
        if not self._has_joined(t, step.release):
            return gradients
        scores = image_gradients(self._classifier(step).scorer, fakes, labels, self.hp.precision)
        total = self.hp.critic_weight + self.hp.classifier_weight
        parts = self.hp.critic_weight / total * gradients, self.hp.classifier_weight / total * scores
        return torch.cat(parts) if self.hp.as_released else sum(parts)

    def _has_joined(self, t: int, release: str) -> bool:
        return release == BOTH if self.hp.as_released else t >= self.hp.classifier_start

    def _classifier(self, step: ShardStep) -> Networks:
        """Returns the classifier of each of the step's shards after its phases of fakes and of the shard's records."""
        hp, phase = self.hp, step.shared
        classifier = step.copies(phase.classifier) if hp.fresh_classifier else self.classifiers.take(step.shards)
        fakes = [_spread(classifier, batch) for batch in phase.batches]
        reals = [step.read(hp.critic_batch) for _ in range(hp.classifier_real_steps if hp.r2g else 0)]
        mixed = hp.mix_phases
        self._train(classifier, [_joined(*pair) for pair in zip(fakes, reals, strict=True)] if mixed else fakes + reals)
        if not hp.fresh_classifier:
            self.classifiers.put(step.shards, classifier)
        return classifier

    def _train(self, classifier: Networks, batches: Batches) -> None:
        hp = self.hp
        for batch in batches:

            def loss(scorer: Any, batch: Batch = batch) -> torch.Tensor:
                return score_loss(scorer, *batch, hp.gradient_penalty, hp.drift, hp.precision)

            classifier.descend(loss)

    def private_state(self) -> dict[str, Any]:
        return super().private_state() | {"classifiers": self.classifiers.state() if self.classifiers else {}}

    def load(self, public: Any, private: Any) -> None:
        super().load(public, private)
        if private is not None and self.classifiers:
            self.classifiers.load(private["classifiers"])


def _spread(classifier: Networks, batch: Batch) -> Batch:
    return classifier.spread(batch[0]), classifier.spread(batch[1])


def _as_released(hp: Hyper, counted: Release) -> tuple[Release, ...]:
    """Returns what the authors' code releases at the noise of `counted`, the one release that they count.

    Both nets answer for every image from the step's one shard: two rows an image, one use, one draw.
    """
    before = min(hp.classifier_start, hp.steps)
    joined = replace(counted, name=BOTH, rows=2 * hp.released_batch, max_uses=hp.steps - before)
    return tuple(release for release in (counted.used(before), joined) if release.max_uses)


def _joined(first: Batch, second: Batch) -> Batch:
    return torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]])
