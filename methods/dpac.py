"""DP-GAN-DPAC: private image generation with a dual-purpose auxiliary classifier (Chen et al., CVPR 2023)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from methods.core.method import Context
from methods.core.nets import Classifier
from methods.core.optimisers import adam
from methods.core.privacy import Budget, Ledger, PublicSpec, Release
from methods.core.private_data import PrivateData
from methods.core.sharded_gan import ShardedHyper, Visit, _ShardedGAN, described
from methods.core.shards import ShardNetworks
from methods.core.stacks import Members, Stack
from methods.core.streams import seeded
from methods.core.summed_shards import Visits, teach
from methods.core.wasserstein import image_gradients, score_update
from workflow.common.errors import UserError

# The release of a step `as_released` whose classifier has joined.
BOTH = "image_gradients_of_both_nets"
# Images [N, C, H, W] with labels int64 [N], of one update each.
Batches = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Hyper(ShardedHyper):
    """GS-WGAN's hyper-parameters and the auxiliary classifier's; the defaults are the paper's for MNIST."""

    g2r: bool = described(True, "the classifier's fake phase (gen2real); false is the ablation w/o g2r")
    r2g: bool = described(True, "the classifier's real phase (real2gen); false is the ablation w/o r2g")
    mix_phases: bool = described(False, "one mixed phase of fakes and reals instead of fakes, then reals: a w/o seq")
    fresh_classifier: bool = described(True, "a new classifier each step; false keeps one per shard: w/o init")
    classifier_start: int = described(6000, "generator steps before the classifier joins; 0 is another w/o seq")
    classifier_fake_steps: int = described(10, "classifier updates on fakes each generator step")
    classifier_real_steps: int = described(10, "classifier updates on records each generator step")
    fakes_per_class: int = described(100, "fakes per class in the classifier's fake phase")
    critic_weight: float = described(0.8, "weight of the critic's image gradient once the classifier has joined")
    classifier_weight: float = described(0.2, "weight of the classifier's image gradient; the two sum to 1")
    as_released: bool = described(
        False, "release what the authors' code does, at the noise of what they count: costs more than the budget"
    )
    released_batch: int = described(1000, "with as_released, generated images per step once the classifier has joined")


