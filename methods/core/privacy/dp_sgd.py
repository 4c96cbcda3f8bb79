"""DP-SGD (Abadi et al. 2016): a sum of clipped per-example gradients, noise from the ledger's grant.

Opacus supplies the optimiser, and the wrapper of the network through which methods/core/speed/one_backward_pass.py gets
the same sum in a fraction of the time.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from methods.core.privacy.grant import Grant, UnaccountedAccess
from methods.core.release import PublicSpec, Release
from methods.core.speed.choices import CHOICES

# Clip of a run without privacy: above any gradient norm that is not a failure already.
_NO_CLIP = 1e12
# What Opacus adds to a norm, against a division by zero.
_LEAST = 1e-6
# Rows are clipped to this share below the release's clip: norms are rounded in single precision, and in thousands of
# random networks a row that was clipped to a bound ended up to 4e-5 above it.
MARGIN = 2.0**-13
# Rows that are summed in single precision, before their sum goes on in double: rounding grows with the rows, and one of
# 4,000 equal records moved a sum by more than the margin leaves.
_MOST_SUMMED = 1500
# Rows that pass the network at once, at least, or all of a chunk. Kernels for fewer are chosen by their number: a row's
# last digits would then follow from how many others there are, and with them which of its units are on, so that one
# record would move the others' gradients. Found of up to 11 rows, and of up to 51 on 32 threads. A GPU's libraries may
# choose by any number, so there all chunks have the same one.
_FEWEST = 64
# Deviations above the expected batch that a GPU's chunks have room for together; a larger batch takes one chunk more.
_ROOM = 4


def release(name: str, hp: Any, public: PublicSpec, noise: float) -> Release:
    """Returns the release of `hp.steps` sums of per-example gradients over Poisson batches, at the noise multiplier.

    Every record joins a batch on its own with probability hp.batch_size / num_train; adjacency is add-or-remove, so the
    sensitivity of the sum is `hp.clip`.
    """
    return Release(
        name=name, kind="gaussian", clip=hp.clip, noise=noise, bounded="sum", rows=public.num_train,
        rate=min(1.0, hp.batch_size / public.num_train), sampling="poisson", max_uses=hp.steps,
        adjacency="add_or_remove",
    )  # fmt: skip


class PrivateOptimizer:
    """Trains a network by DP-SGD with one clip over the whole per-example gradient, on private and public examples.

    The network must not mix examples (no batch norm), and its parameters are those of linear layers and of ungrouped,
    undilated, zero-padded convolutions, each called once. Raises ValueError for any other layer.

    Args:
        network: the network; train it through `step` alone, and call it directly for anything else.
        optimizer: a torch optimiser of its parameters, which receives the sanitised gradient.
        release: a "sum" release; its clip and noise are used, whatever the caller's settings say.
        expected_batch: by what the noisy sum is divided. Public: the true Poisson batch size is not.
        chunk: rows that pass through the network at once; the sum is the same. 0: all, or 1,500 where there are more;
            on a GPU an equal share of the batch to be expected, filled up.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        release: Release,
        expected_batch: int,
        chunk: int = 0,
    ) -> None:
        self._release, self._chunk = release, chunk
        self._network, self._clip = network, release.clip * (1 - MARGIN) if release.kind == "gaussian" else _NO_CLIP
        # Here, for Opacus takes two seconds and 100 MB, and a plan, a sample or a dry run needs none of it.
        from methods.core.speed.one_backward_pass import OneBackwardPass

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from opacus.optimizers import DPOptimizerFastGradientClipping
        # Before Opacus, which refuses some of these by an error of its own.
        for layer in network.modules():
            _check(layer)
        self._one_backward_pass = OneBackwardPass(network, self._clip)
        self._on_processor = next(network.parameters()).device.type == "cpu"
        self._optimizer = DPOptimizerFastGradientClipping(
            optimizer,
            # The grant adds the noise: torch's CPU generator, which Opacus draws from, keeps 32 bits of a seed.
            noise_multiplier=0.0,
            max_grad_norm=self._clip,
            expected_batch_size=expected_batch,
        )

    def step(
        self,
        grant: Grant,
        losses: Callable[[nn.Module, torch.Tensor], torch.Tensor],
        batch: torch.Tensor,
        public: torch.Tensor | None = None,
        weight: float = 1.0,
    ) -> None:
        """Adds each example's clipped gradient, adds noise once, divides by the expected batch, and updates.

        `losses(network, batch)` returns one loss per row, [B], each a function of its own row. Rows of `batch` [B, ...]
        are private records, or public examples (fakes), whose clipped gradients join the sum without touching its
        sensitivity. Rows of `public` are public examples alone, and count `weight` times each. A batch without a row
        still makes a noisy step. Rows with a non-finite gradient count as zero.

        Raises UnaccountedAccess unless `grant` is open and of this optimiser's release.
        """
        if not grant.open or grant.release != self._release:
            raise UnaccountedAccess("a DP-SGD step needs an open grant of its own release")
        for parameter in self._network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        self._summed, self._carried = 0, None
        for part in self._chunks(batch):
            self._add_part(losses, part, 1.0)
        for part in () if public is None else self._chunks(public):
            self._add_part(losses, part, weight)
        self._add_noise(grant)
        # Divides by the expected batch.
        self._optimizer.pre_step()
        self._optimizer.original_optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _add_noise(self, grant: Grant) -> None:
        gradients = [parameter.grad for parameter in self._network.parameters()]
        noisy = grant.noise(self._total())
        for gradient, part in zip(gradients, noisy.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def _chunks(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return rows.split(self._at_once)

    @property
    def _at_once(self) -> int:
        """Most rows of a chunk: a public number, as the size of a Poisson batch is not."""
        most = min((self._chunk if CHOICES.row_chunks else 0) or _MOST_SUMMED, _MOST_SUMMED)
        if self._on_processor:
            return most
        expected = self._release.rows * self._release.rate
        likely = expected + _ROOM * math.sqrt(expected)
        return math.ceil(likely / math.ceil(likely / most))

    @property
    def _fewest(self) -> int:
        """Rows that a chunk is filled up to."""
        return min(_FEWEST, self._at_once) if self._on_processor else self._at_once

    def _add_part(
        self, losses: Callable[[nn.Module, torch.Tensor], torch.Tensor], part: torch.Tensor, weight: float
    ) -> None:
        if self._summed + len(part) > _MOST_SUMMED:
            self._carried, self._summed = self._total().double(), 0
            for parameter in self._network.parameters():
                parameter.grad.zero_()
        self._summed += len(part)
        self._add_clipped(losses, part, weight)

    def _total(self) -> torch.Tensor:
        """Returns the sum of all rows added so far, flat."""
        total = torch.cat([parameter.grad.flatten() for parameter in self._network.parameters()])
        return total if self._carried is None else self._carried + total

    def _add_clipped(
        self, losses: Callable[[nn.Module, torch.Tensor], torch.Tensor], batch: torch.Tensor, weight: float
    ) -> None:
        """Adds each row's gradient, clipped and times `weight`, to the parameters' `grad`; non-finite ones are zero."""
        if CHOICES.one_backward_pass:
            self._one_backward_pass.add_clipped(losses, batch, weight, self._fewest)
            return
        parameters = list(self._network.parameters())
        for row in batch.split(1):
            loss = losses(self._network, row)
            gradients = torch.autograd.grad(loss.sum(), parameters)
            norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
            if not (loss.isfinite().all() and norm.isfinite()):
                continue
            factor = float(weight * (self._clip / (norm + _LEAST)).clamp(max=1.0))
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad.add_(gradient, alpha=factor)


def _check(layer: nn.Module) -> None:
    """Raises ValueError for a layer that mixes examples, or with parameters whose own gradients are unknown here."""
    from methods.core.speed.one_backward_pass import owns_parameters

    # Without parameters it would pass as an activation does, and one record would move all others' gradients.
    if isinstance(layer, _BatchNorm) or (isinstance(layer, _NormBase) and layer.track_running_stats):
        raise ValueError(f"a row's gradient must follow from its own example alone, which {layer} does not give")
    plain = isinstance(layer, nn.Conv2d) and (layer.groups, layer.dilation, layer.padding_mode) == (1, (1, 1), "zeros")
    known = isinstance(layer, nn.Linear) or (plain and not isinstance(layer.padding, str))
    if owns_parameters(layer) and not known:
        raise ValueError(f"DP-SGD takes linear layers and plain convolutions, got {layer}")
