"""First and second order gradients of critics and auxiliary classifiers, written out instead of traced.

Their score is a(label) . f(image) + b(label), with f a trunk of convolutions and ReLUs. Where no ReLU switches, an
image's gradient g is linear in each layer's weights, and for a fixed direction u the product <u, g> equals a(label) .
t(u), with t the trunk without biases and with the image's own ReLU masks. So the gradient penalty's second order
gradient needs no second backward pass: t(u) forward, and the layer by layer products of its activations with the
backward signals that gave g. Real images, fakes and penalised points share one pass each way, and where scored images
are the penalised ones, one product per layer. Same result as autograd's within rounding, in about two thirds of the
time on a processor.

M networks work as one: tensors are [N, M * C, H, W], channels last, and each layer is a convolution in M groups. Images
are folded: the 2x2 pixels under one place of the first layer's stride are channels, [N, M * C * 4, H / 2, W / 2], and
that layer is a 3x3 convolution of stride 1, which a processor does two to three times faster than a 5x5 one of few
channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight

from methods.core.speed.choices import CHOICES
from methods.core.speed.patches import patches

# Of every convolution of a trunk.
KERNEL, STRIDE, PADDING = 5, 2, 2
# From so many input channels on, a processor multiplies patches up to five times faster than its convolution kernel.
_WIDE = 32
# Places of a layer's inputs, of all images, from which folding its kernel takes less time than it saves.
_MANY = 8192
_TINY = 1e-12
_PAIRS = {torch.bfloat16: torch.int32, torch.float32: torch.int64}
Result = tuple[torch.Tensor, list[torch.Tensor]]


@dataclass(frozen=True)
class Parts:
    """What M scorers are made of: a trunk of convolutions, then a(label) and b(label).

    Attributes:
        kernels: for each layer [M, out, in, 5, 5].
        biases: for each layer [M, out].
        table: a, [M, classes, features].
        offsets: b, [M, classes].
    """

    kernels: tuple[torch.Tensor, ...]
    biases: tuple[torch.Tensor, ...]
    table: torch.Tensor
    offsets: torch.Tensor

    def apart(self) -> list[Parts]:
        """Returns the parts of each scorer, with M = 1."""
        kernels, biases = (zip(*(part.split(1) for part in kind), strict=True) for kind in (self.kernels, self.biases))
        return list(map(Parts, kernels, biases, self.table.split(1), self.offsets.split(1)))


@dataclass(frozen=True)
class Terms:
    """A loss of M scorers on N images: signed scores of the leading ones, a drift on some, a penalty on the last ones.

    sum_i signs[i] * score_i + drift * mean over the first `drifted` of score^2
    + penalty * mean over the last `penalised` of (norm of the score's gradient at the image - 1)^2

    Scored and penalised images are all images, both of them, or part the images between them.
    """

    signs: torch.Tensor
    drifted: int
    penalised: int
    drift: float
    penalty: float


def loss(parts: Parts, images: torch.Tensor, labels: torch.Tensor, terms: Terms, dtype: torch.dtype) -> torch.Tensor:
    """Returns the losses [M] of `terms`, differentiable once with respect to the tensors of `parts`.

    Images [M, N, C, H, W] of even H and W, and labels int64 [M, N]. Convolutions run in `dtype`, sums and norms in
    single precision.
    """
    if len(images) > 1 and not _share_convolutions(parts, dtype):
        networks = zip(parts.apart(), images.split(1), labels.split(1), strict=True)
        return torch.cat([loss(*network, terms, dtype) for network in networks])

    def work() -> Result:
        return _loss_and_gradients(parts, _folded(images, dtype), labels, terms)

    return _WrittenOut.apply(work, *parts.kernels, *parts.biases, parts.table, parts.offsets)


def _share_convolutions(parts: Parts, dtype: torch.dtype) -> bool:
    """Returns whether networks may be the groups of one convolution, none of which reaches another.

    In 16 bits a processor multiplies channels in pairs. Of an odd number the last one's partner is the next group's
    first channel, times a weight of 0: that network's infinity or NaN would be this one's too.
    """
    return CHOICES.stacks and not (dtype == torch.bfloat16 and parts.kernels[0].shape[1] % 2)


@torch.no_grad()
def image_gradients(parts: Parts, images: torch.Tensor, labels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns the gradient [M, N, C, H, W] of each image's score at it.

    Images [M, N, C, H, W] of even H and W and labels [M, N]; or [N, C, H, W] and [N], the same for all M.
    """
    if len(parts.table) > 1 and not _share_convolutions(parts, dtype):
        batches = [part.expand(len(parts.table), *part.shape[-dims:]) for part, dims in ((images, 4), (labels, 1))]
        networks = zip(parts.apart(), *(batch.split(1) for batch in batches), strict=True)
        return torch.cat([image_gradients(*network, dtype) for network in networks])
    trunks = _Trunks(parts, dtype)
    features = trunks.features(_folded(images[None] if images.ndim == 4 else images, dtype))
    start = _rows(parts.table, labels, features[-1])
    gradients = F.pixel_shuffle(trunks.image_gradients(trunks.signals(start, features)[0]), STRIDE)
    return gradients.unflatten(1, (trunks.groups, -1)).transpose(0, 1)


@torch.no_grad()
def _loss_and_gradients(parts: Parts, images: torch.Tensor, labels: torch.Tensor, terms: Terms) -> Result:
    trunks, scored, first = _Trunks(parts, images.dtype), len(terms.signs), len(images) - terms.penalised
    if scored != (first or len(images)):
        raise ValueError(f"{len(images)} images, of which {scored} are scored and {terms.penalised} penalised")
    features = trunks.features(images)
    start = _rows(parts.table, labels, features[-1])
    signals = trunks.signals(start, features)
    classes = F.one_hot(labels, parts.table.shape[1]).float()

    dots = (start[:scored].float() * features[-1][:scored]).unflatten(1, (trunks.groups, -1)).sum((2, 3, 4))
    scores = dots + parts.offsets.gather(1, labels[:, :scored]).T
    slopes = terms.signs[:, None].repeat(1, trunks.groups)
    slopes[: terms.drifted] += 2 * terms.drift / terms.drifted * scores[: terms.drifted]

    gradient = trunks.image_gradients(signals[0][first:])
    norms = gradient.unflatten(1, (trunks.groups, -1)).flatten(2).norm(dim=2)
    pull = 2 * terms.penalty / terms.penalised * (1 - 1 / norms.clamp_min(_TINY))
    # Products are linear in a layer's input, so an image's slope goes there: its signal serves the penalty too.
    inputs = [torch.empty_like(output) for output in features]
    for into, output in zip(inputs, features, strict=True):
        torch.mul(output[:scored], _of_maps(slopes, output), out=into[:scored])
    moves = [into[first:] if first else torch.empty_like(into) for into in inputs]
    moves[0].copy_(gradient * _of_maps(pull, gradient))
    trunks.move(moves, [part[first:] for part in features])
    if not first:
        for into, move in zip(inputs, moves, strict=True):
            into += move

    value = (
        terms.signs @ scores
        + terms.drift * scores[: terms.drifted].square().mean(0)
        + terms.penalty * (norms - 1).square().mean(0)
    )
    ends = inputs[-1].float().unflatten(1, (trunks.groups, -1)).flatten(2).transpose(0, 1)
    return value, [
        *trunks.kernel_gradients(inputs, signals),
        *(_bias_gradient(signal[:scored], slopes) for signal in signals),
        classes.mT @ ends,
        torch.einsum("mnk,nm->mk", classes[:, :scored], slopes),
    ]


class _Trunks:
    """M trunks in the precision of the work."""

    def __init__(self, parts: Parts, dtype: torch.dtype) -> None:
        self.groups = len(parts.table)
        first, *others = (kernel.detach().flatten(0, 1) for kernel in parts.kernels)
        self._kernels = [_channels_last(kernel.to(dtype)) for kernel in (_folded_kernel(first), *others)]
        # Stride and padding of each layer.
        self._places = [(1, 1)] + [(STRIDE, PADDING)] * len(others)
        self._biases = [bias.detach().flatten().to(dtype) for bias in parts.biases]

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Returns the folded images and each layer's output; images without M in their channels count for all alike."""
        outputs = [images]
        for kernel, bias, places in zip(self._kernels, self._biases, self._places, strict=True):
            groups = outputs[-1].shape[1] // kernel.shape[1]
            outputs.append(F.conv2d(outputs[-1], kernel, bias, *places, groups=groups).relu_())
        return outputs

    def move(self, moves: list[torch.Tensor], features: list[torch.Tensor]) -> None:
        """Fills `moves` with how each layer's output moves along moves[0] at the images of `features`."""
        for layer, (kernel, places) in enumerate(zip(self._kernels, self._places, strict=True)):
            signal = F.conv2d(moves[layer], kernel, None, *places, groups=self.groups)
            _where_active(signal, features[layer + 1], moves[layer + 1])

    def signals(self, start: torch.Tensor, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Returns the backward signal at each layer's output before its ReLU, from `start` at the last one's."""
        signals = [_where_active(start, features[-1])]
        for kernel, below in zip(reversed(self._kernels[1:]), reversed(features[1:-1]), strict=True):
            signal = self._signal_below(signals[-1], kernel, below)
            signals.append(_where_active(signal, below, signal))
        return signals[::-1]

    def _signal_below(self, signal: torch.Tensor, kernel: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
        many = len(below) * below.shape[2] * below.shape[3] >= _MANY
        if below.device.type == "cpu" and kernel.shape[1] < _WIDE and many and CHOICES.folded_signals:
            places = F.conv2d(signal, self._backward(_folded_kernel(kernel)), padding=1, groups=self.groups)
            return _unfolded(places)[:, :, : below.shape[2], : below.shape[3]]
        # Not torch.nn.grad.conv2d_input, which makes a map that nobody reads in place of `below`.
        return torch.ops.aten.convolution_backward(
            signal, below, kernel, None, [STRIDE] * 2, [PADDING] * 2, [1, 1], False, [0, 0], self.groups,
            [True, False, False],
        )[0]  # fmt: skip

    def _backward(self, kernel: torch.Tensor) -> torch.Tensor:
        """Returns a 3x3 kernel of stride 1 turned round, which takes a signal at its outputs to one at its inputs."""
        turned = kernel.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(0, 1).flip(2, 3)
        return _channels_last(turned)

    def image_gradients(self, signal: torch.Tensor) -> torch.Tensor:
        """Returns float gradients [N, M * C * 4, H / 2, W / 2] at the folded images, from the first layer's signal."""
        return F.conv2d(signal, self._backward(self._kernels[0]), padding=1, groups=self.groups).float()

    def kernel_gradients(self, inputs: list[torch.Tensor], signals: list[torch.Tensor]) -> list[torch.Tensor]:
        """Returns each kernel's gradient [M, out, in, 5, 5] from its inputs and the signals at its outputs."""
        first, *others = (
            self._kernel_gradient(*layer)
            for layer in zip(inputs, self._kernels, signals, self._places, strict=False)
        )
        return [kernel.float().unflatten(0, (self.groups, -1)) for kernel in (_unfolded_kernel(first), *others)]

    def _kernel_gradient(
        self, below: torch.Tensor, kernel: torch.Tensor, signal: torch.Tensor, places: tuple[int, int]
    ) -> torch.Tensor:
        if below.device.type != "cpu" or kernel.shape[1] < _WIDE or not CHOICES.patches:
            return conv2d_weight(below, kernel.shape, signal, *places, groups=self.groups)
        pairs = zip(signal.chunk(self.groups, dim=1), below.chunk(self.groups, dim=1), strict=True)
        size = tuple(kernel.shape[2:])
        products = torch.cat([_product(*pair, size, *places) for pair in pairs])
        return products.unflatten(1, (*size, -1)).permute(0, 3, 1, 2)


class _WrittenOut(torch.autograd.Function):
    """A loss [M] whose gradients come with its value."""

    @staticmethod
    def forward(ctx: Any, work: Callable[[], Result], *_: torch.Tensor) -> torch.Tensor:
        value, gradients = work()
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return None, *(part * outer.view(-1, *[1] * (part.ndim - 1)) for part in ctx.saved_tensors)


def _product(
    signal: torch.Tensor, below: torch.Tensor, size: tuple[int, int], stride: int, padding: int
) -> torch.Tensor:
    """Returns a kernel's gradient [out, size[0] * size[1] * in] from the signal [N, out, H', W'] and the input."""
    seen = patches(below, size, (stride, stride), (padding, padding))
    return signal.permute(0, 2, 3, 1).flatten(0, 2).T @ seen.flatten(0, 2)


def _bias_gradient(signal: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
    """Returns [M, out] from a layer's signal [N, M * out, H, W] and the images' slopes [N, M]."""
    of_images = signal.sum((2, 3)).float().unflatten(1, (slopes.shape[1], -1))
    return torch.einsum("nmo,nm->mo", of_images, slopes)


def _rows(table: torch.Tensor, labels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Returns a(label) laid out as the features `like` [N, M * C, H, W]; labels are [M, N], or [N] for all M alike."""
    networks = torch.arange(len(table), device=labels.device)
    # Image by image, whole rows of all networks' tables: to gather number by number takes several times as long.
    which = labels.expand(len(table), -1).T + table.shape[1] * networks
    rows = table.detach().to(like.dtype).flatten(0, 1).index_select(0, which.flatten())
    return _channels_last(rows.view(like.shape))


def _of_maps(factors: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Returns factors [N, M] as [N, M * C, 1, 1], to multiply maps [N, M * C, H, W]."""
    return factors.to(maps.dtype).repeat_interleave(maps.shape[1] // factors.shape[1], dim=1)[:, :, None, None]


def _where_active(signal: torch.Tensor, output: torch.Tensor, into: torch.Tensor | None = None) -> torch.Tensor:
    """Returns `signal` where the ReLU's output is positive, 0 elsewhere: also where the signal is not finite."""
    if into is None:
        return torch.ops.aten.threshold_backward(signal, output, 0)
    return torch.ops.aten.threshold_backward.grad_input(signal, output, 0, grad_input=into)


def _folded(images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns images [M, N, C, H, W] as [N, M * C * 4, H / 2, W / 2], channels last."""
    # Two neighbours move as one number of twice their bits: single ones take ten times as long.
    pairs = images.to(dtype).contiguous().view(_PAIRS[dtype])
    rows = [pairs[:, :, :, row::STRIDE].permute(1, 3, 4, 0, 2) for row in range(STRIDE)]
    return torch.stack(rows, dim=-1).view(dtype).flatten(3).permute(0, 3, 1, 2)


def _unfolded(folded: torch.Tensor) -> torch.Tensor:
    """Returns [N, C, H, W], channels last, of [N, C * 4, H / 2, W / 2]."""
    blocks = folded.permute(0, 2, 3, 1).unflatten(3, (-1, STRIDE, STRIDE)).permute(0, 1, 4, 2, 5, 3)
    return blocks.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def _folded_kernel(kernel: torch.Tensor) -> torch.Tensor:
    """Returns the first layer's kernels [O, C, 5, 5] as those of folded images, [O, C * 4, 3, 3]."""
    taps = F.pad(kernel, (0, 1, 0, 1)).unflatten(3, (3, STRIDE)).unflatten(2, (3, STRIDE))
    return taps.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)


def _unfolded_kernel(folded: torch.Tensor) -> torch.Tensor:
    """Returns [O, C, 5, 5] of [O, C * 4, 3, 3]: the inverse of `_folded_kernel`."""
    taps = folded.unflatten(1, (-1, STRIDE, STRIDE)).permute(0, 1, 4, 2, 5, 3)
    return taps.flatten(4).flatten(2, 3)[..., :KERNEL, :KERNEL]


def _channels_last(maps: torch.Tensor) -> torch.Tensor:
    maps = maps.contiguous(memory_format=torch.channels_last)
    if maps.shape[1] > 1:
        return maps
    # Of one channel, torch takes the strides for the other layout, which every later layer would then have to undo.
    return maps.as_strided(maps.shape, (maps[0].numel(), 1, maps.shape[3], 1))
