"""How many rows of a DP-SGD step pass through a network at once."""

from __future__ import annotations

import torch

# The patches of fewer rows are too little work for a call; those of more leave a processor's caches.
_MOST = 256
# The largest tensor that the C library keeps for the next chunk; larger ones come as cleared pages each time.
_KEPT = 2**25


def rows_at_once(row_bytes: int, device: torch.device) -> int:
    """Returns the chunk for rows whose largest tensor has `row_bytes` a row: 1 to 256, or 0, all, on an accelerator."""
    return max(1, min(_MOST, _KEPT // row_bytes)) if device.type == "cpu" else 0
