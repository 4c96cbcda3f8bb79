"""DP-NTK: match one noisy mean of neural tangent features (Yang, Adamczewski, Sutherland, Li, Park, JAIR 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from methods.core.matching import MeanMatching
from methods.core.method import Context, StepLog, check_quarters
from methods.core.optimisers import adam, descend
from methods.core.privacy.grant import Grant
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import PublicSpec, Release
from methods.core.rng import named_rng, seeded
from methods.core.speed.layout import laid_out, maps_laid_out
from methods.core.speed.transfers import sent
from methods.core.speed.upsampling import doubled_bilinearly
from workflow.common.search_space import times
from workflow.common.settings import setting

_RELEASE = "embedding"
# Records embedded at once: enough of a class for a matrix product, few enough for memory at 64x64 in colour.
_RECORDS = 2000
# Most numbers of all classes' embeddings: adding the noise takes some 40 bytes for each.
_MOST_NUMBERS = 1 << 25
# Share of a feature's squared norm that is the output bias's gradient, the same for all images: it counts the classes.
_COUNT_SHARE = 0.05
# A hair below the bound, so that rounding of a norm cannot end above it.
_NORM = 1 - 1e-5
# The constant input next to the pixels is this share of an all-white image's norm.
_BIAS = 0.3
_LEAST = 1e-12
# PyTorch's default in a layer norm.
_EPSILON = 1e-5
# Images that a class has at least in a step, if there are so many: a pair's repulsion needs two.
_EACH = 4


class DPNTK(MeanMatching):
    """Releases the mean of neural tangent features (outer) one-hot label once; the generator never sees data.

    The feature of an image is the gradient of a public random network's output with respect to the network's
    parameters, scaled to L2 norm 1, so the sum over the data moves by at most 2 when one record is replaced. The
    network has two layers, so the gradient with respect to the first is an outer product of what flows back and what
    flowed in: the sum over the records of a class is one matrix product, and the inner product of two features is a
    product of two small ones.
    """

    SOURCES = (
        "Yang, Adamczewski, Sutherland, Li, Park, Differentially Private Neural Tangent Kernels for Privacy-Preserving "
        "Data Generation, JAIR 81, 2024 (arXiv 2303.01687); models/DP_NTK, models/dp_ntk.py and configs/DP-NTK of "
        "DPImageBench, where network, features and loss were read",
        "departure: gradients in closed form, so that all records are embedded; DPImageBench takes one by autograd for "
        "each record of a single batch of 5000, whose noise is that of 5000 records",
        "departure: noise is the exact Gaussian's at sensitivity 2 / records, for an exchanged record; DPImageBench "
        "takes an RDP count and sensitivity 1 / records (it halves the multiplier, then multiplies by 2 / records)",
        "departure: one output stands for the sum of logits; its copies for each class would scale both layers alike",
        "departure: standard normal weights in place of PyTorch's uniform ones, and a larger constant input, without "
        "which images that differ in brightness alone have nearly one feature",
        "departure: a twentieth of a feature's squared norm is the output bias's gradient, which counts the classes; "
        "each class then weighs as much as it has records, and its mean is compared with that of images of this class",
        "departure: a step shows equally many images of each class, and an image is not compared with itself, which "
        "takes the small batch's bias out; DPImageBench draws 5000 labels at random",
        "departure: a small convolutional generator with bilinear doublings instead of a BigGAN's, and a learning rate "
        "that falls geometrically",
        "departure: fewer hidden units where classes times image entries are many, so that the embedding has at most "
        "2^25 numbers; of the networks of DPImageBench only the one with two layers is there",
    )

    @dataclass(frozen=True)
    class Hyper:
        """Hyper-parameters."""

        width: int = setting(
            800, "hidden units of the random network; fewer where the embedding would pass 2^25 numbers", low=1,
            high=16_384,
        )  # fmt: skip
        steps: int = setting(4000, "generator steps", low=1, high=10_000_000)
        batch_size: int = setting(100, "generated images per step, made equal by class", low=2, high=16_384)
        learning_rate: float = setting(0.01, "Adam learning rate at the start", low=1e-9, high=10)
        learning_rate_end: float = setting(0.0002, "the same at the end; it falls geometrically", low=1e-9, high=10)
        latent: int = setting(10, "size of the Gaussian latent", low=1, high=4096)
        hidden: int = setting(500, "units of the generator's first layer", low=1, high=8192)
        channels: int = setting(32, "channels before the generator's first convolution", low=1, high=1024)

    SEARCH = {
        "width": times(0.4, 1.5),
        "steps": times(0.5, 1.5),
        "batch_size": times(0.5, 2),
        "learning_rate": times(0.3, 3),
        "learning_rate_end": times(0.2, 5),
        "latent": times(0.5, 4),
    }

    def __init__(self, hp: Hyper, context: Context) -> None:
        super().__init__(hp, context)
        classes, entries = self.public.num_classes, int(torch.Size(self.public.image_shape).numel())
        with seeded(context.seed, "dp_ntk", "generator"):
            self._generator = _Generator(hp, self.public.image_shape, classes).to(self.device)
        width = max(1, min(hp.width, _MOST_NUMBERS // (classes * (entries + 2))))
        self._network = _Network(entries, width, named_rng(context.seed, "dp_ntk", "network"), self.device)
        self._optimizer = adam(self._generator.parameters(), hp.learning_rate, (0.9, 0.999))

    @classmethod
    def check(cls, hp: Hyper, public: PublicSpec) -> None:
        super().check(hp, public)
        check_quarters("dp_ntk", public)

    @classmethod
    def releases(cls, hp: Hyper, public: PublicSpec, noise: float) -> tuple[Release, ...]:
        """Returns one use of the summed features of all records; replace-one, num_train public."""
        release = Release(
            name=_RELEASE, kind="gaussian", clip=1.0, noise=noise, bounded="sum", rows=public.num_train, rate=1.0,
            sampling="all", max_uses=1,
        )  # fmt: skip
        return (release,)

    def prepare(self, data: PrivateData, ledger: Ledger, warm_start: Path | None = None) -> None:
        """Takes the one release: the noisy mean feature of each class, [num_classes, numbers of a feature]."""
        with ledger.charge(_RELEASE) as grant:
            # Features have norm 1 as they are made, so that a class's matrix product needs no row of its own.
            total = grant.noise(self._embedding(data, grant))
        self._target = (total / self.public.num_train).float()

    def step(self, t: int, data: PrivateData, ledger: Ledger) -> StepLog:
        """Moves generated images of some classes towards the released embedding; reads no data."""
        hp = self.hp
        for group in self._optimizer.param_groups:
            group["lr"] = hp.learning_rate * (hp.learning_rate_end / hp.learning_rate) ** (t / hp.steps)
        rng = named_rng(self.context.seed, "dp_ntk", "step", t)
        shown = max(1, min(self.public.num_classes, hp.batch_size // _EACH))
        classes = torch.randperm(self.public.num_classes, generator=rng)[:shown].sort().values
        labels = classes.repeat_interleave(hp.batch_size // shown)
        self._generator.train()
        images = self._generated(labels, rng)
        loss = self._distance(images, sent(classes, self.device))
        descend(loss, self._generator, self._optimizer)
        return {"loss": loss.detach()}

    def _embedding(self, data: PrivateData, grant: Grant) -> torch.Tensor:
        """Returns the sum of features by class, float64 [num_classes, numbers of a feature], over all records."""
        # In 32 bits the sum's rounding grows with the records, and a record moves it by as much more than its feature.
        total = torch.zeros(self.public.num_classes, self._network.numbers, dtype=torch.float64, device=self.device)
        for index in torch.arange(len(data)).split(_RECORDS):
            images, labels = data.read(grant, index)
            features = self._network.features(images.to(self.device).flatten(1).float() / 255)
            for label in labels.unique().tolist():
                features.of((labels == label).to(self.device)).add_to(total[label])
        return total

    def _distance(self, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Returns the sum over `classes` [K] of mass * |their released mean - that of images [K * M, C, H, W]|^2.

        Less what does not depend on the images, and without the bias of M images that also meet themselves. The mass
        of a class, its share of the records, is read off the embedding too.
        """
        features = self._network.features(images.flatten(1)).by_class(len(classes))
        target = self._target if len(classes) == self.public.num_classes else self._target[classes]
        each = features.hidden.shape[1]
        mass = (target[:, -1] / features.count).clamp_min(1 / self.public.num_train)
        among = features.products().sum((1, 2)) - each
        return (mass * among / max(1, each * (each - 1)) - 2 * features.along(target).mean(1)).sum()


