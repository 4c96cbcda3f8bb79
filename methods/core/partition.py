"""Fixed disjoint parts of the records: the shards of a GAN's critics, or the records of each teacher."""

from __future__ import annotations

import torch

from workflow.common.seeds import numpy_stream


def partition(num_records: int, num_parts: int, seed: int) -> torch.Tensor:
    """Returns record indices int64 [num_parts, num_records // num_parts]; each record is in at most one part.

    The assignment depends on public values only: the count and the seed.
    """
    size = num_records // num_parts
    order = numpy_stream(seed, "shards").permutation(num_records)
    return torch.from_numpy(order[: size * num_parts].reshape(num_parts, size))
