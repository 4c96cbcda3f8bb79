"""One Wasserstein critic update, with gradient penalty (Gulrajani et al. 2017) and drift (Karras et al. 2018)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn.utils import parametrize

Scorer = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def mixed_precision(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Returns an autocast context for "bf16", an empty one for "fp32"."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def gradient_penalty(scorer: Scorer, images: torch.Tensor, labels: torch.Tensor, precision: str) -> torch.Tensor:
    """Returns the mean [...] over images [..., N, C, H, W] of (norm of the score's gradient at the image - 1)^2."""
    images = images.detach().requires_grad_()
    with mixed_precision(images.device, precision):
        scores = scorer(images, labels)
    (gradient,) = torch.autograd.grad(scores.float().sum(), images, create_graph=True)
    return (gradient.flatten(-3).norm(dim=-1) - 1).square().mean(-1)


def critic_loss(
    critic: Scorer,
    real: torch.Tensor,
    fake: torch.Tensor,
    labels: torch.Tensor,
    share: torch.Tensor,
    penalty: float,
    drift: float,
    precision: str,
) -> torch.Tensor:
    """Returns mean D(fake) - mean D(real) + penalty * GP + drift * mean D(real)^2, [...]: one for each critic.

    real and fake are [..., N, C, H, W] and share labels int64 [..., N]; the penalty is taken between each pair, at the
    point that `share` [..., N, 1, 1, 1] in [0, 1] of the real one gives.
    """
    between = share * real + (1 - share) * fake
    # The penalty runs apart: its double backward would otherwise drag the other two thirds of the batch along.
    with mixed_precision(real.device, precision):
        both = critic(torch.cat([real, fake], dim=-4), torch.cat([labels, labels], dim=-1))
    on_real, on_fake = both.float().chunk(2, dim=-1)
    loss = on_fake.mean(-1) - on_real.mean(-1) + drift * on_real.square().mean(-1)
    return loss + penalty * gradient_penalty(critic, between, labels, precision)


def score_loss(
    classifier: Scorer, images: torch.Tensor, labels: torch.Tensor, penalty: float, drift: float, precision: str
) -> torch.Tensor:
    """Returns -mean s + penalty * GP at the images + drift * mean s^2 for the auxiliary classifier's s, [...].

    Images [..., N, C, H, W] and labels int64 [..., N]; one loss for each classifier.
    """
    with mixed_precision(images.device, precision):
        scores = classifier(images, labels).float()
    loss = drift * scores.square().mean(-1) - scores.mean(-1)
    return loss + penalty * gradient_penalty(classifier, images, labels, precision)


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
    """Takes one step of one critic on `critic_loss`, at uniform points; real and fake are [N, C, H, W].

    Spectral norms are computed once for the whole update.
    """
    share = torch.rand(len(real), 1, 1, 1, generator=stream).to(real.device)
    with parametrize.cached():
        loss = critic_loss(critic, real, fake, labels, share, penalty, drift, precision)
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
    """Takes one step of one auxiliary classifier on `score_loss`; images are [N, C, H, W]."""
    with parametrize.cached():
        loss = score_loss(classifier, images, labels, penalty, drift, precision)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
    optimizer.step()


def image_gradients(scorer: Scorer, fake: torch.Tensor, labels: torch.Tensor, precision: str) -> torch.Tensor:
    """Returns the gradient [..., N, C, H, W] of each fake's loss, minus its score, with respect to that fake."""
    fake = fake.detach().requires_grad_()
    # Evaluation mode: the power iteration must not move on a forward pass that trains nothing.
    with _evaluating(scorer), parametrize.cached(), mixed_precision(fake.device, precision):
        scores = scorer(fake, labels)
    (gradient,) = torch.autograd.grad(-scores.float().sum(), fake)
    return gradient.float()


@contextlib.contextmanager
def _evaluating(scorer: Scorer) -> Iterator[None]:
    if not isinstance(scorer, nn.Module):
        yield
        return
    scorer.eval()
    yield
    scorer.train()