@dataclass(frozen=True)
class _Features:
    """Features of unit norm, as factors: the outer product of `inputs` [..., B, D] and `back` [..., B, W], then
    `hidden` [..., B, W], then the number `count`.
    """

    inputs: torch.Tensor
    back: torch.Tensor
    hidden: torch.Tensor
    count: float

    def of(self, chosen: torch.Tensor) -> _Features:
        """Returns the features of those images that `chosen`, bool [B], names."""
        return _Features(self.inputs[chosen], self.back[chosen], self.hidden[chosen], self.count)

    def by_class(self, classes: int) -> _Features:
        """Returns the same with B split into classes of equal size, [classes, B / classes, ...]."""
        return _Features(*(part.unflatten(0, (classes, -1)) for part in (self.inputs, self.back, self.hidden)),
                         self.count)  # fmt: skip

    def add_to(self, total: torch.Tensor) -> None:
        """Adds the sum of the features, of one class, to total [numbers of a feature], in the precision of that."""
        layers = total[:-1].view(-1, self.back.shape[1])
        layers[:-1].addmm_(self.inputs.T.to(total), self.back.to(total))
        layers[-1] += self.hidden.sum(0, dtype=total.dtype)
        total[-1] += self.count * len(self.hidden)

    def along(self, target: torch.Tensor) -> torch.Tensor:
        """Returns the inner products [K, M] of the features [K, M, ...] with their class's target [K, numbers]."""
        layers = target[:, :-1].unflatten(1, (-1, self.back.shape[2]))
        first = ((self.inputs @ layers[:, :-1]) * self.back).sum(2)
        return first + (self.hidden @ layers[:, -1, :, None])[..., 0] + self.count * target[:, -1:]

    def products(self) -> torch.Tensor:
        """Returns the inner products [K, M, M] of the features of each class."""
        first = (self.inputs @ self.inputs.mT) * (self.back @ self.back.mT)
        return first + self.hidden @ self.hidden.mT + self.count**2


