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
from torch.autograd.function import once_differentiable
from torch.nn.utils.parametrizations import spectral_norm

from methods.core.written_gradients import KERNEL, PADDING, STRIDE, Parts

LATENT_BITS = 10
_START = 4  # height and width of a generator's first feature map
# Width of a map from which doubling by transposed convolution is faster on a processor.
_LARGE = 16
Get = Callable[[str], torch.Tensor]


class _PixelNorm(torch.autograd.Function):
    """Written out: traced, its backward pass is most of the time that a generator spends outside convolutions."""

    @staticmethod
    def forward(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale = _mean_square(x).add_(1e-10).rsqrt_().to(x.dtype)
        return x * scale, scale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor], output: tuple[torch.Tensor, torch.Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        y, scale = ctx.saved_tensors
        along = (gradient * y).mean(dim=1, keepdim=True)
        return torch.addcmul(gradient, y, along, value=-1).mul_(scale)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], x: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], tuple[int, int]]:
        """Of a stack [M, N, C, ...]: all images are one batch."""
        stack = x.movedim(in_dims[0], 0)
        return tuple(part.unflatten(0, stack.shape[:2]) for part in _PixelNorm.apply(stack.flatten(0, 1))), (0, 0)


def _mean_square(x: torch.Tensor) -> torch.Tensor:
    if x.ndim != 4 or not x.is_contiguous(memory_format=torch.channels_last):
        return (x * x).mean(dim=1, keepdim=True)
    # Several times faster where channels lie side by side, and slower where they do not.
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return norm.to(torch.promote_types(x.dtype, torch.float32)).square_().div_(x.shape[1])


def pixel_norm(x: torch.Tensor) -> torch.Tensor:
    """Divides x [N, C, ...] by its root mean square over channels (Karras et al. 2018, section 4.2)."""
    return _PixelNorm.apply(x)[0]


def draw_latents(count: int, stream: torch.Generator) -> torch.Tensor:
    """Returns latents [N, 10] of independent fair bits, as floats on the CPU (both papers' default).

    2^10 codes exist, so at most 1,024 distinct images per class: `distinct_fraction` in the scores shows it.
    """
    return torch.randint(0, 2, (count, LATENT_BITS), generator=stream).float()


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


def _fold() -> torch.Tensor:
    """Returns [9, 16]: how a 3x3 kernel's taps add up where nearest doubling puts one input under several of them."""
    line = torch.tensor([[0.0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0]])
    return torch.kron(line, line)


