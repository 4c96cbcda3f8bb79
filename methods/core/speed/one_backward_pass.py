"""DP-SGD's clipped sum from one backward pass.

Opacus' ghost clipping needs a second backward pass, and both of its passes compute weight gradients that nobody reads.
Here one pass yields the derivative by each layer's output, from which both the norms and the clipped sum follow (Bu,
Wang, Zha, Karypis, Differentially Private Optimization on Large Model at Small Cost, ICML 2023): about 60 % of the time
of a step of convolutions on a CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from methods.core.speed.gram_norms import folded_cost, folded_norms, folds, gram_norms
from methods.core.speed.patches import patches

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from opacus.grad_sample import GradSampleModuleFastGradientClipping

# A product in double precision, as the other form of the norm needs, takes this many times a gradient's.
_GRAM_COST = 4
# Gradients that a processor's cache holds.
_AT_ONCE = 32
# A smaller factor, or its product with a derivative, may have few digits, and a row clipped by it end above its clip.
_LEAST_FACTOR = torch.finfo(torch.float32).tiny / torch.finfo(torch.float32).eps


class OneBackwardPass(GradSampleModuleFastGradientClipping):
    """Opacus' wrapper of a network and its clipping factors; the hooks note each layer's input and output.

    The network's layers are linear or plain convolutions, each called once, which do not mix examples.
    """

    def __init__(self, network: nn.Module, clip: float) -> None:
        super().__init__(network, max_grad_norm=clip, loss_reduction="sum")
        self.disable_hooks()

    def add_clipped(
        self,
        losses: Callable[[nn.Module, torch.Tensor], torch.Tensor],
        batch: torch.Tensor,
        weight: float,
        fewest: int = 1,
    ) -> None:
        """Adds each row's gradient, clipped and times `weight`, to the parameters' `grad`; non-finite ones are zero.

        So are those more than 1e31 times as long as the clip. At least `fewest` rows pass the network: copies of the
        first, which count as nothing, fill up what is missing. Raises ValueError for a layer that was not called
        exactly once.
        """
        while len(batch):
            values, gradients = self._gradients(losses, batch, fewest)
            factors = self.get_clipping_coef()
            finite = torch.isfinite(self.per_sample_gradient_norms) & torch.isfinite(values)
            kept = finite & ~(factors < _LEAST_FACTOR)
            if batch.device.type != "cpu":
                # To ask whether any is not would wait for the device, and emptying rows takes it next to no time.
                kept[len(batch) :] = False
                for gradient in gradients:
                    gradient.without(~kept).add_sum(weight * factors.where(kept, 0.0))
                return
            if kept.all():
                for gradient in gradients:
                    gradient.add_sum(weight * factors)
                return
            # A factor of 0 would not do: 0 times inf is not zero in the sum.
            batch = batch[kept]

    def add_hooks(self, **_: Any) -> None:
        """Hooks every layer with parameters."""
        self._calls: list[tuple[nn.Module, torch.Tensor, torch.Tensor]] = []
        for layer in self._module.modules():
            if owns_parameters(layer):
                layer.register_forward_hook(self.capture_activations_hook)

    def capture_activations_hook(
        self, layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> None:
        if self.hooks_enabled:
            self._calls.append((layer, inputs[0].detach(), output))

    def _gradients(
        self, losses: Callable[[nn.Module, torch.Tensor], torch.Tensor], batch: torch.Tensor, fewest: int
    ) -> tuple[torch.Tensor, list[LayerGradients]]:
        """Returns the losses [B] and each layer's per-example gradients; their norms are for `get_clipping_coef`.

        On a processor B is the batch's. On a GPU the rows that fill it up are there as well: products of gradients then
        have the same sizes, and so the same kernels, however many rows there are.
        """
        rows = len(batch) if batch.device.type == "cpu" else max(len(batch), fewest)
        self.enable_hooks()
        try:
            values = losses(self, _filled_up(batch, fewest))
        finally:
            self.disable_hooks()
            calls, self._calls = self._calls, []
        if values.shape != (max(len(batch), fewest),):
            # A mean, whose rows would weigh less the more there are, or a loss for each pair of rows.
            raise ValueError(f"DP-SGD takes one loss a row, [{max(len(batch), fewest)}], got {list(values.shape)}")
        layers, inputs, outputs = zip(*calls, strict=True)
        if sorted(map(id, layers)) != sorted(id(layer) for layer in self._module.modules() if owns_parameters(layer)):
            raise ValueError("DP-SGD takes a network that calls each of its layers once")
        # Of the outputs alone: with a bias, torch computes the sum of its weight's gradients, which nobody reads.
        derivatives = torch.autograd.grad(values.sum(), outputs)
        with torch.no_grad():
            calls = zip(layers, inputs, derivatives, strict=True)
            gradients = [LayerGradients(layer, seen[:rows], by_output[:rows]) for layer, seen, by_output in calls]
            for of_layer in gradients:
                of_layer.store_norms()
        return values.detach()[:rows], gradients


class LayerGradients:
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
        few = ins * outs <= places * (ins + outs)
        cheapest = places**2 * (ins + outs)
        self._folding = None
        if not few and folds(layer):
            folded = folded_cost(layer, derivatives.shape[2:])
            if folded < cheapest:
                cheapest, self._folding = folded, (layer, inputs, derivatives)
        # In single precision before the norm is taken, so that the rows that are clipped are those that are summed.
        self._rows = (self._deltas.mT @ self._patches).flatten(1).float() if few else None
        self._passing = not few and places * ins * outs <= _GRAM_COST * cheapest
        self._bias_rows = self._deltas.sum(1, dtype=torch.float32)

    def store_norms(self) -> None:
        """Sets `_norm_sample` [B] of the layer's parameters, where Opacus looks for them."""
        self._layer.weight._norm_sample = self._weight_norms()
        if self._layer.bias is not None:
            self._layer.bias._norm_sample = self._bias_rows.norm(dim=1)

    def without(self, empty: torch.Tensor) -> LayerGradients:
        """Returns these gradients, those of the rows `empty` bool [B] set to zero, whatever they are."""
        for name in ("_bias_rows",) + (("_deltas", "_patches") if self._rows is None else ("_rows",)):
            values = getattr(self, name)
            setattr(self, name, values.masked_fill(empty.view(-1, *[1] * (values.ndim - 1)), 0.0))
        return self

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

    def _weight_norms(self) -> torch.Tensor:
        if self._rows is not None:
            return self._rows.norm(dim=1)
        if self._passing:
            return self._passing_norms()
        return self._gram_norms()

    def _passing_norms(self) -> torch.Tensor:
        """Makes the gradients for their norms alone, few at once: to keep them would take longer than the sum does."""
        parts = zip(self._deltas.float().split(_AT_ONCE), self._patches.float().split(_AT_ONCE), strict=True)
        return torch.cat([(deltas.mT @ seen).flatten(1).norm(dim=1) for deltas, seen in parts])

    def _gram_norms(self) -> torch.Tensor:
        if self._patches.shape[1] == 1:
            return (self._patches.float().norm(dim=2) * self._deltas.float().norm(dim=2))[:, 0]
        if self._folding:
            return folded_norms(*self._folding)
        return gram_norms(self._patches, self._deltas)


def _filled_up(batch: torch.Tensor, fewest: int) -> torch.Tensor:
    """Returns `fewest` rows or more: those of a batch [B, ...], B above 0, and then copies of the first."""
    missing = fewest - len(batch)
    return torch.cat([batch, batch[:1].expand(missing, *batch.shape[1:])]) if missing > 0 else batch


def owns_parameters(layer: nn.Module) -> bool:
    """Returns whether the layer itself, not one within it, has parameters."""
    return any(True for _ in layer.parameters(recurse=False))
