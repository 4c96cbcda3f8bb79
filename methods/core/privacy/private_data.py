"""The training records behind a door that opens only for a grant of the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from methods.core.privacy.grant import Grant, UnaccountedAccess

Index = torch.Tensor | np.ndarray | Sequence[int]


class PrivateData:
    """Images uint8 [N, C, H, W] and labels int64 [N], readable through `read` alone.

    The door guards against mistakes, not against an adversary in the same process: Python cannot hide an object.
    """

    __slots__ = ("__records",)

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(f"images must be uint8 [N, C, H, W], got {images.dtype} {list(images.shape)}")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise ValueError(f"labels must be int64 [{len(images)}], got {labels.dtype} {list(labels.shape)}")
        self.__records = (images, labels)

    def __len__(self) -> int:
        """The number of records N, public by assumption."""
        return len(self.__records[1])

    def _keyed(self, *names: object) -> bytes:
        """Returns a key of 32 bytes that changes with every record and with every name.

        For `runs.noise_key` alone: it keys noise, so that changed records never meet the noise of others. Never to be
        released or printed: it tells whether somebody's guess of all records is right.
        """
        key = hashlib.sha256("/".join(map(str, names)).encode())
        for values in self.__records:
            key.update(str(list(values.shape)).encode())
            key.update(values.cpu().contiguous().numpy().data)
        return key.digest()

    def __repr__(self) -> str:
        return f"PrivateData({len(self)} records)"

    def read(self, grant: Grant | None, index: Index) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns (images uint8 [B, C, H, W], labels int64 [B]) of the records `index` [B], which may be empty.

        Raises UnaccountedAccess unless `grant` is an open Grant that has not yet released its answer, and IndexError
        for an index outside 0 .. N - 1.
        """
        if not isinstance(grant, Grant) or not grant.open:
            raise UnaccountedAccess(
                "private data was read without an open grant; read inside `with ledger.charge(name) as grant` (or "
                "ledger.internal) and before the grant's answer is released"
            )
        images, labels = self.__records
        where = torch.as_tensor(index, dtype=torch.int64, device=images.device).reshape(-1)
        if where.numel() and (int(where.min()) < 0 or int(where.max()) >= len(self)):
            raise IndexError(f"record index outside 0 .. {len(self) - 1}")
        return images.index_select(0, where), labels.index_select(0, where)
