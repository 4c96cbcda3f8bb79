"""DPAC on scattering features: a private classifier and a kernel critic refine samples of private Gaussians."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from methods.core.gaussians.mixture import ClassMixtures
from methods.core.gaussians.model import GaussianModel, GaussianSettings
from methods.core.method import Context, Method, StepLog, check_quarters
from methods.core.optimisers import adam, descend, restore, states, update_average
from methods.core.privacy.grant import Grant
from methods.core.privacy.ledger import BudgetExhausted, Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import PublicSpec, Release
from methods.core.rng import named_rng, seeded
from methods.core.scattering.features import Scattering
from methods.core.scattering.judge import Judge, gradient_release
from methods.core.scattering.refiner import Refiner
from methods.core.scattering.witness import MOST_NUMBERS, ask, distance, means_release
from methods.core.speed.remembered import Remembered
from methods.core.speed.transfers import sent
from workflow.common.errors import UserError
from workflow.common.search_space import choice, linear, times
from workflow.common.settings import setting

_CRITIC, _CLASSIFIER = "feature_means", "classifier_gradient"
_BLOCK = 500
# Records that join a step of the classifier on average, at most: beyond, they take time and gain little.
_MOST_JOIN = 10_000
# Images that a class has at least in a step, if there are so many: a half of them needs some.
_EACH = 4
_BETAS = (0.5, 0.99)


class DPACScatter(Method):
    """Three players as in DP-GAN-DPAC, each sound: a start, a critic and a classifier share one budget.

    The start are the Gaussians of DP-Gauss; the generator is a draw from them and a network that refines it, which at
    first changes nothing. The critic is the mean of unit scattering features of each class, released once: where
    generated features differ from it, its gradient says so at every step. The classifier is linear on the same
    features, trained once by DP-SGD; its gradient reaches the generator, and it may choose among samples. Features are
    fixed and can be differentiated, so both gradients run through them to the generator for nothing more.
    """

    SOURCES = (
        "this suite's own, not the paper's algorithm; the three players are those of Chen, Liu, Ma, Nepal, Xu, Private "
        "Image Generation with Dual-Purpose Auxiliary Classifier, CVPR 2023 (methods/dpac.py)",
        "the classifier is that of Tramer, Boneh, Differentially Private Learning Needs Better Features, ICLR 2021: "
        "softmax regression by DP-SGD on group-normalised scattering features (Bruna, Mallat, PAMI 2013)",
        "the critic is a kernel mean as in DP-MERF (Harder, Adamczewski, Park, AISTATS 2021) and in moment matching "
        "networks (Li, Swersky, Zemel, ICML 2015); the squared distance is unbiased (Gretton et al., JMLR 2012)",
        "the start is DP-Gauss (methods/dp_gauss.py), with its sources",
        "departure from the paper: nobody sees a record after the classifier's last step; critic and classifier are "
        "released, not their gradients, so steps of the generator are free",
        "departure from the paper: the classifier is taught on records alone, not on generated images before them",
        "departure: wavelets by small strided filters on unpadded pixels; kymatio's are in the Fourier domain",
    )

    @dataclass(frozen=True)
    class Hyper(GaussianSettings):
        """Hyper-parameters: those of the Gaussians and of the three players.

        A player with nothing to do (the critic at weight 0, the classifier at weight 0 and least probability 0) is left
        out, and the others share the budget.
        """

        first_share: float = setting(
            0.1, "share of the start's budget of its first release; 1: there is no second", low=0.001, high=1
        )
        adjacency: str = setting(
            "add_or_remove", "neighbours, of all releases: add_or_remove, or replace_one, which takes twice the noise",
            choices=("add_or_remove", "replace_one"),
        )  # fmt: skip
        start_share: float = setting(0.4, "the start's share of the budget, relative to the others'", 0.001, 1)
        critic_share: float = setting(0.3, "the critic's share, likewise", low=0.001, high=1)
        classifier_share: float = setting(0.3, "the classifier's share, likewise and nearly", low=0.001, high=1)
        classifier_steps: int = setting(100, "steps of the classifier, each one release", low=1, high=1_000_000)
        classifier_rate: float = setting(
            0.1, "probability of a record to join such a step, less where that is over 10,000 records", low=1e-5, high=1
        )
        classifier_learning_rate: float = setting(2.0, "its learning rate (momentum 0.9)", low=1e-9, high=1e6)
        clip: float = setting(1.0, "L2 bound of a record's gradient; features are long", low=1e-9, high=1e6)
        steps: int = setting(600, "steps of the generator", low=1, high=10_000_000)
        batch_size: int = setting(200, "generated images a step, made equal by class", low=2, high=16_384)
        classes_shown: int = setting(5, "classes of a step, at most", low=1, high=10_000)
        learning_rate: float = setting(0.001, "Adam learning rate at the start", low=1e-9, high=10)
        rate_end: float = setting(0.1, "part of it left at the last step, after a linear fall", low=0, high=1)
        critic_weight: float = setting(100.0, "weight of the squared distance between means", low=0, high=1e6)
        classifier_weight: float = setting(0.2, "weight of the classifier's cross-entropy", low=0, high=1e6)
        ema: float = setting(0.98, "decay of the sampled network's average; 0: the last one", low=0, high=0.9999)
        width: int = setting(32, "channels of the refining network", low=1, high=1024)
        noise_maps: int = setting(2, "maps of noise that it is given", low=1, high=256)
        least_probability: float = setting(
            0.97, "what the classifier gives a sample's label at least, or another is drawn; 0: any", low=0, high=1
        )
        least_strength: float = setting(
            0.0, "a sample takes a share of what the network adds, drawn from this to 1: what is matched on average is"
            " overdone in single images", low=0, high=1,
        )  # fmt: skip
        candidates: int = setting(40, "most draws for a sample; the best is kept", low=1, high=1000)

        def players(self) -> dict[str, float]:
            """Returns the share of each player that has something to do, together 1."""
            shares = {"start": self.start_share}
            if self.critic_weight:
                shares["critic"] = self.critic_share
            if self.classifier_weight or self.least_probability:
                shares["classifier"] = self.classifier_share
            return {name: share / sum(shares.values()) for name, share in shares.items()}

    PAPER: Mapping[tuple[str, float], Mapping[str, Any]] = {}

    SEARCH = {
        "start_share": linear(0.2, 0.7),
        "critic_share": linear(0.1, 0.5),
        "classifier_share": linear(0.1, 0.5),
        "classifier_steps": times(0.5, 2),
        "classifier_learning_rate": times(0.3, 3),
        "steps": times(0.5, 1.5),
        "learning_rate": times(0.3, 3),
        "critic_weight": times(0.2, 5),
        "classifier_weight": times(0.2, 5),
        "least_probability": choice(0.9, 0.95, 0.97, 0.99),
        "least_strength": linear(0, 0.8),
    }

    def __init__(self, hp: Hyper, context: Context) -> None:
        super().__init__(hp, context)
        classes, shape = self.public.num_classes, self.public.image_shape
        start = tuple(release for release in context.releases if release.bounded == "moments")
        self._start = GaussianModel(hp, self.public, start, self.device)
        self._features = Scattering(shape, self.device)
        self._remembered = Remembered(self._features, self._features.size, self.public.num_train, self.device)
        with seeded(context.seed, "dpac_scatter", "refiner"):
            self._refiner = Refiner(shape, classes, hp.width, hp.noise_maps).to(self.device)
        self._sampled = copy.deepcopy(self._refiner)
        self._optimizer = adam(self._refiner.parameters(), hp.learning_rate, _BETAS)
        self._judge = Judge(self._features.size, classes, self.device)
        self._means = torch.zeros(classes, self._features.size + 1, device=self.device)

    @classmethod
    def check(cls, hp: Hyper, public: PublicSpec) -> None:
        super().check(hp, public)
        check_quarters("dpac_scatter", public)
        hp.check(public, "dpac_scatter")
        if not (hp.critic_weight or hp.classifier_weight):
            raise UserError(
                "dpac_scatter.critic_weight or dpac_scatter.classifier_weight must be above 0, or nothing teaches the"
                " generator; got 0 for both: give one, or choose dp_gauss, which is the start alone"
            )
        numbers = public.num_classes * (Scattering(public.image_shape).size + 1)
        if numbers > MOST_NUMBERS:
            raise UserError(
                f"dpac_scatter releases {numbers} numbers of the {public.num_classes} classes of {public.dataset}, at"
                f" most {MOST_NUMBERS} fit into memory: merge classes, make images smaller, or choose dp_merf"
            )

    @classmethod
    def rehearsal(cls, hp: Hyper) -> Hyper:
        return replace(hp, classifier_steps=1, steps=1)

    @classmethod
    def releases(cls, hp: Hyper, public: PublicSpec, noise: float) -> tuple[Release, ...]:
        """Returns the releases of all players; together they cost about what one Gaussian at `noise` does."""
        shares = hp.players()
        found = list(hp.releases(public, noise / shares["start"] ** 0.5))
        if "critic" in shares:
            found.append(means_release(_CRITIC, public, noise / shares["critic"] ** 0.5, hp.adjacency))
        if "classifier" in shares:
            found.append(
                gradient_release(
                    _CLASSIFIER, public, noise, share=shares["classifier"], steps=hp.classifier_steps,
                    rate=min(hp.classifier_rate, _MOST_JOIN / public.num_train), clip=hp.clip, adjacency=hp.adjacency,
                )
            )  # fmt: skip
        return tuple(found)

    @property
    def num_steps(self) -> int:
        return self._lessons + self.hp.steps

    @property
    def _lessons(self) -> int:
        """How many steps the classifier is taught before the generator is."""
        return self.hp.classifier_steps if "classifier" in self.hp.players() else 0

    def prepare(self, data: PrivateData, ledger: Ledger, warm_start: Path | None = None) -> None:
        """Takes what is released once: the start's moments and the critic's means."""
        for number in range(len(self._start.releases)):
            self._start.take(number, data, ledger)
        if "critic" in self.hp.players():
            with ledger.charge(_CRITIC) as grant:
                records = self._records(data, grant, torch.arange(len(data)))
                self._means = ask(grant, records, self.public.num_classes, self._features.size, self.device)

    def step(self, t: int, data: PrivateData, ledger: Ledger) -> StepLog:
        """Teaches the classifier on a Poisson batch, or, once that is done, the generator, which reads no data.

        A lesson whose use a kill has lost is left out: it must not end a run whose other steps cost nothing.
        """
        if t < self._lessons:
            with contextlib.suppress(BudgetExhausted):
                self._teach(data, ledger)
            return {}
        return self._refine(t - self._lessons)

    def sample(self, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        images = [self._chosen(part, rng) for part in labels.split(_BLOCK)]
        return (torch.cat(images) * 255).round().to(torch.uint8)

    def public_state(self) -> dict[str, torch.Tensor]:
        state = {f"start.{name}": value for name, value in self._start.laws.tensors().items()}
        state |= {f"refiner.{name}": value.detach().contiguous() for name, value in self._sampled.state_dict().items()}
        return state | ({"judge": self._judge.weights} if self.hp.least_probability else {})

    def private_state(self) -> dict[str, Any]:
        # Noisy answers, which need no secrecy; but nobody who draws samples needs them.
        trained = {"refiner": self._refiner, "optimizer": self._optimizer}
        return {"means": self._means, "judge": self._judge.state(), **states(trained)}

    def load(self, public: Mapping[str, torch.Tensor], private: Mapping[str, Any] | None) -> None:
        self._start.laws = ClassMixtures.of(_under("start.", public))
        self._sampled.load_state_dict(_under("refiner.", public))
        if self.hp.least_probability:
            self._judge.weights = public["judge"].to(self.device)
        if private is not None:
            self._means = private["means"].to(self.device)
            self._judge.load(private["judge"])
            restore({"refiner": self._refiner, "optimizer": self._optimizer}, private)

    def _records(
        self, data: PrivateData, grant: Grant, index: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yields features [B, size] and labels int64 [B] of the records `index`, a block at a time."""
        for part in index.split(_BLOCK):
            images, labels = data.read(grant, part)
            yield self._remembered(images), sent(labels, self.device)

    def _teach(self, data: PrivateData, ledger: Ledger) -> None:
        hp = self.hp
        with ledger.charge(_CLASSIFIER) as grant:
            batch = self._records(data, grant, grant.poisson_batch(len(data)))
            expected = grant.release.rate * self.public.num_train
            self._judge.step(grant, batch, hp.classifier_learning_rate, expected)

    def _refine(self, t: int) -> StepLog:
        hp = self.hp
        self._optimizer.param_groups[0]["lr"] = hp.learning_rate * (1 - (1 - hp.rate_end) * t / hp.steps)
        rng = named_rng(self.context.seed, "dpac_scatter", "step", t)
        shown = max(1, min(self.public.num_classes, hp.classes_shown, hp.batch_size // _EACH))
        classes = torch.randperm(self.public.num_classes, generator=rng)[:shown].sort().values
        labels = classes.repeat_interleave(hp.batch_size // shown)
        features = self._features(self._refined(self._refiner, labels, rng))
        log, loss = {}, 0.0
        if hp.critic_weight:
            apart = distance(self._means, self.public.num_train, features, sent(classes, self.device))
            log["distance"], loss = apart.detach(), loss + hp.critic_weight * apart
        if hp.classifier_weight:
            entropy = functional.cross_entropy(self._judge.scores(features), sent(labels, self.device))
            log["cross_entropy"], loss = entropy.detach(), loss + hp.classifier_weight * entropy
        descend(loss, self._refiner, self._optimizer)
        update_average(self._sampled, self._refiner, t + 1, hp.ema)
        return log

    def _refined(
        self, refiner: nn.Module, labels: torch.Tensor, rng: torch.Generator, least: float = 1.0
    ) -> torch.Tensor:
        """Returns images [N, C, H, W] in [0, 1] of labels int64 [N], drawn from `rng` alone, on the device.

        Each takes a share of the refinement between `least` and 1.
        """
        drawn, noise = self._start.images(labels, rng), refiner.noise(len(labels), rng)
        drawn, labels, noise = (sent(value, self.device) for value in (drawn, labels, noise))
        images = refiner(drawn, labels, noise)
        if least == 1:
            return images
        share = least + (1 - least) * torch.rand(len(labels), 1, 1, 1, generator=rng)
        return torch.lerp(drawn, images, sent(share, self.device))

    @torch.no_grad()
    def _chosen(self, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """Returns images on the CPU, each the first that the classifier finds likely enough, or the likeliest."""
        least = self.hp.least_strength
        images = self._refined(self._sampled, labels, rng, least)
        if not self.hp.least_probability:
            return images.cpu()
        best = self._probability(images, labels)
        for _ in range(self.hp.candidates - 1):
            wanting = (best < self.hp.least_probability).nonzero()[:, 0]
            if not len(wanting):
                break
            others = self._refined(self._sampled, labels[wanting.cpu()], rng, least)
            found = self._probability(others, labels[wanting.cpu()])
            better = found > best[wanting]
            images[wanting[better]], best[wanting[better]] = others[better], found[better]
        return images.cpu()

    def _probability(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns the probability [N] that the classifier gives each image's label."""
        chances = self._judge.scores(self._features(images)).softmax(1)
        return chances.gather(1, labels.to(self.device)[:, None])[:, 0]


def _under(prefix: str, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns the entries whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
