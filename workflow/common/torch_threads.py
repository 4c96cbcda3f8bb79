"""How torch computes in this process: on how many threads, and the same on every processor where that is asked for."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from workflow.common.errors import UserError
from workflow.common.pins import VARIABLE, pinned

# MKL computes these from the processor's own estimate of a root or reciprocal, of which every maker has another, in
# whichever way it is asked to be reproducible.
ESTIMATED = {
    "sqrt": np.sqrt, "log": np.log, "log10": np.log10,
    "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
}  # fmt: skip
_overrides: list[Any] = []  # a torch.library.Library withdraws its functions when it is collected


def use_threads(threads: int) -> None:
    """Lets torch compute on `threads` threads, and by pinned operations where the process is pinned.

    Raises UserError for more than one in a pinned process, where a sum would be split by their number.
    """
    if pinned():
        if threads != 1:
            raise UserError(
                f"reproducible numbers need one thread, got {threads}; leave the threads out, or drop reproducible: "
                f"true (in a single command: {VARIABLE} in its environment)"
            )
        _pin()
    torch.set_num_threads(threads)


def _pin() -> None:
    torch.use_deterministic_algorithms(True)
    # No result depends on memory that nothing has written: to fill it would only take time.
    torch.utils.deterministic.fill_uninitialized_memory = False
    # It cuts its work to the processor's cache.
    torch.backends.nnpack.set_flags(False)
    if not _overrides:
        library = torch.library.Library("aten", "IMPL")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Warning only once for all operators")
            for name, function in ESTIMATED.items():
                library.impl(name, functools.partial(_computed, function), "CPU")
                for written in (f"{name}_", f"{name}.out"):
                    kernel = torch.library.get_kernel(f"aten::{written}", "CPU")
                    library.impl(written, functools.partial(_written, function, kernel), "CPU", with_keyset=True)
        _overrides.append(library)


def _computed(function: Callable[..., Any], x: torch.Tensor) -> torch.Tensor:
    """Returns NumPy's `function` of a tensor, in its precision; of whole numbers in torch's default one."""
    kind = x.dtype if x.is_floating_point() or x.is_complex() else torch.get_default_dtype()
    # NumPy has no bfloat16, and torch rounds half precision from single.
    wide = x.detach().to(torch.float32 if kind.itemsize == 2 else kind)
    found = torch.empty_like(wide)
    with np.errstate(all="ignore"):
        function(wide.resolve_conj().resolve_neg().numpy(), out=found.numpy())
    return found.to(kind)


def _written(
    function: Callable[..., Any], kernel: Any, keys: Any, x: torch.Tensor, **out: torch.Tensor
) -> torch.Tensor:
    """Writes NumPy's `function` of a tensor over what torch's own kernel wrote, into the tensor itself or into `out`.

    So torch decides what may be written where, with its own errors and warnings, and how `out` is resized.
    """
    given = x.clone()
    return kernel.call_boxed(keys, x, **out).copy_(_computed(function, given))
