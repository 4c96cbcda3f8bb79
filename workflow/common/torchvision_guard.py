"""Makes `import torchvision` work where its compiled operators cannot load.

The registry's torchvision wheel is built against CUDA torch. Next to a CPU-only torch its compiled library does not
load, and the import then fails on "operator torchvision::nms does not exist". Nothing here calls these operators, so
declaring their schemas is enough. Import this module before torchvision, or before what imports it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[Any] = []  # a torch.library.Library withdraws its schemas when it is collected


def ensure_torchvision() -> bool:
    """Declares the schemas where they are needed; returns whether this module did.

    Does nothing where torchvision is absent, already imported, or able to load its own operators.
    """
    if _declared:
        return True
    spec = importlib.util.find_spec("torchvision") if "torchvision" not in sys.modules else None
    if spec is None:
        return False
    import torch

    if _loads_operators(torch, spec.submodule_search_locations or ()):
        return False
    library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        library.define(schema)
    _declared.append(library)
    return True


def _loads_operators(torch: Any, folders: Any) -> bool:
    compiled = [path for folder in folders for path in Path(folder).glob("_C*") if path.suffix in (".so", ".pyd")]
    for path in compiled:
        try:
            torch.ops.load_library(str(path))
        except OSError:
            continue
        return True
    return False


ensure_torchvision()
