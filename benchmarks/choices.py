"""Choices: what each arrangement for speed buys, by the same work with that one alone turned off, in turn.

All but the precision, which is a setting, are turned off in methods/core/speed/choices.py. It is left out on a
processor without instructions for bfloat16, where both sides would do the same in single precision.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from benchmarks.clock import Comparison, alternate
from benchmarks.contestants import our_steps, our_warm_start, records
from benchmarks.sizes import Case, Sizes
from benchmarks.table import Row, compared
from methods.core.speed.choices import CHOICES, Choices
from methods.core.speed.precision import is_widened

PART = "choices"


@dataclass(frozen=True)
class Choice:
    """An arrangement, the cases of `Sizes` that it is measured on, and how it is turned off.

    `turned_off` names it in `Choices`, or is empty; `hyper` are settings that the plain side takes.
    """

    name: str
    cases: tuple[str, ...]
    turned_off: str = ""
    hyper: Mapping[str, Any] = field(default_factory=dict)

    def off(self) -> contextlib.AbstractContextManager[Choices]:
        """Turns it off for a block in which networks are built and work runs."""
        return CHOICES.changed(**({self.turned_off: False} if self.turned_off else {}))


MEASURED = (
    Choice("bf16", ("resnet64", "gs_wgan_quick", "warm_start_quick"), hyper={"precision": "fp32"}),
    Choice("written gradients", ("resnet64", "gs_wgan_quick"), "written_gradients"),
    Choice("fakes at once", ("gs_wgan_quick",), "fakes_at_once"),
    Choice("folded upsampling", ("resnet64_fp32",), "folded_upsampling"),
    Choice("last layer by places", ("gs_wgan_quick",), "by_places"),
    Choice("channels last", ("resnet64",), "channels_last"),
    Choice("parts of maps", ("resnet64",), "map_parts"),
    Choice("patches", ("resnet64", "gs_wgan_quick"), "patches"),
    Choice("fused Adam", ("resnet64", "gs_wgan_quick"), "fused_adam"),
    Choice("stacks of shards", ("warm_start_quick",), "stacks"),
    Choice("stacks side by side", ("warm_start_quick",), "threads"),
)


def measure(sizes: Sizes, repeats: int, device: torch.device) -> Iterator[list[Row]]:
    """Yields the rows of one choice in one case after the other."""
    for choice in measured(device):
        for name in choice.cases:
            compare = _iterations if name in sizes.iterations else _warm_starts
            case = {**sizes.iterations, **sizes.warm_start}[name]
            comparison = compare(choice, case, sizes, repeats, device)
            yield compared(PART, f"{choice.name} ({name})", comparison, ("with", "without", "gain"))


def count(sizes: Sizes, device: torch.device) -> int:
    """Returns how often `measure` yields."""
    return sum(len(choice.cases) for choice in measured(device))


def measured(device: torch.device) -> list[Choice]:
    """Returns those whose sides differ on a device."""
    return [choice for choice in MEASURED if "precision" not in choice.hyper or not is_widened(device, "bf16")]


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
