"""Roofline: the rate of one iteration of the engine next to what this machine reaches in its best convolution.

The iteration's FLOPs are counted while it runs, by torch's FlopCounterMode: they are those that the engine really
executes. Work that it avoids does not count as speed here, so an iteration can become faster and its rate fall; the
throughput part shows the former. A fused or compiled operation that the counter does not know would count as nothing,
which lowers the rate, never raises it.

On a processor the time that passes within convolutions and products is measured too: the rate there is what the
iteration would reach if all else took no time.

On a processor without instructions for bfloat16 the iteration is computed in single precision, so its rate is set
against the convolution in that, and none in bfloat16 is timed.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, flop_registry

from benchmarks.clock import seconds, warm_up
from benchmarks.contestants import our_steps, records, textbook_steps
from benchmarks.sizes import Sizes
from benchmarks.table import Row
from methods.core.speed.precision import is_widened

PART = "roofline"
# The first that a device has instructions for is what an iteration is computed in.
PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
LAYOUTS = {"default": torch.contiguous_format, "channels_last": torch.channels_last}
GIGA = 1e9


def measure(sizes: Sizes, repeats: int, device: torch.device) -> Iterator[list[Row]]:
    """Yields the rows of the peaks, then those of the iteration."""
    precisions = [precision for precision in PRECISIONS if not is_widened(device, precision)]
    convolutions = [_convolution(sizes, repeats, device, precision) for precision in precisions]
    yield convolutions
    yield [_matmul(sizes, repeats, device, precision) for precision in precisions]
    yield _iteration(sizes, repeats, device, convolutions[0])


def count(sizes: Sizes, device: torch.device) -> int:
    """Returns how often `measure` yields."""
    return 3


def flops(run: Callable[[], object]) -> int:
    """Returns the floating-point operations of all convolutions and matrix products that a run executes."""
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: _backward})
    counter.mod_tracker = _NoModules()
    with counter:
        run()
    return counter.get_total_flops()


def kernel_seconds(run: Callable[[], object]) -> float:
    """Returns the seconds that a run spends in convolutions and matrix products on a processor."""
    with _KernelTime() as kernels:
        run()
    return kernels.seconds


class _KernelTime(TorchDispatchMode):
    """Adds up the time of every operation whose FLOPs are counted."""

    seconds = 0.0

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        started = time.perf_counter()
        result = operation(*arguments, **(options or {}))
        if operation._overloadpacket in flop_registry:
            self.seconds += time.perf_counter() - started
        return result


class _NoModules(contextlib.nullcontext):
    """Stands in for the counter's split by module, whose hooks refuse the double backward of a gradient penalty."""

    parents = ("Global",)

    def __exit__(self, *_: object) -> None:
        """Ends as it began; the counter passes nothing."""


def _backward(
    gradient: Any, images: Any, weight: Any, _bias: Any, _stride: Any, _padding: Any, _dilation: Any, transposed: bool,
    _output_padding: Any, groups: int, wanted: Any, out_shape: Any, **_: Any,
) -> int:  # fmt: skip
    # Each part that is wanted costs what the forward pass costs; torch's own formula forgets the groups in one of them.
    forward = conv_flop_count(images, weight, gradient, transposed)
    return forward * (bool(wanted[0]) + bool(wanted[1]))


def _convolution(sizes: Sizes, repeats: int, device: torch.device, precision: str) -> Row:
    """Returns the best rate of 3x3 convolutions at the generator's shapes, over image sizes and memory layouts."""

    def candidate(pixels: int, layout: torch.memory_format) -> tuple[float, Callable[[], object]]:
        options = {"device": device, "dtype": PRECISIONS[precision]}
        images = torch.randn(sizes.batch, sizes.channels, pixels, pixels, **options).to(memory_format=layout)
        weight = torch.randn(sizes.channels, sizes.channels, 3, 3, **options).to(memory_format=layout)
        work = 2.0 * 9 * images.numel() * sizes.channels
        return work, lambda: F.conv2d(images, weight, padding=1)

    rates = [
        _rates(*candidate(pixels, layout), sizes, repeats, device)
        for pixels, layout in itertools.product(sizes.pixels, LAYOUTS.values())
    ]
    return _row(f"convolution_{precision}", max(rates, key=median))


def _matmul(sizes: Sizes, repeats: int, device: torch.device, precision: str) -> Row:
    side = sizes.matrix[device.type]
    left, right = torch.randn(2, side, side, device=device, dtype=PRECISIONS[precision])
    rates = _rates(2.0 * side**3, lambda: left @ right, sizes, repeats, device)
    return _row(f"matmul_{precision}", rates)


def _iteration(sizes: Sizes, repeats: int, device: torch.device, peak: Row) -> list[Row]:
    name, data = sizes.roofline, records(sizes.num_train)
    case = sizes.iterations[name]
    with our_steps(case, *data, device) as step:
        work = flops(step)
        rates = _rates(work, step, sizes, repeats, device)
        within = [work / kernel_seconds(step) / GIGA for _ in range(repeats)] if device.type == "cpu" else []
    plain = flops(textbook_steps(case, *data, device))
    return [
        Row(PART, name, None, "work_ours", work / GIGA, "GFLOP"),
        Row(PART, name, None, "work_textbook", plain / GIGA, "GFLOP"),
        _row(name, rates),
        _share(name, f"share_of_{peak.case}", rates, peak.value),
        *([_share(name, "share_within_convolutions_and_products", within, peak.value)] if within else []),
    ]


def _rates(work: float, run: Callable[[], object], sizes: Sizes, repeats: int, device: torch.device) -> list[float]:
    """Returns the GFLOP/s of each repeat of a run that takes `work` FLOPs."""
    loops = warm_up(run, device, sizes.seconds / 4)
    return [work / seconds(run, device, loops) / GIGA for _ in range(repeats)]


def _share(case: str, quantity: str, rates: list[float], peak: float) -> Row:
    return Row(PART, case, None, quantity, median(rates) / peak, "share", min(rates) / peak, max(rates) / peak)


def _row(case: str, rates: list[float]) -> Row:
    return Row(PART, case, None, "rate", median(rates), "GFLOP/s", min(rates), max(rates))
