"""Networks of the gradient-sanitised GAN as its settings and the run's seed say."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from methods.core.method import Context
from methods.core.nets import Critic, DCGANGenerator, ResNetGenerator
from methods.core.streams import seeded


def build_critic(hp: Any, context: Context, plain: bool = False) -> nn.Module:
    """Returns the critic that every shard starts from, on the context's device; `plain`: without spectral norm."""
    with seeded(context.seed, "critic"):
        shape, classes = context.public.image_shape, context.public.num_classes
        return Critic(shape, classes, hp.critic_width, hp.spectral_norm and not plain).to(context.device)


def build_generator(hp: Any, context: Context, width: int, *names: object, plain: bool = False) -> nn.Module:
    """Returns a generator on the context's device, its weights drawn from the named stream; `plain` as above."""
    shape, classes = context.public.image_shape, context.public.num_classes
    with seeded(context.seed, *names):
        if hp.generator == "dcgan":
            network = DCGANGenerator(shape, classes, width)
        else:
            network = ResNetGenerator(shape, classes, width, hp.spectral_norm and not plain)
    return network.to(context.device, memory_format=torch.channels_last)
