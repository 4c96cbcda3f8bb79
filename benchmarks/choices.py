"""Choices: what each arrangement for speed buys, by the same work with that one alone turned off, in turn.

An arrangement is turned off by what the engine itself offers: a setting, or the constant that decides where it pays.
Where neither does it, the plain form stands in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import nn

from benchmarks import textbook
from benchmarks.clock import Comparison, alternate
from benchmarks.contestants import our_steps, our_warm_start, records
from benchmarks.sizes import Case, Sizes
from benchmarks.table import Row, compared
from methods.core import nets, sharded_gan, shards, warm_critics, wasserstein, written_gradients

PART = "choices"
_NEVER = 2**62
# As they are before any of them is turned off.
_fakes_for, _build_generator = sharded_gan._ShardedGAN.fakes_for, sharded_gan.build_generator
Off = Callable[[], contextlib.AbstractContextManager]


@dataclass(frozen=True)
class Choice:
    """An arrangement, the cases of `Sizes` that it is measured on, and how it is turned off.

    `hyper` are settings, `off` a context in which networks are built and work runs.
    """

    name: str
    cases: tuple[str, ...]
    hyper: Mapping[str, Any] = field(default_factory=dict)
    off: Off = contextlib.nullcontext


def measure(sizes: Sizes, repeats: int, device: torch.device) -> Iterator[list[Row]]:
    """Yields the rows of one choice in one case after the other."""
    for choice in CHOICES:
        for name in choice.cases:
            compare = _iterations if name in sizes.iterations else _warm_starts
            found = compare(choice, {**sizes.iterations, **sizes.warm_start}[name], sizes, repeats, device)
            yield compared(PART, f"{choice.name} ({name})", found, ("with", "without", "gain"))


def count(sizes: Sizes) -> int:
    """Returns how often `measure` yields."""
    return sum(len(choice.cases) for choice in CHOICES)


def _iterations(choice: Choice, case: Case, sizes: Sizes, repeats: int, device: torch.device) -> Comparison:
    data = records(sizes.num_train)
    with our_steps(case, *data, device) as engine, contextlib.ExitStack() as stack:
        with choice.off():
            plain = stack.enter_context(our_steps(_without(choice, case), *data, device))

        def without() -> None:
            with choice.off():
                plain()

        return alternate(engine, without, device, repeats, sizes.seconds)


def _warm_starts(choice: Choice, case: Case, sizes: Sizes, repeats: int, device: torch.device) -> Comparison:
    data = records(case.hp.num_shards * sizes.shard_size)

    def without() -> None:
        with choice.off():
            our_warm_start(_without(choice, case), *data, device)

    return alternate(partial(our_warm_start, case, *data, device), without, device, repeats, sizes.seconds)


def _without(choice: Choice, case: Case) -> Case:
    return replace(case, hyper={**case.hyper, **choice.hyper})


def _set(place: Any, name: str, value: Any) -> Off:
    """Returns a context in which the attribute `name` of a module or class is `value`."""
    return partial(mock.patch.object, place, name, value)


@contextlib.contextmanager
def _traced_gradients() -> Iterator[None]:
    """Lets autograd make the gradients: three passes through the critic, and a second backward pass for the penalty."""

    def critic_loss(critic: nn.Module, *batch_and_share: Any) -> torch.Tensor:
        *batch, penalty, drift, precision = batch_and_share
        with wasserstein.mixed_precision(batch[0].device, precision):
            return textbook.critic_loss(critic, *batch, _Weights(penalty, drift))

    def image_gradients(scorer: nn.Module, fake: torch.Tensor, labels: torch.Tensor, precision: str) -> torch.Tensor:
        with wasserstein.mixed_precision(fake.device, precision), torch.enable_grad():
            return textbook.image_gradients(scorer, fake, labels)

    with _set(wasserstein, "critic_loss", critic_loss)(), _set(sharded_gan, "image_gradients", image_gradients)():
        yield


@dataclass(frozen=True)
class _Weights:
    gradient_penalty: float
    drift: float


def _one_by_one(self: Any, labels: torch.Tensor, stream: torch.Generator) -> torch.Tensor:
    """Makes the fakes of each critic update in a pass of their own."""
    return torch.cat([_fakes_for(self, part, stream) for part in labels.split(self.hp.critic_batch)])


def _contiguous_generator(*arguments: Any, **options: Any) -> nn.Module:
    return _build_generator(*arguments, **options).to(memory_format=torch.contiguous_format)


def _plain_adam(parameters: Any, learning_rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=learning_rate, betas=(0.5, 0.9))


@contextlib.contextmanager
def _plain_optimiser() -> Iterator[None]:
    with _set(sharded_gan, "adam", _plain_adam)(), _set(shards, "adam", _plain_adam)():
        yield


def _in_turn(work: Callable[[Any, Callable[[], None]], None], items: Any, device: torch.device) -> None:
    """Takes one stack after the other, each with all threads."""
    for item in items:
        work(item, lambda: None)


_GAN = sharded_gan._ShardedGAN
CHOICES = (
    Choice("bf16", ("resnet64", "gs_wgan_quick", "warm_start_quick"), hyper={"precision": "fp32"}),
    Choice("written gradients", ("resnet64", "gs_wgan_quick"), off=_traced_gradients),
    Choice("fakes at once", ("gs_wgan_quick",), off=_set(_GAN, "fakes_for", _one_by_one)),
    Choice("folded upsampling", ("resnet64_fp32",), off=_set(nets, "_LARGE", _NEVER)),
    Choice("last layer by places", ("gs_wgan_quick",), off=_set(nets, "_by_places", lambda layer, x: layer(x))),
    Choice("channels last", ("resnet64",), off=_set(sharded_gan, "build_generator", _contiguous_generator)),
    Choice("parts of maps", ("resnet64",), off=_set(sharded_gan, "_MAP_BYTES", _NEVER)),
    Choice("patches", ("resnet64", "gs_wgan_quick"), off=_set(written_gradients, "_WIDE", _NEVER)),
    Choice("fused Adam", ("resnet64", "gs_wgan_quick"), off=_plain_optimiser),
    Choice("stacks of shards", ("warm_start_quick",), off=_set(shards, "_CHUNK", 1)),
    Choice("stacks side by side", ("warm_start_quick",), off=_set(warm_critics, "for_each", _in_turn)),
)
