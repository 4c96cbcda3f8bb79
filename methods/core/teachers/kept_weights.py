"""One tensor for all teachers' values of a name, in 32 bits or in 16: what thousands of them keep between rounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from methods.core.speed.transfers import sent
from workflow.common.seeds import numpy_stream

Stack = Mapping[str, torch.Tensor]
# The upper 16 bits of 32, which make a bfloat16.
_UPPER = -(2**16)


def take(stack: Stack, part: slice) -> dict[str, torch.Tensor]:
    """Returns the values [n, ...] of the teachers in `part` in 32 bits: the stack's memory, or a copy of 16 bits."""
    return {name: value[part].float() for name, value in stack.items()}


def put(stack: Stack, part: slice, values: Stack, noise: Mapping[str, torch.Tensor] | None) -> None:
    """Stores values [n, ...] in the stack, rounded by `noise` where it has 16 bits, to nearest without it.

    Values that are the stack's own memory are there already; others are lost, as they are rounded in place.
    """
    for name, kept in stack.items():
        if kept.dtype == torch.float32:
            continue
        kept[part] = values[name] if noise is None else _round(values[name], noise[name])


def stochastically_rounded(values: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Returns float32 values as bfloat16, up or down to a neighbour so that the mean is the value itself.

    `noise` int32 of the same shape, uniform in 0 .. 2^16 - 1. The error is below one unit in the last of 8 bits,
    2^-7 of the value at most, and 0 in the mean: what is smaller than that and comes again and again is not lost, as it
    is where all is rounded to nearest. Values that are not finite may become any.
    """
    return _round(values.clone(memory_format=torch.contiguous_format), noise).bfloat16()


def _round(values: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    values.view(torch.int32).add_(noise).bitwise_and_(_UPPER)
    return values


def rounding_noise(
    shapes: Mapping[str, torch.Size], teachers: range, device: torch.device, seed: int, *names: object
) -> dict[str, torch.Tensor]:
    """Returns noise for `stochastically_rounded` by name, [n, *shape] for so many teachers.

    Each teacher has its own, whoever else is in work; it is a function of `seed`, `names` and the teacher's number, so
    it is public.
    """
    sizes = [shape.numel() for shape in shapes.values()]
    drawn = np.empty((len(teachers), sum(sizes)), dtype=np.int32)
    for row, teacher in zip(drawn, teachers, strict=True):
        row[:] = _words(len(row), seed, *names, teacher)
    parts = sent(torch.from_numpy(drawn), device).split(sizes, dim=1)
    return {name: part.reshape(-1, *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def _words(count: int, seed: int, *names: object) -> np.ndarray:
    whole = numpy_stream(seed, *names).integers(0, 2**64 - 1, size=-(-count // 4), dtype=np.uint64, endpoint=True)
    return whole.view(np.uint16)[:count]


def split(count: int, most: int, within: int | None = None) -> Iterator[slice]:
    """Yields slices that cover 0 .. count - 1 in order, of at most `most`, none over a multiple of `within`."""
    within = within or count
    for group in range(0, count, within):
        end = min(group + within, count)
        for start in range(group, end, most):
            yield slice(start, min(start + most, end))
