"""DP-SGD: per-example ghost clipping by Opacus, noise from the ledger's grant."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

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

    Per-example norms come from Opacus' ghost clipping, so per-example gradients are never stored. The network must not
    mix examples (no batch norm), and each of its layers has a bias.

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
        self._hooks = _Hooks(network, max_grad_norm=clip, loss_reduction="sum")
        self._hooks.disable_hooks()
        self._biases = [parameter for name, parameter in network.named_parameters() if name.endswith("bias")]
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
        with warnings.catch_warnings():
            # True of every first layer, and what Opacus' hooks expect.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            self._optimizer.zero_grad(set_to_none=True)
            for part in batch.split(self._chunk or max(1, len(batch))):
                self._clipped_sum(losses, part, 1.0)
            for part in () if public is None else public.split(self._chunk or max(1, len(public))):
                self._clipped_sum(losses, part, weight)
        self._optimizer.pre_step()
        self._add_noise(grant)
        self._optimizer.original_optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

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
            each = self._norms(losses, batch)
            factors = self._hooks.get_clipping_coef()
            finite = torch.isfinite(self._hooks.per_sample_gradient_norms) & torch.isfinite(each)
            if finite.all():
                (weight * factors * each).sum().backward()
                return
            # A factor of 0 would not do: 0 times inf is not zero in the backward pass.
            batch = batch[finite]
        for parameter in self._hooks.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad

    def _norms(self, losses: Callable[[nn.Module, torch.Tensor], torch.Tensor], batch: torch.Tensor) -> torch.Tensor:
        self._hooks.enable_hooks()
        try:
            each = losses(self._hooks, batch)
            # The hooks see every layer on the way; weight gradients of this pass would be thrown away.
            torch.autograd.grad(each.sum(), self._biases, retain_graph=True)
        finally:
            self._hooks.disable_hooks()
        return each


def _convolution_norms(
    layer: nn.Conv2d, activations: list[torch.Tensor], backprops: torch.Tensor
) -> dict[nn.Parameter, torch.Tensor]:
    """Returns per-example gradient norms [B] of an ungrouped convolution's weight and bias (Bu, Mao, Xu 2022, sec. 4).

    The weight's is that of deltas [out, places] @ patches.T [places, in], or, where cheaper, comes from their Gram
    matrices [places, places].
    """
    patches = functional.unfold(activations[0], layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    deltas = backprops.flatten(2)
    (ins, places), outs = patches.shape[1:], deltas.shape[1]
    if places * (ins + outs) < ins * outs:
        # A sum of signed products: where they cancel, single precision would put the norm, and so the clip, too low.
        grams = [part.double().mT @ part.double() for part in (patches, deltas)]
        weight = (grams[0] * grams[1]).sum((1, 2)).clamp(min=0).sqrt().to(deltas.dtype)
    else:
        weight = (deltas @ patches.mT).norm(dim=(1, 2))
    return {layer.weight: weight, layer.bias: deltas.sum(2).norm(dim=1)}


class _Hooks(GradSampleModuleFastGradientClipping):
    """Opacus' hooks; its own norms of a convolution copy each patch several times."""

    NORM_SAMPLERS = {**GradSampleModuleFastGradientClipping.NORM_SAMPLERS, nn.Conv2d: _convolution_norms}
