"""Class means of unit scattering features, released once: a kernel critic whose gradient costs nothing more."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch.nn import functional

from methods.core.privacy.grant import Grant
from methods.core.privacy.noise import clip_rows
from methods.core.release import PublicSpec, Release
from methods.core.scattering.features import unit

# Most numbers of all classes' means: adding the noise takes some 40 bytes for each.
MOST_NUMBERS = 1 << 25
# Share of a row's squared norm that is one number, the same for all images: it counts the classes.
_COUNT_SHARE = 0.05
# A hair below the bound, so that rounding of a norm cannot end above it.
_NORM = 1 - 1e-5
_COUNT, _FEATURES = _NORM * math.sqrt(_COUNT_SHARE), _NORM * math.sqrt(1 - _COUNT_SHARE)


def means_release(name: str, public: PublicSpec, noise: float, adjacency: str) -> Release:
    """Returns one use of the sum by class of all records' rows of norm 1."""
    return Release(
        name=name, kind="gaussian", clip=1.0, noise=noise, bounded="sum", rows=public.num_train, rate=1.0,
        sampling="all", max_uses=1, adjacency=adjacency,
    )  # fmt: skip


def ask(
    grant: Grant, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], classes: int, size: int,
    device: torch.device | str,
) -> torch.Tensor:  # fmt: skip
    """Returns the noisy sums by class [classes, size + 1] over features [B, size] and labels int64 [B] of all records.

    A record's row is its unit feature and a constant, at its class's place: of norm 1 at most, as it is made.
    """
    # In 32 bits the sum's rounding grows with the records, and a record moves it by as much more than its row.
    total = torch.zeros(classes, size + 1, dtype=torch.float64, device=device)
    for features, labels in batches:
        chosen = functional.one_hot(labels, classes).double()
        # A norm in 32 bits falls short by more than a hair where few numbers are far larger than all others.
        rows = clip_rows(unit(features), 1 / _NORM, "gaussian")
        total[:, :-1].addmm_(chosen.T, rows.double(), alpha=_FEATURES)
        total[:, -1] += _COUNT * chosen.sum(0)
    return grant.noise(total).float()


def distance(answer: torch.Tensor, num_train: int, features: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Returns by how much generated means differ from the released ones: a squared distance less a constant.

    It is unbiased however few images there are: two halves of a class's images are each compared with the records', and
    the inner product of the two differences has the distance between means as its expectation. A class weighs as much
    as it has records, all of them 1 on average.

    Args:
        answer: what `ask` returned.
        features: of generated images, [K * M, size], those of a class side by side; M is at least 2.
        classes: theirs, int64 [K].
    """
    aims, share = answer[classes, :-1] / _FEATURES / num_train, answer[classes, -1] / _COUNT / num_train
    one, other = _halves(unit(features).unflatten(0, (len(classes), -1)))
    mass = share.clamp_min(1 / num_train)
    return len(answer) * (mass * (one * other).sum(1) - ((one + other) * aims).sum(1)).mean()


def _halves(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the means [K, D] of the first and of the second half of rows [K, M, D]."""
    half = rows.shape[1] // 2
    return rows[:, :half].mean(1), rows[:, half:].mean(1)