class _Network:
    """The public random network, output = second . normed(relu(first^T (pixels, bias))) + output bias; its gradients.

    `normed` takes the mean off the hidden units and divides by their deviation, as the authors' layer norm does. At
    standard normal weights the two layers' gradients have squared norms of about 3 to 2, theirs at 28x28.
    """

    def __init__(self, entries: int, width: int, rng: torch.Generator, device: torch.device) -> None:
        self._first = torch.randn(entries + 1, width, generator=rng).to(device)
        self._second = torch.randn(width, generator=rng).to(device)
        self._bias = _BIAS * entries**0.5

    @property
    def numbers(self) -> int:
        """How many numbers a feature has: a first layer's, a second's and the output bias's."""
        return self._first.numel() + len(self._second) + 1

    def features(self, flat: torch.Tensor) -> _Features:
        """Returns the features of images in [0, 1], [B, entries]."""
        inputs = torch.cat([flat, torch.full_like(flat[:, :1], self._bias)], dim=1)
        before = inputs @ self._first
        active = before.relu()
        scale = (active.var(1, correction=0, keepdim=True) + _EPSILON).rsqrt()
        hidden = (active - active.mean(1, keepdim=True)) * scale
        # What flows back through the layer norm: without its mean, and without its share along the hidden units.
        along = (hidden * self._second).mean(1, keepdim=True)
        back = (before > 0) * (self._second - self._second.mean() - hidden * along) * scale
        square = back.square().sum(1) * inputs.square().sum(1) + hidden.square().sum(1)
        length = (_NORM * (1 - _COUNT_SHARE) ** 0.5) * square.clamp_min(_LEAST).rsqrt()[:, None]
        return _Features(inputs, back * length, hidden * length, _NORM * _COUNT_SHARE**0.5)


class _Generator(nn.Module):
    """Two linear layers, then bilinear doublings, each followed by a convolution; output in [0, 1]. Batch norm between.

    Sides that are multiples of 8 start at an eighth, others at a quarter.
    """

    def __init__(self, hp: DPNTK.Hyper, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        doublings = 3 if shape[1] % 8 == 0 and shape[2] % 8 == 0 else 2
        self._start = (hp.channels, shape[1] >> doublings, shape[2] >> doublings)
        # One-hot labels then vary as much in all as the latent does, and their first layer heeds them from the start.
        self._label_scale = hp.latent**0.5
        size = int(torch.Size(self._start).numel())
        self.stem = nn.Sequential(
            nn.Linear(hp.latent + classes, hp.hidden), nn.BatchNorm1d(hp.hidden), nn.ReLU(),
            nn.Linear(hp.hidden, size), nn.BatchNorm1d(size), nn.ReLU(),
        )  # fmt: skip
        widths = [max(1, hp.channels >> i) for i in range(doublings)] + [shape[0]]
        self.convolutions = nn.ModuleList(nn.Conv2d(before, after, 5, padding=2) for before, after in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:-1])
        laid_out(self.convolutions)

    def forward(self, latent: torch.Tensor, one_hot: torch.Tensor) -> torch.Tensor:
        hidden = self.stem(torch.cat([latent, self._label_scale * one_hot], dim=1)).view(-1, *self._start)
        for convolution, norm in zip(self.convolutions[:-1], self.norms, strict=True):
            # Laid out before they are doubled, when they are a quarter as large.
            hidden = functional.interpolate(maps_laid_out(hidden), scale_factor=2, mode="bilinear", align_corners=True)
            hidden = norm(convolution(hidden)).relu()
        return doubled_bilinearly(hidden, self.convolutions[-1]).sigmoid()
