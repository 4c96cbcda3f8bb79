"""N teachers on N disjoint parts of the records, as one stack of parameters that trains in a few large operations."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, vmap

from methods.core.optimisers import adam_update
from methods.core.privacy.grant import Grant
from methods.core.privacy.private_data import PrivateData
from methods.core.speed.batched_layers import seen
from methods.core.speed.choices import CHOICES
from methods.core.speed.precision import PRECISIONS, computed_in
from methods.core.speed.threads import GoOn, for_each
from methods.core.speed.transfers import sent
from methods.core.teachers.kept_weights import put, rounding_noise, split, take
from methods.core.teachers.stacked_pass import StackedPass
from workflow.common.seeds import derive

# Bytes of parameters and batches in work at a time: a processor's cache, or a small part of a GPU's memory.
_WORK = {"cpu": 2**24, "cuda": 2**31}
# Parts of teachers that are ready before they are asked for, by several threads.
_WAVE = 16
_BETAS = (0.5, 0.999)
_INITIAL = 0.02

Weights = dict[str, torch.Tensor]
# Images [..., C, H, W], with one-hot labels [..., classes], of one update; or what their network has made of them.
Batch = tuple[torch.Tensor, torch.Tensor]


class Teachers:
    """N discriminators, each with its own weights and Adam moments, stacked as tensors [N, ...].

    Teacher i reads the records of part i alone. Its state is a function of those records and of what `train` is given
    for all teachers alike, which must be public. Networks may not draw random numbers nor keep buffers.

    With `slots`, teachers i, i + slots, i + 2 slots, ... share their moments, and the weights they start from, as in a
    graph that has so many networks and restores nothing but weights: a record then moves all teachers of its slot.

    Args:
        build: makes one network of (images [B, C, H, W], one-hot labels [B, classes]) -> logits [B].
        parts: record indices int64 [N, size]; no record may stand in two rows.
        num_classes: length of a one-hot label.
        learning_rate: of Adam, whose betas are (0.5, 0.999).
        seed: of the initial weights, which differ between teachers: N(0, 0.02^2), biases zero; and of rounding.
        decay: share of each weight that is lost per update.
        chunk: teachers in work at a time; None: as many as fit a fixed share of the device's memory.
        kept: how weights and moments are kept between calls of `train`: "fp32", or "bf16", in half of the memory: the
            weights and second moments stochastically rounded, so that small updates are not lost, the first to nearest.
        slots: moments that there are, a divisor of N; None: each teacher has its own.
        precision: of the products in a network and of its maps: "fp32", or "bf16", which takes less than half of their
            time, where the device has such products. Updates, and what is normalised, are in 32 bits either way.
        state: what `state` returned, to continue from; None: begin.
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
        *,
        kept: str = "fp32",
        slots: int | None = None,
        precision: str = "fp32",
        state: dict[str, Any] | None = None,
    ) -> None:
        self._decay, self._seed, self._slots, self._precision = decay, seed, slots, computed_in(device, precision)
        with torch.device("meta"):
            self._network = build()
        self._own = threading.local()
        self._parts, self._classes, self._rate, self._device, self._chunk = (
            parts, num_classes, learning_rate, device, chunk
        )  # fmt: skip
        self._shapes = {name: like.shape for name, like in self._network.named_parameters()}
        # At the papers' sizes there is no room for two of them.
        self.load(self._begun(PRECISIONS[kept]) if state is None else state)

    def __len__(self) -> int:
        return len(self._parts)

    def train(self, data: PrivateData, grants: Sequence[Grant], fakes: Sequence[Batch], batch_size: int) -> None:
        """One Adam step of every teacher on the GAN's cross-entropy for each of the fakes, each with a grant to read.

        In each step a teacher takes the next `batch_size` records of its part, in turn, or the whole part if it is
        smaller; all teachers take the same fakes.
        """
        batch_size = min(batch_size, self._parts.shape[1])
        made = [self._prepared(batch) for batch in fakes]

        def work(parts: list[slice], go_on: GoOn) -> None:
            for part in parts:
                self._train_part(part, data, grants, made, batch_size, go_on)

        for_each(work, self._chains(2 * batch_size * fakes[0][0][0].numel()), self._device)
        self._steps += len(fakes)

    def _chains(self, numbers: int) -> list[list[slice]]:
        """Returns the parts of `_split` by the moments that they use: each of a list goes on from the one before."""
        chains: dict[int, list[slice]] = {}
        for part in self._split(numbers):
            chains.setdefault(part.start % (self._slots or len(self)), []).append(part)
        return list(chains.values())

    def _train_part(
        self, part: slice, data: PrivateData, grants: Sequence[Grant], fakes: Sequence[Batch], batch_size: int,
        go_on: GoOn,
    ) -> None:  # fmt: skip
        moments = self._slots or len(self)
        group, own = divmod(part.start, moments)
        own = slice(own, own + part.stop - part.start)
        weights, first, second = take(self._weights, part), take(self._first, own), take(self._second, own)
        reals = None
        for step, (grant, batch) in enumerate(zip(grants, fakes, strict=True)):
            go_on()
            # A whole part is the same batch in each step.
            if reals is None or batch_size < self._parts.shape[1]:
                reals = self._prepared(self._reals(data, grant, part, step, batch_size))
            # Where moments are shared, each group of teachers before has counted as well.
            updates = self._steps * (len(self) // moments) + group * len(fakes) + step
            gradients = self._descent(weights, reals, batch)
            adam_update(
                weights, gradients, first, second, updates=updates, learning_rate=self._rate, betas=_BETAS,
                decay=self._decay,
            )  # fmt: skip
        put(self._weights, part, weights, self._noise(self._weights, part, "weights"))
        put(self._first, own, first, None)
        put(self._second, own, second, self._noise(self._second, part, "second"))

    def logits(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns each teacher's logits [N, B] for images [B, C, H, W] and one-hot labels [B, classes]."""
        with torch.no_grad():
            stacks = (self._used(part) for part in self._split(images.numel()))
            if self._is_stacked():
                return torch.cat([self._pass(weights, images, labels).logits for weights in stacks])
            return torch.cat([self._call(weights, images, labels) for weights in stacks])

    def gradients(self, images: torch.Tensor, labels: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yields, for consecutive teachers, directions [n, B, C * H * W] in which images look more real to each.

        That is minus the gradient of each image's generator loss, softplus(-logit), averaged over the batch.
        """
        parts = list(self._split(4 * images.numel()))
        for wave in split(len(parts), _WAVE):
            found: dict[int, torch.Tensor] = {}

            def work(part: slice, go_on: GoOn, found: dict[int, torch.Tensor] = found) -> None:
                go_on()
                found[part.start] = self._directions(part, images, labels)

            for_each(work, parts[wave], self._device)
            yield from (found[part.start] for part in parts[wave])

    def _directions(self, part: slice, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        images, weights = images.detach(), self._used(part)
        if self._is_stacked():
            made = self._pass(weights, images, labels)
            return made.by_images(torch.sigmoid(-made.logits) / len(images)).flatten(2)
        copies = images.expand(part.stop - part.start, *images.shape).requires_grad_()
        loss = F.softplus(-self._call(weights, copies, labels)).sum() / len(images)
        return torch.autograd.grad(loss, copies)[0].flatten(2).neg_()

    @property
    def nbytes(self) -> int:
        """Bytes of all weights and moments."""
        return sum(value.nbytes for stack in (self._weights, self._first, self._second) for value in stack.values())

    def state(self) -> dict[str, Any]:
        """Returns all weights and moments, for a checkpoint."""
        return {"weights": self._weights, "first": self._first, "second": self._second, "steps": self._steps}

    def load(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned."""
        self._weights, self._first, self._second, self._steps = (
            state["weights"], state["first"], state["second"], state["steps"]
        )  # fmt: skip

    def _begun(self, kept: torch.dtype) -> dict[str, Any]:
        # The processor's, as every draw is: a card's would begin with other teachers.
        rng = torch.Generator().manual_seed(derive(self._seed, "teachers"))
        moments = self._slots or len(self)
        weights = {name: self._initial(shape, rng, kept) for name, shape in self._shapes.items()}
        first, second = (
            {
                name: torch.zeros(moments, *shape, dtype=kept, device=self._device)
                for name, shape in self._shapes.items()
            }
            for _ in range(2)
        )
        return {"weights": weights, "first": first, "second": second, "steps": 0}

    def _initial(self, shape: torch.Size, rng: torch.Generator, kept: torch.dtype) -> torch.Tensor:
        if len(shape) > 1 and kept == torch.float32 and not self._slots:
            return torch.empty(len(self), *shape).normal_(generator=rng).mul_(_INITIAL).to(self._device)
        weights = torch.zeros(len(self), *shape, dtype=kept, device=self._device)
        if len(shape) < 2:
            return weights
        # In parts: all of them in 32 bits may be more than there is room for.
        for part in split(self._slots or len(self), 64):
            weights[part] = (torch.randn(part.stop - part.start, *shape, generator=rng) * _INITIAL).to(self._device)
        for group in range(1, len(self) // (self._slots or len(self))):
            weights[group * self._slots : (group + 1) * self._slots] = weights[: self._slots]
        return weights

    def _split(self, numbers: int) -> Iterator[slice]:
        """Yields slices of teachers, so few that their weights and `numbers` more floats each suit the device."""
        size = 4 * (numbers + sum(shape.numel() for shape in self._shapes.values()))
        return split(len(self), self._chunk or max(1, _WORK[self._device.type] // size), self._slots)

    def _reals(self, data: PrivateData, grant: Grant, part: slice, step: int, batch_size: int) -> Batch:
        """Returns the next records [n, B, C, H, W] in [0, 1] of each teacher in `part`, and their labels, one-hot."""
        size = self._parts.shape[1]
        places = (torch.arange(batch_size) + (self._steps + step) * batch_size) % size
        images, classes = data.read(grant, self._parts[part][:, places])
        shape = (-1, batch_size)
        reals = sent(images, self._device).float().div_(255).view(*shape, *images.shape[1:])
        return reals, F.one_hot(sent(classes, self._device), self._classes).float().view(*shape, self._classes)

    def _noise(self, stack: Weights, part: slice, kind: str) -> Weights | None:
        if next(iter(stack.values())).dtype == torch.float32:
            return None
        teachers = range(part.start, part.stop)
        return rounding_noise(self._shapes, teachers, self._device, self._seed, "rounding", kind, self._steps)

    def _used(self, part: slice) -> Weights:
        """Returns the weights [n, ...] of the teachers in `part`, to compute with but not to update."""
        if self._is_stacked() and self._precision == torch.bfloat16:
            return {name: value[part] for name, value in self._weights.items()}
        return take(self._weights, part)

    def _prepared(self, batch: Batch) -> Batch:
        """Returns what a stacked network's first layer takes of images: patches, as they serve for several updates."""
        images, labels = batch
        return (seen(images.to(self._precision)), labels) if self._is_stacked() else batch

    @torch.no_grad()
    def _pass(self, weights: Weights, images: torch.Tensor, labels: torch.Tensor) -> StackedPass:
        """Returns a stacked network's pass through images [B, C, H, W], the same for all teachers."""
        (parts, labels), n = self._prepared((images, labels)), len(next(iter(weights.values())))
        parts, labels = (value.expand(n, *value.shape) for value in (parts, labels))
        return self._network.stacked(weights, parts, labels, [len(images)])

    def _call(self, weights: Weights, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns logits [n, B] for images [B, C, H, W] or [n, B, C, H, W] with labels likewise, one by one in form."""
        network = self._network_of_this_thread()

        def logits(weights: Weights, *inputs: torch.Tensor) -> torch.Tensor:
            return functional_call(network, weights, inputs)

        dims = (0, 0 if images.ndim == 5 else None, 0 if labels.ndim == 3 else None)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == torch.bfloat16):
            return vmap(logits, dims)(weights, images, labels).float()

    def _network_of_this_thread(self) -> nn.Module:
        # A functional call puts its weights into the module meanwhile: two threads would meet in one.
        if not hasattr(self._own, "network"):
            self._own.network = copy.deepcopy(self._network)
        return self._own.network

    def _is_stacked(self) -> bool:
        return CHOICES.batched_teachers and hasattr(self._network, "stacked")

    def _descent(self, weights: Weights, reals: Batch, fakes: Batch) -> list[torch.Tensor]:
        """Returns the gradients of the weights [n, ...]: of softplus(-logit) for reals, softplus(logit) for fakes.

        Both batches are `_prepared`.
        """
        (images, classes), (made, labels) = reals, fakes
        if self._is_stacked():
            return self._stacked_descent(weights, reals, fakes)
        leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
        real, fake = self._call(leaves, images, classes), self._call(leaves, made, labels)
        # A teacher's weights are in its own summand alone, so the sum's gradient is each one's own.
        losses = F.softplus(-real).mean(1) + F.softplus(fake).mean(1)
        return list(torch.autograd.grad(losses.sum(), list(leaves.values())))

    @torch.no_grad()
    def _stacked_descent(self, weights: Weights, reals: Batch, fakes: Batch) -> list[torch.Tensor]:
        both, known = (
            torch.cat([own, made.expand(len(own), *made.shape)], dim=1) for own, made in zip(reals, fakes, strict=True)
        )
        sizes = [reals[0].shape[1], len(fakes[0])]
        made = self._network.stacked(weights, both, known, sizes)
        real, fake = made.logits.split(sizes, dim=1)
        signals = [-torch.sigmoid(-real) / sizes[0], torch.sigmoid(fake) / sizes[1]]
        return made.by_weights(torch.cat(signals, dim=1))
