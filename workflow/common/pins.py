"""What differs between x86-64 processors, pinned: the same operations in the same order on any that has AVX2.

Libraries choose code by what a processor offers and by who made it, and a sum in another order rounds otherwise. They
read these variables when they are loaded, so a command sets them before it imports anything else. What torch takes by
calls alone is in `workflow/common/torch_threads.py`. Only the standard library is imported here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

# In the environment of a step whose numbers are to be the same everywhere.
VARIABLE = "IMAGE_BENCH_REPRODUCIBLE"
PINS: Mapping[str, str] = {
    "OMP_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ONEDNN_DEFAULT_FPMATH_MODE": "STRICT",
    # MKL takes AVX2 here for AUTO on a processor that is not Intel's; this alone is the same on every maker's.
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Haswell",
    # All that NumPy 2.4 and 2.5 have beyond AVX2. One unknown name, and none is heeded.
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    # Another kind of arithmetic: the processor's is used where there is a GPU too.
    "CUDA_VISIBLE_DEVICES": "",
}


def pin() -> None:
    """Sets the pins in this process's environment, if it is to be reproducible.

    Ends the process in one line, exit code 2, where the variable says neither yes nor no.
    """
    if (value := os.environ.get(VARIABLE, "")) not in ("", "0", "1"):
        print(f"error: {VARIABLE} must be 1 or 0 in the environment, or not there, got {value!r}", file=sys.stderr)
        raise SystemExit(2)
    if pinned():
        os.environ.update(PINS)


def pinned() -> bool:
    """Returns whether this process's numbers are to be the same on every processor."""
    return os.environ.get(VARIABLE) == "1"
