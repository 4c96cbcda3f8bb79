"""The networks of GS-WGAN and DP-GAN-DPAC in their plainest form, by the papers' layer tables.

The same layers, names and weights as methods/core/sharded/nets.py, so that weights can be copied between the two;
nothing here is arranged for speed. Sources: GS-WGAN source/models.py, DP-GAN-DPAC source/models*.py, rewritten.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

LATENTS = 10


def pixel_norm(x: torch.Tensor) -> torch.Tensor:
    """Divides x [N, C, ...] by its root mean square over channels."""
    return x / torch.sqrt(torch.mean(x**2, dim=1, keepdim=True) + 1e-10)


def normed(layer: nn.Module, spectral: bool) -> nn.Module:
    """Returns the layer, under torch's spectral norm if asked for: computed anew at every forward pass."""
    return spectral_norm(layer) if spectral else layer


class Entry(nn.Module):
    """Latents [N, 10] and labels int64 [N] to features [N, channels, 4, 4]."""

    def __init__(self, num_classes: int, channels: int, spectral: bool) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.linear = normed(nn.Linear(LATENTS + num_classes, channels * 16), spectral)

    def forward(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = torch.cat([latents, F.one_hot(labels, self.num_classes).float()], dim=1)
        return pixel_norm(F.relu(self.linear(x)).view(len(x), -1, 4, 4))


class UpBlock(nn.Module):
    """A residual block [N, C, H, W] -> [N, C, 2H, 2W]: both ways upsample first, then convolve."""

    def __init__(self, channels: int, spectral: bool) -> None:
        super().__init__()
        self.first = normed(nn.Conv2d(channels, channels, 3, padding=1), spectral)
        self.second = normed(nn.Conv2d(channels, channels, 3, padding=1), spectral)
        self.skip = normed(nn.Conv2d(channels, channels, 1), spectral)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(self.upsample(pixel_norm(x)))
        y = self.second(F.relu(pixel_norm(y)))
        return y + self.skip(self.upsample(x))


class ResNetGenerator(nn.Module):
    """Three residual up-blocks of 4 * width channels to images [N, C, 28, 28] or [N, C, 32, 32] in [0, 1]."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, width: int, spectral: bool) -> None:
        super().__init__()
        self.size = image_shape[1]
        self.entry = Entry(num_classes, 4 * width, spectral)
        self.blocks = nn.Sequential(*[UpBlock(4 * width, spectral) for _ in range(3)])
        self.exit = normed(nn.Conv2d(4 * width, image_shape[0], 3, padding=1 if self.size == 32 else 0), spectral)

    def forward(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = torch.sigmoid(self.exit(self.blocks(self.entry(latents, labels))))
        return x[:, :, : self.size, : self.size]


class DCGANGenerator(nn.Module):
    """Transposed convolutions 4 -> 8 -> 12 -> 32, cropped to 4 -> 7 -> 11 -> 28 for 28x28; images in [0, 1]."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, width: int) -> None:
        super().__init__()
        self.small = image_shape[1] == 28
        self.entry = Entry(num_classes, 4 * width, spectral=False)
        self.first = nn.ConvTranspose2d(4 * width, 2 * width, 5)
        self.second = nn.ConvTranspose2d(2 * width, width, 5)
        self.exit = nn.ConvTranspose2d(width, image_shape[0], 8 if self.small else 10, stride=2)

    def forward(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = pixel_norm(F.relu(self.first(self.entry(latents, labels))))
        if self.small:
            x = x[:, :, :7, :7]
        x = pixel_norm(F.relu(self.second(x)))
        return torch.sigmoid(self.exit(x))


def _trunk(colours: int, width: int, spectral: bool) -> nn.Sequential:
    return nn.Sequential(
        normed(nn.Conv2d(colours, width, 5, stride=2, padding=2), spectral), nn.ReLU(),
        normed(nn.Conv2d(width, 2 * width, 5, stride=2, padding=2), spectral), nn.ReLU(),
        normed(nn.Conv2d(2 * width, 4 * width, 5, stride=2, padding=2), spectral), nn.ReLU(),
        nn.Flatten(),
    )  # fmt: skip


class Critic(nn.Module):
    """Projection critic: scores [N] of images [N, C, H, W] with labels int64 [N]."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, width: int, spectral: bool) -> None:
        super().__init__()
        self.trunk = _trunk(image_shape[0], width, spectral)
        self.linear = normed(nn.Linear(64 * width, 1), spectral)
        self.embedding = normed(nn.Embedding(num_classes, 64 * width), spectral)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = self.trunk(images)
        return self.linear(x).squeeze(1) + torch.sum(self.embedding(labels) * x, dim=1)


class Classifier(nn.Module):
    """Auxiliary classifier: scores [N], the label's logit minus the mean of the other logits."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, width: int, spectral: bool) -> None:
        super().__init__()
        self.trunk = _trunk(image_shape[0], width, spectral)
        self.linear = normed(nn.Linear(64 * width, num_classes), spectral)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = self.linear(self.trunk(images))
        of_label = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
        return of_label - (logits.sum(dim=1) - of_label) / (logits.shape[1] - 1)
