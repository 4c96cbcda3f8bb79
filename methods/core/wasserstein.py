"""One Wasserstein critic update, with gradient penalty (Gulrajani et al. 2017) and drift (Karras et al. 2018)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import parametrize

Scorer = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def mixed_precision(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Returns an autocast context for "bf16", an empty one for "fp32"."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def gradient_penalty(scorer: Scorer, images: torch.Tensor, labels: torch.Tensor, precision: str) -> torch.Tensor:
    """Returns the mean over images [N, C, H, W] of (norm of the score's gradient at the image - 1)^2."""
    images = images.detach().requires_grad_()
    with mixed_precision(images.device, precision):
        scores = scorer(images, labels)
    (gradient,) = torch.autograd.grad(scores.float().sum(), images, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def critic_update(
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    real: torch.Tensor,
    fake: torch.Tensor,
    labels: torch.Tensor,
    stream: torch.Generator,
    penalty: float,
    drift: float,
    precision: str,
) -> None:
    """Takes one step on mean D(fake) - mean D(real) + penalty * GP + drift * mean D(real)^2.

    real and fake are [N, C, H, W] and share labels int64 [N]; the penalty is taken at a uniform point between each
    pair. Spectral norms are computed once for the whole update.
    """
    share = torch.rand(len(real), 1, 1, 1, generator=stream).to(real.device)
    between = share * real + (1 - share) * fake
    with parametrize.cached():
        # The penalty runs apart: its double backward would otherwise drag the other two thirds of the batch along.
        with mixed_precision(real.device, precision):
            on_real, on_fake = critic(torch.cat([real, fake]), labels.repeat(2)).float().chunk(2)
        loss = on_fake.mean() - on_real.mean() + drift * on_real.square().mean()
        loss = loss + penalty * gradient_penalty(critic, between, labels, precision)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
    optimizer.step()


def score_update(
    classifier: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    penalty: float,
    drift: float,
    precision: str,
) -> None:
    """Takes one step on -mean s + penalty * GP at the images + drift * mean s^2 for the auxiliary classifier's s."""
    with parametrize.cached():
        with mixed_precision(images.device, precision):
            scores = classifier(images, labels).float()
        loss = drift * scores.square().mean() - scores.mean()
        loss = loss + penalty * gradient_penalty(classifier, images, labels, precision)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
    optimizer.step()


def image_gradients(scorer: nn.Module, fake: torch.Tensor, labels: torch.Tensor, precision: str) -> torch.Tensor:
    """Returns the gradient [N, C, H, W] of each fake's loss, minus its score, with respect to that fake."""
    fake = fake.detach().requires_grad_()
    # Evaluation mode: the power iteration must not move on a forward pass that trains nothing.
    scorer.eval()
    with parametrize.cached(), mixed_precision(fake.device, precision):
        scores = scorer(fake, labels)
    (gradient,) = torch.autograd.grad(-scores.float().sum(), fake)
    scorer.train()
    return gradient.float()
