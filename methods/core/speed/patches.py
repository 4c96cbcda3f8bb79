"""What each output place of a convolution sees, so that its weight's gradients become matrix products."""

from __future__ import annotations

import torch
import torch.nn.functional as F

Pair = tuple[int, int]


def patches(images: torch.Tensor, size: Pair, stride: Pair, padding: Pair) -> torch.Tensor:
    """Returns [N, H', W', size[0] * size[1] * C] of images [N, C, H, W] under an undilated, zero-padded convolution.

    Channels come last in a patch, so that the copy moves whole rows of it; torch's unfold takes several times as long.
    """
    (rows, columns), (down, across) = size, padding
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, across, across, down, down))
    return padded.unfold(1, rows, stride[0]).unfold(2, columns, stride[1]).permute(0, 1, 2, 4, 5, 3).flatten(3)
