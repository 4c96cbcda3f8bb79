"""How many bits networks compute in: what a setting allows, where the device has instructions for it."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Mapping
from typing import Any

import torch

# By its name in the settings.
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
# How a run is called that went on, on another processor, in another precision than before.
BOTH = "bf16 and fp32"


def computed_in(device: torch.device, precision: str) -> torch.dtype:
    """Returns the type of the convolutions and products that a setting `precision`, "fp32" or "bf16", asks for.

    It is float32 for "bf16" too on a processor without instructions for bfloat16, where libraries take
    several times as long for it as for single precision (docs/speed.md), which is no less precise.
    """
    return torch.float32 if is_widened(device, precision) else PRECISIONS[precision]


def is_widened(device: torch.device, precision: str | None) -> bool:
    """Returns whether a device computes in single precision what a setting allows to be in bfloat16."""
    return precision == "bf16" and device.type == "cpu" and not processor_has_bfloat16()


def computes_in(device: torch.device, settings: Any) -> str:
    """Returns the name of what a device computes these settings in; empty for those that do not choose one of these.

    Settings are an object or a mapping.
    """
    precision = _chosen(settings)
    if precision not in tuple(PRECISIONS):
        return ""
    return "fp32" if is_widened(device, precision) else precision


def together(before: str, now: str) -> str:
    """Returns what a run was computed in: `before` by processes that ended, `now` by the next one; empty: by none."""
    return BOTH if before and now and before != now else now or before


def tell_if_widened(device: torch.device, settings: Any) -> None:
    """Says on stderr where a device is to compute in single precision what `settings` allow to be in bfloat16.

    Settings are an object or a mapping; those without `precision` are computed in what they always are.
    """
    if is_widened(device, _chosen(settings)):
        print("computing in single precision: this processor has no instructions for bfloat16", file=sys.stderr)


def _chosen(settings: Any) -> Any:
    return settings.get("precision") if isinstance(settings, Mapping) else getattr(settings, "precision", None)


@functools.cache
def processor_has_bfloat16() -> bool:
    """Returns whether this processor multiplies numbers of 16 bits, by any of the extensions that are named for it."""
    return any(there for name, there in torch.cpu.get_capabilities().items() if name.endswith("bf16"))


def mixed_precision(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Returns an autocast context for what is computed in bfloat16, an empty one for single precision."""
    kind = computed_in(device, precision)
    return torch.autocast(device.type, kind) if kind == torch.bfloat16 else contextlib.nullcontext()
