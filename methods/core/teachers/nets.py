"""Networks of the teacher methods: one conditional DCGAN generator, and two discriminators small enough to stack.

Source: the layer table of DataLens and G-PATE (model.py of either repository), rewritten; width 128, hidden 256 and
channels 32 are theirs. Images are floats [N, C, H, W] in [0, 1] whose sides are multiples of 4; labels are one-hot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from methods.core.teachers.stacked_pass import StackedPass

_SLOPE, _EPSILON = 0.2, 1e-5


def _with_maps(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.cat([x, labels[:, :, None, None].expand(-1, -1, *x.shape[2:])], dim=1)


def _up(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1)


class Generator(nn.Module):
    """Two linear layers and two doublings by transposed convolution; the labels join every layer.

    Batch norm sees generated images only. In eval mode it uses its running statistics, so that an image depends on its
    own latent and label alone.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, width: int, latent: int) -> None:
        super().__init__()
        self._start = (width, image_shape[1] // 4, image_shape[2] // 4)
        size = int(torch.Size(self._start).numel())
        self.first, self.first_norm = nn.Linear(latent + num_classes, 8 * width), nn.BatchNorm1d(8 * width)
        self.second, self.second_norm = nn.Linear(8 * width + num_classes, size), nn.BatchNorm1d(size)
        self.third, self.third_norm = _up(width + num_classes, width), nn.BatchNorm2d(width)
        self.fourth = _up(width + num_classes, image_shape[0])

    def forward(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns images [N, C, H, W] for latents [N, latent] and one-hot labels [N, classes]."""
        x = F.relu(self.first_norm(self.first(torch.cat([latents, labels], dim=1))))
        x = F.relu(self.second_norm(self.second(torch.cat([x, labels], dim=1)))).view(-1, *self._start)
        x = F.relu(self.third_norm(self.third(_with_maps(x, labels))))
        return torch.sigmoid(self.fourth(_with_maps(x, labels)))


class ConvDiscriminator(nn.Module):
    """Two 5x5 convolutions of stride 2 and two linear layers; the labels join every layer; no normalisation."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, hidden: int, channels: int) -> None:
        super().__init__()
        narrow, wide = image_shape[0] + num_classes, channels + num_classes
        size = wide * (image_shape[1] // 4) * (image_shape[2] // 4)
        self.first = nn.Conv2d(narrow, narrow, 5, stride=2, padding=2)
        self.second = nn.Conv2d(narrow + num_classes, wide, 5, stride=2, padding=2)
        self.third = nn.Linear(size + num_classes, hidden)
        self.fourth = nn.Linear(hidden + num_classes, 1)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns logits [N], positive for real, given one-hot labels [N, classes]."""
        x = F.leaky_relu(self.first(_with_maps(images, labels)), _SLOPE)
        x = F.leaky_relu(self._second_norm(self.second(_with_maps(x, labels))), _SLOPE).flatten(1)
        x = F.leaky_relu(self._third_norm(self.third(torch.cat([x, labels], dim=1))), _SLOPE)
        return self.fourth(torch.cat([x, labels], dim=1))[:, 0]

    @classmethod
    def stacked(
        cls, weights: Mapping[str, torch.Tensor], parts: torch.Tensor, labels: torch.Tensor, batches: Sequence[int]
    ) -> StackedPass:
        """Returns n networks' pass at once, whose logits are what `forward` gives each; see StackedPass.

        Args:
            weights: the parameters by name, stacked as [n, ...].
            parts: what is `seen` of the images, [n, B, H / 2, W / 2, 25 * C].
            labels: one-hot [n, B, classes].
            batches: sizes of the batches that the B images consist of, one after the other.
        """
        return StackedPass(weights, parts, labels, batches, _SLOPE)

    def _second_norm(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def _third_norm(self, x: torch.Tensor) -> torch.Tensor:
        return x


class NormedConvDiscriminator(ConvDiscriminator):
    """The same with batch norm after the second and the third layer, as the authors' networks have it.

    It always has the statistics of the batch at hand, real or generated, and keeps none. A factor is one plus its
    parameter, as parameters of one dimension start at zero. The two layers have no bias, which a mean would take away.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, hidden: int, channels: int) -> None:
        super().__init__(image_shape, num_classes, hidden, channels)
        for layer, size in (("second", channels + num_classes), ("third", hidden)):
            getattr(self, layer).register_parameter("bias", None)
            self.register_parameter(f"{layer}_factor", nn.Parameter(torch.zeros(size)))
            self.register_parameter(f"{layer}_offset", nn.Parameter(torch.zeros(size)))

    def _second_norm(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.movedim(1, 3)
        normed = _normed(rows.flatten(0, 2), self.second_factor, self.second_offset)
        return normed.view(rows.shape).movedim(3, 1)

    def _third_norm(self, x: torch.Tensor) -> torch.Tensor:
        return _normed(x, self.third_factor, self.third_offset)


def _normed(rows: torch.Tensor, factor: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Returns rows [..., R, channels] of mean 0 and variance 1 over the R rows, times 1 + factor, plus offset."""
    variance, mean = torch.var_mean(rows, dim=-2, correction=0, keepdim=True)
    return (rows - mean) * torch.rsqrt(variance + _EPSILON) * (1 + factor) + offset


class DenseDiscriminator(nn.Module):
    """One hidden layer on the pixels, weighed by the label: about 1/30 of the convolutional network's time on a CPU.

    A label that joined the pixels as one more input would hardly be learned from the few records of a teacher.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, hidden: int, channels: int = 0) -> None:
        super().__init__()
        self.hidden = nn.Linear(int(torch.Size(image_shape).numel()), hidden)
        self.weigh, self.offset = nn.Linear(num_classes, hidden), nn.Linear(num_classes, 1)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns logits [N], positive for real, given one-hot labels [N, classes]."""
        x = F.leaky_relu(self.hidden(images.flatten(1)), _SLOPE)
        return (x * self.weigh(labels)).sum(dim=1) + self.offset(labels)[:, 0]


DISCRIMINATORS = {"conv": ConvDiscriminator, "conv_norm": NormedConvDiscriminator, "mlp": DenseDiscriminator}
