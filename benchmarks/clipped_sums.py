"""The sum of clipped per-example gradients in four ways: this suite's, Opacus' two, and torch.func's.

All take the same network, the same loss of each row and the same rows, with one clip over the whole gradient.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from methods.core.speed.choices import CHOICES
from methods.core.speed.one_backward_pass import OneBackwardPass

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping

Losses = Callable[[Callable[..., torch.Tensor], torch.Tensor], torch.Tensor]
Sum = Callable[[], torch.Tensor]
# What Opacus adds to a norm, against a division by zero.
_LEAST = 1e-6


@dataclass(frozen=True)
class Task:
    """What is summed.

    Attributes:
        network: returns a new network, always with the same weights; each way hooks one of its own.
        losses: of a network and rows [B, ...], one loss per row, [B].
        rows: [N, ...] examples.
        clip: L2 bound of an example's gradient, over all parameters.
        chunk: rows at once in this suite's way; 0: all. The peers are asked in more than one size.
    """

    network: Callable[[], nn.Module]
    losses: Losses
    rows: torch.Tensor
    clip: float
    chunk: int

    def parts(self, chunk: int) -> tuple[torch.Tensor, ...]:
        """Returns the rows in parts of `chunk`; 0: in one."""
        return self.rows.split(chunk or len(self.rows))


def ours(task: Task) -> Sum:
    """Returns a call that makes the sum as `PrivateOptimizer` does, flat, [parameters]."""
    network = task.network()
    one_backward_pass = OneBackwardPass(network, task.clip)

    def run() -> torch.Tensor:
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        for part in task.parts(task.chunk):
            one_backward_pass.add_clipped(task.losses, part, 1.0)
        return _flat([parameter.grad for parameter in network.parameters()])

    return run


def by_hooks(task: Task, chunk: int) -> Sum:
    """Returns a call that makes the sum from Opacus' per-example gradients."""
    network = _contiguous(task)
    hooked = GradSampleModule(network, loss_reduction="sum")

    def of(part: torch.Tensor) -> torch.Tensor:
        hooked.zero_grad(set_to_none=True)
        task.losses(hooked, part).sum().backward()
        gradients = [parameter.grad_sample for parameter in network.parameters()]
        for parameter in network.parameters():
            parameter.grad_sample = None
        return _clipped(gradients, task.clip)

    return _contiguous_sum(of, task, chunk)


def by_ghost_clipping(task: Task, chunk: int) -> Sum:
    """Returns a call that makes the sum by Opacus' ghost clipping: a backward pass for the norms, one for the sum."""
    network = _contiguous(task)
    hooked = GradSampleModuleFastGradientClipping(
        network, max_grad_norm=task.clip, use_ghost_clipping=True, loss_reduction="sum"
    )

    def of(part: torch.Tensor) -> torch.Tensor:
        hooked.enable_hooks()
        losses = task.losses(hooked, part)
        losses.sum().backward(retain_graph=True)
        factors = hooked.get_clipping_coef()
        hooked.disable_hooks()
        hooked.zero_grad(set_to_none=True)
        (factors * losses).sum().backward()
        return _flat([parameter.grad for parameter in network.parameters()])

    return _contiguous_sum(of, task, chunk)


def by_torch_func(task: Task, chunk: int) -> Sum:
    """Returns a call that makes the sum from torch.func's gradient, vmapped over the rows."""
    network = _contiguous(task)
    parameters = {name: value.detach() for name, value in network.named_parameters()}

    def loss(values: dict[str, torch.Tensor], row: torch.Tensor) -> torch.Tensor:
        return task.losses(lambda *inputs: torch.func.functional_call(network, values, inputs), row[None])[0]

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))

    def of(part: torch.Tensor) -> torch.Tensor:
        return _clipped(list(gradients(parameters, part).values()), task.clip)

    return _contiguous_sum(of, task, chunk)


PEERS = {"opacus_hooks": by_hooks, "opacus_ghost": by_ghost_clipping, "torch_func": by_torch_func}


def _contiguous(task: Task) -> nn.Module:
    """Returns a network that is not channels last: Opacus' gradients would be wrong (benchmarks/opacus_layout.py)."""
    with CHOICES.changed(channels_last=False):
        return task.network()


def _contiguous_sum(of: Callable[[torch.Tensor], torch.Tensor], task: Task, chunk: int) -> Sum:
    def run() -> torch.Tensor:
        with CHOICES.changed(channels_last=False):
            first, *others = map(of, task.parts(chunk))
            return sum(others, start=first)

    return run


def _clipped(gradients: list[torch.Tensor], clip: float) -> torch.Tensor:
    """Returns the sum of clipped gradients, each tensor [B, ...], flat, by the formula of Opacus' optimiser."""
    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients], dim=1).norm(dim=1)
    factors = (clip / (norms + _LEAST)).clamp(max=1.0)
    return _flat([torch.einsum("i,i...", factors.to(gradient.dtype), gradient) for gradient in gradients])


def _flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.float().flatten() for tensor in tensors])
