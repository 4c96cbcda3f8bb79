"""DP-SGD: per-example clipping after Opacus, in one backward pass; noise from the ledger's grant.

Opacus supplies the network wrapper, the clipping factors and the optimiser. Its ghost clipping needs a second backward
pass, and both of its passes compute weight gradients that nobody reads. Here one pass yields the derivative by each
layer's output, from which both the norms and the clipped sum follow (Bu, Wang, Zha, Karypis, Differentially Private
Optimization on Large Model at Small Cost, ICML 2023): about 60 % of the time of a step of convolutions on a CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from methods.core.patches import patches
from methods.core.privacy import Budget, Grant, PublicSpec, Release, UnaccountedAccess, calibrate

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizerFastGradientClipping

# Clip of a run without privacy: above any gradient norm that is not a failure already.
_NO_CLIP = 1e12


def plan(name: str, *, clip: float, batch_size: int, steps: int, public: PublicSpec, budget: Budget) -> Release:
    """Returns the release of `steps` sums of per-example gradients over Poisson batches, its noise found for `budget`.

    Every record joins a batch on its own with probability batch_size / num_train; adjacency is add-or-remove, so the
    sensitivity of the sum is `clip`. Raises UserError where no noise fits.
    """
    rate = min(1.0, batch_size / public.num_train)
    kind = "none" if budget.accounting == "none" else "gaussian"

    def release(noise: float) -> Release:
        return Release(
            name, kind, clip, noise, "sum", public.num_train, rate, "poisson", steps, adjacency="add_or_remove"
        )

    return release(calibrate(lambda noise: (release(noise),), budget))


class PrivateOptimizer:
    """Trains a network by DP-SGD with one clip over the whole per-example gradient, on private and public examples.

    The network must not mix examples (no batch norm), and its parameters are those of linear layers and of ungrouped,
    undilated, zero-padded convolutions, each called once. Raises ValueError for any other layer.

    Args:
        network: the network; train it through `step` alone, and call it directly for anything else.
        optimizer: a torch optimiser of its parameters, which receives the sanitised gradient.
        release: a "sum" release; its clip and noise are used, whatever the caller's settings say.
        expected_batch: by what the noisy sum is divided. Public: the true Poisson batch size is not.
        chunk: rows that pass through the network at once; the sum is the same. 0: all.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        release: Release,
        expected_batch: int,
        chunk: int = 0,
    ) -> None:
        self._release, self._expected_batch, self._chunk = release, expected_batch, chunk
        clip = release.clip if release.kind == "gaussian" else _NO_CLIP
        # Before Opacus, which refuses some of these by an error of its own.
        for layer in network.modules():
            _check(layer)
        self._hooks = _Hooks(network, max_grad_norm=clip, loss_reduction="sum")
        self._optimizer = DPOptimizerFastGradientClipping(
            optimizer,
            # The grant adds the noise: torch's CPU generator, which Opacus draws from, keeps 32 bits of a seed.
            noise_multiplier=0.0,
            max_grad_norm=clip,
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
        for parameter in self._hooks.parameters():
            parameter.grad = torch.zeros_like(parameter)
        for part in batch.split(self._chunk or max(1, len(batch))):
            self._clipped_sum(losses, part, 1.0)
        for part in () if public is None else public.split(self._chunk or max(1, len(public))):
            self._clipped_sum(losses, part, weight)
        self._optimizer.pre_step()
        self._add_noise(grant)
        self._optimizer.original_optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _add_noise(self, grant: Grant) -> None:
        gradients = [parameter.grad for parameter in self._hooks.parameters()]
        noise = grant.gaussian_noise(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, noise.split([gradient.numel() for gradient in gradients]), strict=True):
            # pre_step has divided the sum by the expected batch already.
            gradient.add_(part.view_as(gradient), alpha=1 / self._expected_batch)

    def _clipped_sum(
        self, losses: Callable[[nn.Module, torch.Tensor], torch.Tensor], batch: torch.Tensor, weight: float
    ) -> None:
        while len(batch):
            each, gradients = self._hooks.gradients(losses, batch)
            factors = self._hooks.get_clipping_coef()
            finite = torch.isfinite(self._hooks.per_sample_gradient_norms) & torch.isfinite(each)
            if finite.all():
                for gradient in gradients:
                    gradient.add_sum(weight * factors)
                return
            # A factor of 0 would not do: 0 times inf is not zero in the sum.
            batch = batch[finite]


class _Hooks(GradSampleModuleFastGradientClipping):
    """Opacus' wrapper of a network and its clipping factors; the hooks note each layer's input and output."""

    def __init__(self, network: nn.Module, **settings: Any) -> None:
        super().__init__(network, **settings)
        self.disable_hooks()

    def add_hooks(self, **_: Any) -> None:
        """Hooks every layer with parameters."""
        self._calls: list[tuple[nn.Module, torch.Tensor, torch.Tensor]] = []
        for layer in self._module.modules():
            if _owns(layer):
                layer.register_forward_hook(self.capture_activations_hook)

    def capture_activations_hook(
        self, layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> None:
        if self.hooks_enabled:
            self._calls.append((layer, inputs[0].detach(), output))

    def gradients(
        self, losses: Callable[[nn.Module, torch.Tensor], torch.Tensor], batch: torch.Tensor
    ) -> tuple[torch.Tensor, list[_Gradients]]:
        """Returns the losses [B] and each layer's per-example gradients; their norms are for `get_clipping_coef`."""
        self.enable_hooks()
        try:
            each = losses(self, batch)
        finally:
            self.disable_hooks()
            calls, self._calls = self._calls, []
        layers, inputs, outputs = zip(*calls, strict=True)
        if sorted(map(id, layers)) != sorted(id(layer) for layer in self._module.modules() if _owns(layer)):
            raise ValueError("DP-SGD takes a network that calls each of its layers once")
        # Of the outputs alone: with a bias, torch computes the sum of its weight's gradients, which nobody reads.
        derivatives = torch.autograd.grad(each.sum(), outputs)
        with torch.no_grad():
            found = [_Gradients(*call) for call in zip(layers, inputs, derivatives, strict=True)]
            for gradients in found:
                gradients.store_norms()
        return each.detach(), found


class _Gradients:
    """One layer's gradients: of each example, deltas.T @ patches, [out, in], where deltas are the loss's derivative.

    Args:
        layer: a linear layer, or a convolution, seen as a linear layer of the patches at its places.
        inputs: what it was called with, [B, ..., in] or [B, channels, height, width].
        derivatives: each example's loss by its output [B, ..., out] or [B, out, height, width].
    """

    def __init__(self, layer: nn.Module, inputs: torch.Tensor, derivatives: torch.Tensor) -> None:
        # Under autocast the layer has seen its input in the output's precision.
        self._layer, size, inputs = layer, len(inputs), inputs.to(derivatives.dtype)
        convolution = isinstance(layer, nn.Conv2d)
        seen = patches(inputs, layer.kernel_size, layer.stride, layer.padding) if convolution else inputs
        deltas = derivatives.permute(0, 2, 3, 1) if convolution else derivatives
        self._patches = seen.reshape(size, -1, seen.shape[-1])
        self._deltas = deltas.reshape(size, -1, deltas.shape[-1])
        places, ins, outs = self._patches.shape[1], self._patches.shape[2], self._deltas.shape[2]
        # Where they are few numbers, the gradients themselves; both forms of the norm are in Bu, Mao, Xu 2022, sec. 4.
        explicit = ins * outs <= places * (ins + outs)
        # In single precision before the norm is taken, so that the rows that are clipped are those that are summed.
        self._rows = (self._deltas.mT @ self._patches).flatten(1).float() if explicit else None
        self._bias_rows = self._deltas.sum(1, dtype=torch.float32)

    def store_norms(self) -> None:
        """Sets `_norm_sample` [B] of the layer's parameters, where Opacus looks for them."""
        self._layer.weight._norm_sample = self._gram_norms() if self._rows is None else self._rows.norm(dim=1)
        if self._layer.bias is not None:
            self._layer.bias._norm_sample = self._bias_rows.norm(dim=1)

    def add_sum(self, factors: torch.Tensor) -> None:
        """Adds the sum of the gradients, each times its factor [B], to the parameters' `grad`."""
        total = self._weighed(factors) if self._rows is None else factors @ self._rows
        weight, bias = self._layer.weight, self._layer.bias
        if weight.ndim == 4:
            total = total.view(len(weight), *weight.shape[2:], weight.shape[1]).permute(0, 3, 1, 2)
        weight.grad += total.view_as(weight)
        if bias is not None:
            bias.grad += factors @ self._bias_rows

    def _weighed(self, factors: torch.Tensor) -> torch.Tensor:
        deltas = self._deltas.float() * factors[:, None, None]
        return deltas.flatten(0, 1).T @ self._patches.float().flatten(0, 1)

    def _gram_norms(self) -> torch.Tensor:
        if self._patches.shape[1] == 1:
            return (self._patches.float().norm(dim=2) * self._deltas.float().norm(dim=2))[:, 0]
        # A sum of signed products: where they cancel, single precision would put the norm, and so the clip, too low.
        wide = [part.double() for part in (self._patches, self._deltas)]
        grams = [part @ part.mT for part in wide]
        return (grams[0] * grams[1]).sum((1, 2)).clamp(min=0).sqrt().float()


def _owns(layer: nn.Module) -> bool:
    return any(True for _ in layer.parameters(recurse=False))


def _check(layer: nn.Module) -> None:
    """Raises ValueError for a layer with parameters whose per-example gradients are unknown here."""
    plain = isinstance(layer, nn.Conv2d) and (layer.groups, layer.dilation, layer.padding_mode) == (1, (1, 1), "zeros")
    known = isinstance(layer, nn.Linear) or (plain and not isinstance(layer.padding, str))
    if _owns(layer) and not known:
        raise ValueError(f"DP-SGD takes linear layers and plain convolutions, got {layer}")
