"""Second moments of rows by class: the form in which they are released, and how far one record moves them.

A record is a row u of norm at most 1 with a class c. Released are all matrices S_c, the sums of u u^T over the records
of class c, together and once. In the norm of that whole answer, the root of all squared entries of all matrices,
exchanging one record moves it by at most sqrt(2), not by the 2 that a sum of rows of norm 1 may move.

Proof. The inner product of two contributions is <u u^T, v v^T> = (u . v)^2 if their classes are equal and 0 if not.
So it is never negative, and a contribution has norm |u|^2 <= 1. Exchanging (u, c) for (v, c') therefore moves the
answer by the root of |u|^4 + |v|^4 - 2 <.,.>, which is at most sqrt(2). It is reached by orthogonal unit rows of one
class, and by any unit rows of two. Adding or removing one record moves the answer by |u|^2 <= 1.

A symmetric matrix repeats what is off its diagonal, so the answer holds each such entry once, times sqrt(2): packed so,
the Euclidean norm is the matrix norm above, and noise of one scale on every packed entry is as much as is needed.
"""

from __future__ import annotations

import math

import torch


def packed_size(width: int) -> int:
    """Returns how many entries a symmetric matrix of `width` rows has when packed."""
    return width * (width + 1) // 2


def packed(matrices: torch.Tensor) -> torch.Tensor:
    """Returns symmetric matrices [..., D, D] as entries [..., D (D + 1) / 2] whose norm is that of the matrix."""
    width = matrices.shape[-1]
    row, column = torch.triu_indices(width, width, device=matrices.device)
    return matrices[..., row, column] * _weights(row, column, matrices.dtype)


def unpacked(entries: torch.Tensor) -> torch.Tensor:
    """Returns the symmetric matrices [..., D, D] of packed entries [..., D (D + 1) / 2]."""
    width = (math.isqrt(8 * entries.shape[-1] + 1) - 1) // 2
    row, column = torch.triu_indices(width, width, device=entries.device)
    values = entries / _weights(row, column, entries.dtype)
    matrices = entries.new_empty(*entries.shape[:-1], width, width)
    matrices[..., row, column] = values
    matrices[..., column, row] = values
    return matrices


def second_moments(rows: torch.Tensor, labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Returns float64 [classes, D, D], the sum of u u^T over the rows [R, D] of each class; labels int64 [R]."""
    rows = rows.double()
    moments = rows.new_zeros(classes, rows.shape[1], rows.shape[1])
    for label in labels.unique().tolist():
        part = rows[labels == label]
        moments[label] = part.T @ part
    return moments


def _weights(row: torch.Tensor, column: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.where(row == column, 1.0, torch.tensor(math.sqrt(2), dtype=dtype, device=row.device))