def doubled(convolution: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """Returns the 3x3 convolution, padding 1, of x [N, C, H, W] after nearest doubling: [N, C', 2H, 2W].

    Large maps in single precision take the equal 4x4 transposed convolution of stride 2: four products for each output
    instead of nine. In bf16 it would gain a processor next to nothing, and lose in backward passes.
    """
    if x.shape[-1] < _LARGE or torch.is_autocast_enabled(x.device.type):
        return convolution(F.interpolate(x, scale_factor=2))
    kernel = convolution.weight
    folded = kernel.transpose(0, 1).flatten(2) @ _fold().to(kernel)
    return F.conv_transpose2d(x, folded.unflatten(2, (4, 4)), convolution.bias, stride=2, padding=1)


def _by_places(layer: nn.ConvTranspose2d, x: torch.Tensor) -> torch.Tensor:
    """Returns the transposed convolution of stride 2 and even kernel as one convolution for its four output places.

    To few channels that is two to four times faster than the transposed kernel, except through backward passes in bf16.
    """
    inputs, outputs, size = layer.weight.shape[:3]
    taps = layer.weight.view(inputs, outputs, size // 2, 2, size // 2, 2).flip(2, 4).permute(1, 3, 5, 0, 2, 4)
    kernel, bias = taps.reshape(4 * outputs, inputs, size // 2, size // 2), layer.bias.repeat_interleave(4)
    return F.pixel_shuffle(F.conv2d(x, kernel, bias, padding=size // 2 - 1), 2)


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
    """Three residual up-blocks of 4 * width channels; image_shape (C, 28, 28) or (C, 32, 32).

    3,826,177 parameters for 1x28x28 with 10 classes, 3,798,019 for 3x32x32 with 2, at width 64.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, width: int, spectral: bool = True) -> None:
        super().__init__()
        colours, size = image_shape[0], image_shape[1]
        self.entry = _Conditional(num_classes, 4 * width, spectral)
        self.blocks = nn.Sequential(*(_UpBlock(4 * width, spectral) for _ in range(3)))
        self.exit = _norm(nn.Conv2d(4 * width, colours, 3, padding=1 if size == 32 else 0), spectral)
        self.size = size
        # Values of an image's largest feature maps.
        self.largest = 4 * width * 32**2

    def forward(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns images [N, C, H, W] in [0, 1] for latents [N, 10] and labels int64 [N]."""
        x = self.blocks(self.entry(latents, labels))
        return torch.sigmoid(self.exit(x))[:, :, : self.size, : self.size]


class DCGANGenerator(nn.Module):
    """Transposed convolutions 4 -> 8 -> 12 -> 32, cropped to 4 -> 7 -> 11 -> 28 for 28x28; no spectral norm.

    The papers define 28x28 alone; for 32x32 the crop is left out and the last kernel is 10 wide instead of 8.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, width: int) -> None:
        super().__init__()
        colours, size = image_shape[0], image_shape[1]
        self.crop = 7 if size == 28 else 8
        self.entry = _Conditional(num_classes, 4 * width, spectral=False)
        self.first = nn.ConvTranspose2d(4 * width, 2 * width, 5)
        self.second = nn.ConvTranspose2d(2 * width, width, 5)
        self.exit = nn.ConvTranspose2d(width, colours, size - 2 * (self.crop + 3), stride=2)
        # Values of an image's largest feature maps.
        self.largest = max(2 * width * 8**2, width * 12**2)

    def forward(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns images [N, C, H, W] in [0, 1] for latents [N, 10] and labels int64 [N]."""
        x = pixel_norm(F.relu(self.first(self.entry(latents, labels))))
        # Negative padding, not a slice, whose backward pass would change the layout.
        x = F.pad(x, (0, self.crop - x.shape[3], 0, self.crop - x.shape[2]))
        x = pixel_norm(F.relu(self.second(x)))
        slow = torch.is_grad_enabled() and torch.is_autocast_enabled(x.device.type)
        return torch.sigmoid(self.exit(x) if slow else _by_places(self.exit, x))


class _Trunk(nn.Sequential):
    """Three 5x5 convolutions of stride 2 to features [N, 4 * width * 16]."""

    def __init__(self, colours: int, width: int, spectral: bool) -> None:
        channels = (colours, width, 2 * width, 4 * width)
        layers: list[nn.Module] = []
        for below, above in pairwise(channels):
            layers += [_norm(nn.Conv2d(below, above, KERNEL, STRIDE, PADDING), spectral), nn.ReLU()]
        super().__init__(*layers, nn.Flatten())


def _parts(get: Get, table: torch.Tensor, offsets: torch.Tensor) -> Parts:
    kernels, biases = (tuple(get(f"trunk.{place}.{kind}") for place in (0, 2, 4)) for kind in ("weight", "bias"))
    return Parts(kernels, biases, table, offsets)


class Critic(nn.Module):
    """Projection critic (Miyato and Koyama 2018): 1,071,105 parameters for 1x28x28 with 10 classes at width 64."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, width: int, spectral: bool = True) -> None:
        super().__init__()
        features = 4 * width * _START**2
        self.trunk = _Trunk(image_shape[0], width, spectral)
        self.linear = _norm(nn.Linear(features, 1), spectral)
        self.embedding = _norm(nn.Embedding(num_classes, features), spectral)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns scores [N]; higher means more real, given labels int64 [N]."""
        features = self.trunk(images)
        return self.linear(features)[:, 0] + (self.embedding(labels) * features).sum(dim=1)

    @staticmethod
    def parts(get: Get) -> Parts:
        """Returns what M critics are made of; `get` gives a parameter [M, ...] by its name."""
        embedding = get("embedding.weight")
        table, offsets = get("linear.weight") + embedding, get("linear.bias").expand(embedding.shape[:2])
        return _parts(get, table, offsets)


class Classifier(nn.Module):
    """The auxiliary classifier of DP-GAN-DPAC: 1,067,018 parameters for 1x28x28 with 10 classes at width 64."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, width: int, spectral: bool = True) -> None:
        super().__init__()
        self.trunk = _Trunk(image_shape[0], width, spectral)
        self.linear = _norm(nn.Linear(4 * width * _START**2, num_classes), spectral)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns scores [N]: the label's logit minus the mean of the other logits (DP-GAN-DPAC source/main.py)."""
        logits = self.linear(self.trunk(images))
        own = logits.gather(1, labels[:, None])[:, 0]
        return own - (logits.sum(dim=1) - own) / (logits.shape[1] - 1)

    @staticmethod
    def parts(get: Get) -> Parts:
        """Returns what M classifiers are made of; `get` gives a parameter [M, ...] by its name."""
        return _parts(get, *(_against_others(get(f"linear.{kind}")) for kind in ("weight", "bias")))


def _against_others(of_classes: torch.Tensor) -> torch.Tensor:
    """Returns each class's entry along dimension 1 minus the mean of the others'."""
    classes = of_classes.shape[1]
    return (classes * of_classes - of_classes.sum(dim=1, keepdim=True)) / (classes - 1)


GENERATORS = {"resnet": ResNetGenerator, "dcgan": DCGANGenerator}
