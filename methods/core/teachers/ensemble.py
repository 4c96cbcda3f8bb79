"""N teachers on N disjoint parts of the records, as one stack of parameters that trains in a few large operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, vmap

from methods.core.optimisers import adam_update
from methods.core.privacy.grant import Grant
from methods.core.privacy.private_data import PrivateData
from workflow.common.seeds import derive

# Bytes of parameters and batches in work at a time: a processor's cache, or a small part of a GPU's memory.
_WORK = {"cpu": 2**24, "cuda": 2**31}
_BETAS = (0.5, 0.999)
_INITIAL = 0.02


class Teachers:
    """N discriminators, each with its own weights and Adam moments, stacked as tensors [N, ...].

    Teacher i reads the records of part i alone. Its state is a function of those records and of what `train` is given
    for all teachers alike, which must be public. Networks may not draw random numbers nor keep buffers.

    Args:
        build: makes one network of (images [B, C, H, W], one-hot labels [B, classes]) -> logits [B].
        parts: record indices int64 [N, size]; no record may stand in two rows.
        num_classes: length of a one-hot label.
        learning_rate: of Adam, whose betas are (0.5, 0.999).
        seed: of the initial weights, which differ between teachers: N(0, 0.02^2), biases zero.
        decay: share of each weight that is lost per update.
        chunk: teachers in work at a time; None: as many as fit a fixed share of the device's memory.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        parts: torch.Tensor,
        num_classes: int,
        learning_rate: float,
        seed: int,
        device: torch.device,
        decay: float = 0.0,
        chunk: int | None = None,
    ) -> None:
        self._decay = decay
        with torch.device("meta"):
            self._network = build()
        self._parts, self._classes, self._rate, self._device, self._chunk = (
            parts, num_classes, learning_rate, device, chunk
        )  # fmt: skip
        rng = torch.Generator(device).manual_seed(derive(seed, "teachers"))
        self._weights = {name: self._initial(like, rng) for name, like in self._network.named_parameters()}
        self._first = {name: torch.zeros_like(value) for name, value in self._weights.items()}
        self._second = {name: torch.zeros_like(value) for name, value in self._weights.items()}
        self._steps = 0

    def __len__(self) -> int:
        return len(self._parts)

    def train(
        self, data: PrivateData, grant: Grant, fakes: torch.Tensor, labels: torch.Tensor, batch_size: int
    ) -> None:
        """One Adam step of every teacher on the GAN's cross-entropy.

        Each takes the next `batch_size` records of its part, in turn, or the whole part if it is smaller; all take the
        same fakes [F, C, H, W] with one-hot labels [F, classes].
        """
        size = self._parts.shape[1]
        batch_size = min(batch_size, size)
        places = (torch.arange(batch_size) + self._steps * batch_size) % size
        self._steps += 1
        for part in self._split(2 * batch_size * fakes[0].numel()):
            images, classes = data.read(grant, self._parts[part][:, places])
            shape = (-1, batch_size)
            reals = images.to(self._device).float().div_(255).view(*shape, *images.shape[1:])
            one_hot = F.one_hot(classes.to(self._device), self._classes).float().view(*shape, self._classes)
            self._update(part, reals, one_hot, fakes, labels)

    def logits(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns each teacher's logits [N, B] for images [B, C, H, W] and one-hot labels [B, classes]."""
        with torch.no_grad():
            stacks = (self._of(part, self._weights) for part in self._split(images.numel()))
            return torch.cat([self._call(weights, images, labels, (0, None, None)) for weights in stacks])

    def gradients(self, images: torch.Tensor, labels: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yields, for consecutive teachers, directions [n, B, C * H * W] in which images look more real to each.

        That is minus the gradient of each image's generator loss, softplus(-logit), averaged over the batch.
        """
        for part in self._split(4 * images.numel()):
            weights = self._of(part, self._weights)
            copies = images.detach().expand(len(next(iter(weights.values()))), *images.shape).requires_grad_()
            loss = F.softplus(-self._call(weights, copies, labels, (0, 0, None))).sum() / len(images)
            yield -torch.autograd.grad(loss, copies)[0].flatten(2)

    def state(self) -> dict[str, Any]:
        """Returns all weights and moments, for a checkpoint."""
        return {"weights": self._weights, "first": self._first, "second": self._second, "steps": self._steps}

    def load(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned."""
        self._weights, self._first, self._second, self._steps = (
            state["weights"], state["first"], state["second"], state["steps"]
        )  # fmt: skip

    def _initial(self, like: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        shape = (len(self), *like.shape)
        if like.ndim < 2:
            return torch.zeros(shape, device=self._device)
        return torch.randn(shape, generator=rng, device=self._device) * _INITIAL

    def _split(self, numbers: int) -> Iterator[slice]:
        """Yields slices of teachers, so few that their weights and `numbers` more floats each suit the device."""
        size = 4 * (numbers + sum(weight[0].numel() for weight in self._weights.values()))
        count = self._chunk or max(1, _WORK[self._device.type] // size)
        for start in range(0, len(self), count):
            yield slice(start, min(start + count, len(self)))

    @staticmethod
    def _of(part: slice, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: value[part] for name, value in values.items()}

    def _call(
        self, weights: dict[str, torch.Tensor], images: torch.Tensor, labels: torch.Tensor, dims: tuple[int | None, ...]
    ) -> torch.Tensor:
        def logits(weights: dict[str, torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
            return functional_call(self._network, weights, inputs)

        return vmap(logits, dims)(weights, images, labels)

    def _update(
        self, part: slice, reals: torch.Tensor, classes: torch.Tensor, fakes: torch.Tensor, labels: torch.Tensor
    ) -> None:
        weights = {name: weight.requires_grad_() for name, weight in self._of(part, self._weights).items()}
        real = F.softplus(-self._call(weights, reals, classes, (0, 0, 0))).mean(1)
        fake = F.softplus(self._call(weights, fakes, labels, (0, None, None))).mean(1)
        # A teacher's weights are in its own summand alone, so the sum's gradient is each one's own.
        gradients = torch.autograd.grad((real + fake).sum(), list(weights.values()))
        adam_update(
            weights, gradients, self._of(part, self._first), self._of(part, self._second),
            updates=self._steps - 1, learning_rate=self._rate, betas=_BETAS, decay=self._decay,
        )  # fmt: skip
