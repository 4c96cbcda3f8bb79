"""Networks of GS-WGAN and DP-GAN-DPAC: two generators, the conditional critic, the auxiliary classifier.

Sources: GS-WGAN source/models.py and ops.py, DP-GAN-DPAC source/models*.py, rewritten; `width` 64 is the papers' size.
Images are floats in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from methods.core.method import Context
from methods.core.rng import seeded
from methods.core.speed.compiled import compiled
from methods.core.speed.layout import laid_out
from methods.core.speed.pixel_norm import pixel_norm
from methods.core.speed.transfers import moved
from methods.core.speed.upsampling import doubled, transposed
from methods.core.speed.written_gradients import KERNEL, PADDING, STRIDE, Parts

LATENT_BITS = 10
_START = 4  # height and width of a generator's first feature map, and of a critic's last
SIZES = (28, 32, 64)
Get = Callable[[str], torch.Tensor]


def draw_latents(count: int, rng: torch.Generator) -> torch.Tensor:
    """Returns latents [N, 10] of independent fair bits, as floats on the CPU (both papers' default).

    2^10 codes exist, so at most 1,024 distinct images per class: `distinct_fraction` in the scores shows it.
    """
    return torch.randint(0, 2, (count, LATENT_BITS), generator=rng).float()


def _norm(layer: nn.Module, wanted: bool) -> nn.Module:
    return spectral_norm(layer) if wanted else layer


class _Conditional(nn.Module):
    """Joins latents [N, 10] and one-hot labels, and maps them to a [N, channels, 4, 4] feature map."""

    def __init__(self, num_classes: int, channels: int, spectral: bool) -> None:
        super().__init__()
        self.num_classes, self.channels = num_classes, channels
        self.linear = _norm(nn.Linear(LATENT_BITS + num_classes, channels * _START**2), spectral)

    def forward(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([latents, F.one_hot(labels, self.num_classes).to(latents.dtype)], dim=1)
        return pixel_norm(F.relu(self.linear(joined).view(-1, self.channels, _START, _START)))


class _UpBlock(nn.Module):
    def __init__(self, channels: int, spectral: bool) -> None:
        super().__init__()
        self.first = _norm(nn.Conv2d(channels, channels, 3, padding=1), spectral)
        self.second = _norm(nn.Conv2d(channels, channels, 3, padding=1), spectral)
        self.skip = _norm(nn.Conv2d(channels, channels, 1), spectral)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        main = doubled(self.first, pixel_norm(x))
        main = self.second(F.relu(pixel_norm(main)))
        # A 1x1 convolution commutes with nearest upsampling, and costs a quarter before it.
        return main + F.interpolate(self.skip(x), scale_factor=2)


class ResNetGenerator(nn.Module):
    """Residual up-blocks of 4 * width channels: three to 28x28 and 32x32, four to 64x64.

    3,826,177 parameters for 1x28x28 with 10 classes, 3,798,019 for 3x32x32 with 2, at width 64.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, width: int, spectral: bool = True) -> None:
        super().__init__()
        colours, size = image_shape[0], image_shape[1]
        self.entry = _Conditional(num_classes, 4 * width, spectral)
        self.blocks = nn.Sequential(*(_UpBlock(4 * width, spectral) for _ in range(_halvings(size))))
        self.exit = _norm(nn.Conv2d(4 * width, colours, 3, padding=0 if size == 28 else 1), spectral)
        self.size = size
        # Values of an image's largest feature maps.
        self.largest = 4 * width * (_START << _halvings(size)) ** 2

    def forward(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns images [N, C, H, W] in [0, 1] for latents [N, 10] and labels int64 [N]."""
        x = self.blocks(self.entry(latents, labels))
        return torch.sigmoid(self.exit(x))[:, :, : self.size, : self.size]


class DCGANGenerator(nn.Module):
    """Transposed convolutions 4 -> 8 -> 12 -> 32, cropped to 4 -> 7 -> 11 -> 28 for 28x28; no spectral norm.

    The papers define 28x28 alone; for 32x32 the crop is left out and the last kernel is 10 wide instead of 8, and
    64x64 has a layer more: 4 -> 8 -> 12 -> 30 -> 64.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, width: int) -> None:
        super().__init__()
        colours, size = image_shape[0], image_shape[1]
        self.crop = 7 if size == 28 else 8
        self.entry = _Conditional(num_classes, 4 * width, spectral=False)
        self.first = nn.ConvTranspose2d(4 * width, 2 * width, 5)
        self.second = nn.ConvTranspose2d(2 * width, width, 5)
        last, below = (width, self.crop + 4) if size < 64 else (max(1, width // 2), 30)
        self.third = None if size < 64 else nn.ConvTranspose2d(width, last, 8, stride=2)
        self.exit = nn.ConvTranspose2d(last, colours, size - 2 * (below - 1), stride=2)
        # Values of an image's largest feature maps.
        self.largest = max(2 * width * 8**2, width * 12**2, last * below**2)

    def forward(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns images [N, C, H, W] in [0, 1] for latents [N, 10] and labels int64 [N]."""
        x = pixel_norm(F.relu(transposed(self.first, self.entry(latents, labels))))
        # Negative padding, not a slice, whose backward pass would change the layout.
        x = F.pad(x, (0, self.crop - x.shape[3], 0, self.crop - x.shape[2]))
        x = pixel_norm(F.relu(transposed(self.second, x)))
        if self.third is not None:
            x = pixel_norm(F.relu(transposed(self.third, x)))
        return torch.sigmoid(transposed(self.exit, x))


def _halvings(size: int) -> int:
    """Returns how often an image's side is halved down to 4: three times from 28 or 32, four times from 64."""
    return SIZES[1:].index(max(size, 32)) + 3


class _Trunk(nn.Sequential):
    """5x5 convolutions of stride 2, as many as halve the image to 4x4, to features [N, 4 * width * 16]."""

    def __init__(self, image_shape: tuple[int, int, int], width: int, spectral: bool) -> None:
        channels = [image_shape[0], width, 2 * width] + [4 * width] * (_halvings(image_shape[1]) - 2)
        layers: list[nn.Module] = []
        for below, above in pairwise(channels):
            layers += [_norm(nn.Conv2d(below, above, KERNEL, STRIDE, PADDING), spectral), nn.ReLU()]
        super().__init__(*layers, nn.Flatten())


def _parts(trunk: _Trunk, get: Get, table: torch.Tensor, offsets: torch.Tensor) -> Parts:
    # A convolution and a ReLU in turn, then the flattening.
    places = range(0, len(trunk) - 1, 2)
    kernels, biases = (tuple(get(f"trunk.{place}.{kind}") for place in places) for kind in ("weight", "bias"))
    return Parts(kernels, biases, table, offsets)


class Critic(nn.Module):
    """Projection critic (Miyato and Koyama 2018): 1,071,105 parameters for 1x28x28 with 10 classes at width 64."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, width: int, spectral: bool = True) -> None:
        super().__init__()
        features = 4 * width * _START**2
        self.trunk = _Trunk(image_shape, width, spectral)
        self.linear = _norm(nn.Linear(features, 1), spectral)
        self.embedding = _norm(nn.Embedding(num_classes, features), spectral)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns scores [N]; higher means more real, given labels int64 [N]."""
        features = self.trunk(images)
        return self.linear(features)[:, 0] + (self.embedding(labels) * features).sum(dim=1)

    def parts(self, get: Get) -> Parts:
        """Returns what M critics are made of; `get` gives a parameter [M, ...] by its name."""
        embedding = get("embedding.weight")
        table, offsets = get("linear.weight") + embedding, get("linear.bias").expand(embedding.shape[:2])
        return _parts(self.trunk, get, table, offsets)


class Classifier(nn.Module):
    """The auxiliary classifier of DP-GAN-DPAC: 1,067,018 parameters for 1x28x28 with 10 classes at width 64."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, width: int, spectral: bool = True) -> None:
        super().__init__()
        self.trunk = _Trunk(image_shape, width, spectral)
        self.linear = _norm(nn.Linear(4 * width * _START**2, num_classes), spectral)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns scores [N]: the label's logit minus the mean of the other logits (DP-GAN-DPAC source/main.py)."""
        logits = self.linear(self.trunk(images))
        own = logits.gather(1, labels[:, None])[:, 0]
        return own - (logits.sum(dim=1) - own) / (logits.shape[1] - 1)

    def parts(self, get: Get) -> Parts:
        """Returns what M classifiers are made of; `get` gives a parameter [M, ...] by its name."""
        return _parts(self.trunk, get, *(_against_others(get(f"linear.{kind}")) for kind in ("weight", "bias")))


def _against_others(of_classes: torch.Tensor) -> torch.Tensor:
    """Returns each class's entry along dimension 1 minus the mean of the others'."""
    classes = of_classes.shape[1]
    return (classes * of_classes - of_classes.sum(dim=1, keepdim=True)) / (classes - 1)


GENERATORS = ("resnet", "dcgan")


def build_generator(hp: Any, context: Context, width: int, *names: object, plain: bool = False) -> nn.Module:
    """Returns a generator on the context's device, its weights drawn from the named rng.

    `plain`: without norm, and never compiled: a stack calls it with weights of its own.
    """
    shape, classes = context.public.image_shape, context.public.num_classes
    with seeded(context.seed, *names):
        if hp.generator == "dcgan":
            network = DCGANGenerator(shape, classes, width)
        else:
            network = ResNetGenerator(shape, classes, width, hp.spectral_norm and not plain)
    network = laid_out(network.to(context.device))
    return network if plain else compiled(network)


def build_critic(hp: Any, context: Context, plain: bool = False) -> nn.Module:
    """Returns the critic that every shard starts from, on the context's device; `plain`: no spectral norm."""
    return _build_scorer(Critic, hp, context, plain, "critic")


def build_classifier(hp: Any, context: Context, t: int) -> nn.Module:
    """Returns the new auxiliary classifier of step t, on the context's device."""
    return _build_scorer(Classifier, hp, context, False, "classifier", t)


def _build_scorer(kind: type[nn.Module], hp: Any, context: Context, plain: bool, *names: object) -> nn.Module:
    public = context.public
    with seeded(context.seed, *names):
        network = kind(public.image_shape, public.num_classes, hp.critic_width, hp.spectral_norm and not plain)
    return moved(network, context.device)
