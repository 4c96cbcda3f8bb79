"""Losses of critic and auxiliary classifier, as the papers write them.

With gradient penalty (Gulrajani et al. 2017) and drift (Karras et al. 2018).

A scorer is a `Critic`, a `Classifier`, or a `NetworkBatch` of either: a batch has one loss for each network, and its
tensors an extra first dimension, "...". What runs unless `CHOICES.written_gradients` is off computes the same from
gradients written out by hand (methods/core/speed/written_losses.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from methods.core.speed import written_losses
from methods.core.speed.choices import CHOICES
from methods.core.speed.precision import computed_in, mixed_precision

# Images [N, C, H, W] and labels int64 [N] to scores [N].
Score = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


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

    def formula(
        score: Score, real: torch.Tensor, fake: torch.Tensor, labels: torch.Tensor, share: torch.Tensor
    ) -> torch.Tensor:
        on_real, on_fake = score(real, labels), score(fake, labels)
        between = share * real + (1 - share) * fake
        wasserstein = on_fake.mean() - on_real.mean()
        return wasserstein + penalty * _gradient_penalty(score, between, labels) + drift * on_real.square().mean()

    if CHOICES.written_gradients:
        kind = computed_in(real.device, precision)
        return written_losses.critic_loss(critic, real, fake, labels, share, penalty, drift, kind)
    return _traced(formula, critic, precision, True, real, fake, labels, share)


def score_loss(
    classifier: Any, images: torch.Tensor, labels: torch.Tensor, penalty: float, drift: float, precision: str
) -> torch.Tensor:
    """Returns -mean s + penalty * GP at the images + drift * mean s^2 for the auxiliary classifier's s, [...].

    Images [..., N, C, H, W] and labels int64 [..., N]; one loss for each classifier.
    """

    def formula(score: Score, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        scores = score(images, labels)
        return -scores.mean() + penalty * _gradient_penalty(score, images, labels) + drift * scores.square().mean()

    if CHOICES.written_gradients:
        kind = computed_in(images.device, precision)
        return written_losses.score_loss(classifier, images, labels, penalty, drift, kind)
    return _traced(formula, classifier, precision, True, images, labels)


def image_gradients(scorer: Any, fake: torch.Tensor, labels: torch.Tensor, precision: str) -> torch.Tensor:
    """Returns the gradient [..., N, C, H, W] of each fake's loss, minus its score, with respect to that fake.

    One network or many: fakes [N, C, H, W] and labels [N] are the same for all networks of a batch.
    """

    def formula(score: Score, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return -_slope(score, images, labels).detach()

    # Evaluation mode: the power iteration must not move on a forward pass that trains nothing.
    with _evaluating(scorer):
        if CHOICES.written_gradients:
            return written_losses.image_gradients(scorer, fake, labels, computed_in(fake.device, precision))
        if not isinstance(scorer, nn.Module) and fake.ndim == 4:
            fake, labels = scorer.spread(fake), scorer.spread(labels)
        return _traced(formula, scorer, precision, False, fake, labels)


def _gradient_penalty(score: Score, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (_slope(score, images, labels).flatten(1).norm(dim=1) - 1).square().mean()


def _slope(score: Score, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns the gradient [N, C, H, W] of each image's score with respect to it, with the graph that made it."""
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        return torch.autograd.grad(score(images, labels).sum(), images, create_graph=True)[0]


def _traced(
    formula: Callable[..., torch.Tensor], scorer: Any, precision: str, training: bool, *batch: torch.Tensor
) -> torch.Tensor:
    """Returns the formula of a network's scores and its batch; for a `NetworkBatch` those of each, stacked."""

    def of_network(network: Score, *part: torch.Tensor) -> torch.Tensor:
        def score(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            with mixed_precision(images.device, precision):
                return network(images, labels).float()

        return formula(score, *part)

    if isinstance(scorer, nn.Module):
        # Each reading of a weight would iterate its spectral norm: an update iterates it once.
        with parametrize.cached():
            return of_network(scorer, *batch)
    networks = zip(scorer.apart(iterate=training), *batch, strict=True)
    return torch.stack([of_network(network, *part) for network, *part in networks])


@contextlib.contextmanager
def _evaluating(scorer: Any) -> Iterator[None]:
    if not isinstance(scorer, nn.Module):
        yield
        return
    scorer.eval()
    yield
    scorer.train()
