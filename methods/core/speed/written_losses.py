"""The losses of `sharded.losses` by gradients written out: all images in one pass, all networks of a batch together."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from methods.core.speed import written_gradients
from methods.core.speed.written_gradients import Parts, Terms


def critic_loss(
    critic: Any,
    real: torch.Tensor,
    fake: torch.Tensor,
    labels: torch.Tensor,
    share: torch.Tensor,
    penalty: float,
    drift: float,
    dtype: torch.dtype,
) -> torch.Tensor:
    """As `sharded.losses.critic_loss`, with convolutions in `dtype`."""
    images = torch.cat([real, fake, share * real + (1 - share) * fake], dim=-4)
    size = labels.shape[-1]
    signs = torch.cat([torch.full((size,), sign / size, device=real.device) for sign in (-1, 1)])
    return _loss(critic, images, torch.cat([labels] * 3, dim=-1), Terms(signs, size, size, drift, penalty), dtype)


def score_loss(
    classifier: Any, images: torch.Tensor, labels: torch.Tensor, penalty: float, drift: float, dtype: torch.dtype
) -> torch.Tensor:
    """As `sharded.losses.score_loss`, with convolutions in `dtype`."""
    size = labels.shape[-1]
    signs = torch.full((size,), -1 / size, device=images.device)
    return _loss(classifier, images, labels, Terms(signs, size, size, drift, penalty), dtype)


def image_gradients(scorer: Any, fake: torch.Tensor, labels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """As `sharded.losses.image_gradients`, with convolutions in `dtype`; a module must be in evaluation mode."""
    gradients = written_gradients.image_gradients(_parts(scorer, training=False), fake, labels, dtype)
    return -(gradients[0] if isinstance(scorer, nn.Module) else gradients)


def _loss(scorer: Any, images: torch.Tensor, labels: torch.Tensor, terms: Terms, dtype: torch.dtype) -> torch.Tensor:
    single = isinstance(scorer, nn.Module)
    images, labels = (images[None], labels[None]) if single else (images, labels)
    losses = written_gradients.loss(_parts(scorer, training=True), images, labels, terms, dtype)
    return losses[0] if single else losses


def _parts(scorer: Any, training: bool) -> Parts:
    if not isinstance(scorer, nn.Module):
        return scorer.parts(iterate=training)
    # Each reading of a weight would iterate its spectral norm.
    with parametrize.cached():
        return scorer.parts(lambda name: attrgetter(name)(scorer)[None])
