"""One Wasserstein critic update, with gradient penalty (Gulrajani et al. 2017) and drift (Karras et al. 2018).

A scorer is a `Critic`, a `Classifier`, or `Members` of a stack of either.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from methods.core import written_gradients
from methods.core.written_gradients import Parts, Terms

# Precision of convolutions by its name in the settings.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def mixed_precision(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Returns an autocast context for "bf16", an empty one for "fp32"."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def critic_loss(
    critic: Any,
    real: torch.Tensor,
    fake: torch.Tensor,
    labels: torch.Tensor,
    share: torch.Tensor,
    penalty: float,
    drift: float,
    precision: str,
) -> torch.Tensor:
    """Returns mean D(fake) - mean D(real) + penalty * GP + drift * mean D(real)^2, [...]: one for each critic.

    real and fake are [..., N, C, H, W] and share labels int64 [..., N]; GP is the mean of (norm of D's gradient at the
    image - 1)^2, taken between each pair, at the point that `share` [..., N, 1, 1, 1] in [0, 1] of the real one gives.
    """
    images = torch.cat([real, fake, share * real + (1 - share) * fake], dim=-4)
    each = labels.shape[-1]
    signs = torch.tensor([-1 / each, 1 / each], device=real.device).repeat_interleave(each)
    terms = Terms(signs, each, each, drift, penalty)
    return _loss(critic, images, torch.cat([labels] * 3, dim=-1), terms, precision)


def score_loss(
    classifier: Any, images: torch.Tensor, labels: torch.Tensor, penalty: float, drift: float, precision: str
) -> torch.Tensor:
    """Returns -mean s + penalty * GP at the images + drift * mean s^2 for the auxiliary classifier's s, [...].

    Images [..., N, C, H, W] and labels int64 [..., N]; one loss for each classifier.
    """
    each = labels.shape[-1]
    signs = torch.full((each,), -1 / each, device=images.device)
    return _loss(classifier, images, labels, Terms(signs, each, each, drift, penalty), precision)


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
    """Takes one step of one critic on `critic_loss`, at uniform points; real and fake are [N, C, H, W]."""
    share = torch.rand(len(real), 1, 1, 1, generator=stream).to(real.device)
    _descend(critic_loss(critic, real, fake, labels, share, penalty, drift, precision), optimizer)


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
    _descend(score_loss(classifier, images, labels, penalty, drift, precision), optimizer)


def image_gradients(scorer: Any, fake: torch.Tensor, labels: torch.Tensor, precision: str) -> torch.Tensor:
    """Returns the gradient [..., N, C, H, W] of each fake's loss, minus its score, with respect to that fake.

    One network or many: fakes [N, C, H, W] and labels [N] are the same for all members of a stack.
    """
    # Evaluation mode: the power iteration must not move on a forward pass that trains nothing.
    with _evaluating(scorer):
        parts = _parts(scorer, training=False)
    gradients = written_gradients.image_gradients(parts, fake, labels, DTYPES[precision])
    return -(gradients[0] if isinstance(scorer, nn.Module) else gradients)


def _loss(scorer: Any, images: torch.Tensor, labels: torch.Tensor, terms: Terms, precision: str) -> torch.Tensor:
    single = isinstance(scorer, nn.Module)
    images, labels = (images[None], labels[None]) if single else (images, labels)
    losses = written_gradients.loss(_parts(scorer, training=True), images, labels, terms, DTYPES[precision])
    return losses[0] if single else losses


def _parts(scorer: Any, training: bool) -> Parts:
    if not isinstance(scorer, nn.Module):
        return scorer.parts(iterate=training)
    # Each reading of a weight would iterate its spectral norm.
    with parametrize.cached():
        return scorer.parts(lambda name: attrgetter(name)(scorer)[None])


def _descend(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


@contextlib.contextmanager
def _evaluating(scorer: Any) -> Iterator[None]:
    if not isinstance(scorer, nn.Module):
        yield
        return
    scorer.eval()
    yield
    scorer.train()