class DPAC(_ShardedGAN):
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
        "Paper: Chen, Liu, Ma, Nepal, Xu, CVPR 2023; repository files source/main.py, main_celeba_gender.py, models.py,"
        " config.py.",
        "Departure, unless as_released: one sanitised gradient per image; the repository weights the critic's and the"
        " classifier's, clips and noises them apart, and counts one.",
        "Departure, unless as_released: the generator batch stays at batch_size; the repository's grows to 1000 once"
        " the classifier joins and is counted as 32.",
        "Departures, as_released too: steps, not steps + 1; every batch before the classifier joins is whole, where"
        " the repository's is as long as the last batch of its shard, 32 or 28 on MNIST.",
        "Departure: the classifier's fake phase clears its gradients between updates.",
        "Ablations are not in the repository: g2r, r2g drop a phase; seq is classifier_start 0 or mix_phases; init"
        " keeps one classifier per shard, since one for all shards would let each record into every step.",
        "Option shards_per_step (see methods/gs_wgan.py): the classifier's fake phase is shared by the drawn shards, as"
        " fakes are public; each goes on with a copy on its own records. Both gradients are in the shard's one row.",
        "Departures shared with GS-WGAN: see methods/gs_wgan.py.",
    )

    @classmethod
    def plan(cls, hp: Any, public: PublicSpec, budget: Budget) -> tuple[Release, ...]:
        """Returns GS-WGAN's plan: the classifier adds to the same rows and costs nothing more.

        With `as_released` the noise is that plan's, which the authors' accounting describes, and the releases are those
        of the authors' code: the plan costs more than the budget.
        """
        if hp.mix_phases and not (hp.g2r and hp.r2g and hp.classifier_fake_steps == hp.classifier_real_steps):
            raise UserError("mix_phases needs g2r, r2g and as many classifier_fake_steps as classifier_real_steps")
        if hp.released_batch < 1:
            raise UserError(f"released_batch must be at least 1, got {hp.released_batch}")
        if hp.shards_per_step and (hp.as_released or hp.mix_phases):
            raise UserError("shards_per_step needs two phases of its classifier: leave mix_phases and as_released off")
        releases = super().plan(hp, public, budget)
        return _as_released(hp, *releases) if hp.as_released else releases

    def prepare(self, data: PrivateData, ledger: Ledger, warm_start: Path | None = None) -> None:
        super().prepare(data, ledger, warm_start)
        build = self._build_classifier(0)
        if self.hp.shards_per_step and not self.hp.fresh_classifier:
            self.classifiers = Stack(build, self.hp.num_shards)
        else:
            self.classifiers = ShardNetworks(build, self.hp.critic_learning_rate)

    def next_release(self, ledger: Ledger) -> tuple[str, int]:
        if not self.hp.as_released:
            return super().next_release(ledger)
        # By uses, not by steps: uses that a crash lost shorten the phase in which they were lost, not the later one.
        left = [release.name for release in self.context.releases if ledger.uses(release.name) < release.max_uses]
        name = left[0] if left else self.context.releases[-1].name
        return name, self.hp.released_batch if name == BOTH else self.hp.batch_size

    def private_gradients(
        self, t: int, critic: nn.Module, fakes: torch.Tensor, labels: torch.Tensor, visit: Visit
    ) -> torch.Tensor:
        """Returns the weighted sum [B, C, H, W] of the critic's and the classifier's gradients.

        With `as_released` the two are stacked, [2 * B, C, H, W]: weighted first, so that each is clipped at the whole
        bound, as the authors' hooks on either net do.
        """
        hp = self.hp
        gradients = image_gradients(critic, fakes, labels, hp.precision)
        joined = visit.grant.release.name == BOTH if hp.as_released else t >= hp.classifier_start
        if not joined:
            return gradients
        classifier, optimizer = self._classifier(t, visit.shard)
        self._train_classifier(classifier, optimizer, visit)
        if not hp.fresh_classifier:
            self.classifiers.keep(visit.shard, optimizer)
        scores = image_gradients(classifier, fakes, labels, hp.precision)
        parts = self._weighted(gradients, scores)
        return torch.cat(parts) if hp.as_released else sum(parts)

    def shared_phase(self, t: int, stream: torch.Generator) -> Members | Batches:
        """Returns a new classifier after its fake phase; of kept classifiers, which each go on, the phase's batches.

        Fakes are public, so the first phase of new classifiers is the same for all shards.
        """
        hp = self.hp
        joined = t >= hp.classifier_start
        batches = [self._fake_batch(stream)] * hp.classifier_fake_steps if joined and hp.g2r else []
        if not hp.fresh_classifier:
            return batches
        return self._taught(Members.copies(self._build_classifier(t)(), 1), batches)

    def summed_gradients(self, t: int, visits: Visits, fakes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns, for each of some drawn shards, the weighted sum of its critic's and its classifier's gradients."""
        hp = self.hp
        gradients = super().summed_gradients(t, visits, fakes, labels)
        if t < hp.classifier_start:
            return gradients
        if hp.fresh_classifier:
            classifiers = visits.shared.repeated(len(visits.shards))
        else:
            classifiers = self._taught(self.classifiers.take(visits.shards), visits.shared)
        for _ in range(hp.classifier_real_steps if hp.r2g else 0):
            teach(classifiers, *visits.read(hp.critic_batch), hp)
        if not hp.fresh_classifier:
            self.classifiers.put(visits.shards, classifiers)
        scores = image_gradients(classifiers, fakes, labels, hp.precision)
        return sum(self._weighted(gradients, scores))

    def _weighted(self, of_critic: torch.Tensor, of_classifier: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hp = self.hp
        total = hp.critic_weight + hp.classifier_weight
        return hp.critic_weight / total * of_critic, hp.classifier_weight / total * of_classifier

    def _taught(self, classifiers: Members, batches: Batches) -> Members:
        count = len(classifiers.updates)
        for images, labels in batches:
            teach(classifiers, images.expand(count, *images.shape), labels.expand(count, *labels.shape), self.hp)
        return classifiers

    def private_state(self) -> dict[str, Any]:
        return super().private_state() | {"classifiers": self.classifiers.state()}

    def load(self, public: Any, private: Any) -> None:
        super().load(public, private)
        if private is not None:
            self.classifiers.load(private["classifiers"])

    def _build_classifier(self, t: int) -> Any:
        context: Context = self.context

        def build() -> nn.Module:
            with seeded(context.seed, "classifier", t):
                shape, classes = context.public.image_shape, context.public.num_classes
                return Classifier(shape, classes, self.hp.critic_width, self.hp.spectral_norm).to(context.device)

        return build

    def _classifier(self, t: int, shard: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        if not self.hp.fresh_classifier:
            return self.classifiers.lend(shard)
        classifier = self._build_classifier(t)()
        return classifier, adam(classifier.parameters(), self.hp.critic_learning_rate)

    def _train_classifier(self, classifier: nn.Module, optimizer: torch.optim.Optimizer, visit: Visit) -> None:
        hp = self.hp
        fakes = [self._fake_batch(visit.stream)] * hp.classifier_fake_steps if hp.g2r else []
        reals = [self.read_batch(visit) for _ in range(hp.classifier_real_steps if hp.r2g else 0)]
        batches = [*fakes, *reals]
        if hp.mix_phases:
            batches = [_joined(fake, real) for fake, real in zip(fakes, reals, strict=True)]
        for images, labels in batches:
            score_update(classifier, optimizer, images, labels, hp.gradient_penalty, hp.drift, hp.precision)

    def _fake_batch(self, stream: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return self.balanced_fakes(self.hp.fakes_per_class, stream)


def _as_released(hp: Hyper, counted: Release) -> tuple[Release, ...]:
    """Returns what the authors' code releases at the noise of `counted`, the one release that they count.

    Both nets answer for every image from the step's one shard: two rows an image, one use, one draw.
    """
    before = min(hp.classifier_start, hp.steps)
    joined = replace(counted, name=BOTH, rows=2 * hp.released_batch, max_uses=hp.steps - before)
    return tuple(release for release in (counted.used(before), joined) if release.max_uses)


def _joined(
    first: tuple[torch.Tensor, torch.Tensor], second: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]])
