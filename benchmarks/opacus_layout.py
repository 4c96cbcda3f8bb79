"""`python -m benchmarks.opacus_layout`: per-example gradients of a convolution on channels-last maps, by Opacus and us.

Prints the norms of both next to autograd's, one example at a time, for maps in either layout. Where Opacus' differ from
autograd's, a clip by them bounds nothing. No private record passes Opacus' gradients in this suite.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import nn

from methods.core.speed.one_backward_pass import OneBackwardPass
from workflow.common.errors import command
from workflow.common.options import Parser

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from opacus.grad_sample import GradSampleModule

LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
# Relative difference of norms that rounding explains in single precision, with room.
ROUNDING = 1e-4
Norms = Callable[[nn.Module, torch.Tensor], torch.Tensor]


def network() -> nn.Conv2d:
    """Returns a convolution with fixed weights."""
    torch.manual_seed(0)
    return nn.Conv2d(8, 16, 4, 2, 1)


def maps(layout: torch.memory_format) -> torch.Tensor:
    """Returns fixed maps [2, 8, 14, 14]."""
    return torch.randn(2, 8, 14, 14, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout)


def losses(network: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """Returns one loss per image, [B]."""
    return network(images).square().flatten(1).sum(1)


def by_autograd(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Returns the norm of each image's gradient, [B], from a backward pass of its own."""
    parameters = list(network.parameters())
    each = (torch.autograd.grad(losses(network, image).sum(), parameters) for image in images.split(1))
    return torch.stack([torch.cat([gradient.flatten() for gradient in gradients]).norm() for gradients in each])


def by_opacus(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Returns the same from Opacus' hooks."""
    with warnings.catch_warnings():
        # Of a hook on a module whose inputs need no gradient.
        warnings.simplefilter("ignore")
        losses(GradSampleModule(network, loss_reduction="sum"), images).sum().backward()
    return torch.cat([parameter.grad_sample.flatten(1) for parameter in network.parameters()], dim=1).norm(dim=1)


def by_this_suite(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Returns the same from methods/core/speed/one_backward_pass.py, which DP-SGD clips by."""
    one_backward_pass = OneBackwardPass(network, clip=1.0)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    one_backward_pass.add_clipped(losses, images, 1.0)
    return one_backward_pass.per_sample_gradient_norms


WAYS: dict[str, Norms] = {"autograd": by_autograd, "this suite": by_this_suite, "Opacus": by_opacus}


def is_right(way: Norms, layout: str) -> bool:
    """Returns whether a way's norms are autograd's, within rounding."""
    found, expected = (norms(network(), maps(LAYOUTS[layout])) for norms in (way, by_autograd))
    return bool(torch.allclose(found, expected, rtol=ROUNDING))


@command
def main(argv: list[str] | None = None) -> None:
    Parser(prog="python -m benchmarks.opacus_layout", description=__doc__).parse_args(argv)
    print(f"norms of two per-example gradients; Opacus {version('opacus')}, torch {version('torch')}")
    for layout, form in LAYOUTS.items():
        for name, norms in WAYS.items():
            shown = ", ".join(f"{value:.1f}" for value in norms(network(), maps(form)).tolist())
            print(f"{layout}: {name} {shown} ({'right' if is_right(norms, layout) else 'wrong'})")


if __name__ == "__main__":
    raise SystemExit(main())
