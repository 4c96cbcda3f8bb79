"""What the first charges of a run spend, for the curve of its card."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from methods.core.accounting.along import along
from methods.core.accounting.calibration import epsilon
from methods.core.release import Release

ONCE = Release(
    name="moments", kind="gaussian", clip=1.0, noise=3.0, bounded="moments", rows=1000, rate=1.0, sampling="all",
    max_uses=1, adjacency="add_or_remove",
)  # fmt: skip
DRAWN = replace(ONCE, name="gradient", noise=1.1, bounded="sum", rate=0.05, sampling="poisson", max_uses=200)


def whole(releases: tuple[Release, ...]) -> tuple[float, float]:
    return epsilon(releases, 1e-5, "published"), epsilon(releases, 1e-5, "sound")


@pytest.mark.parametrize("releases", [(ONCE,), (DRAWN,), (ONCE, DRAWN)], ids=["once", "drawn", "both"])
def test_the_curve_rises_from_the_first_charge_to_what_the_plan_states(releases) -> None:
    found = along(releases, 1e-5, whole(releases))
    total = sum(release.max_uses for release in releases)
    charges, counted, sound = zip(*found, strict=True)
    assert (charges[0], charges[-1], len(found)) == (1, total, min(20, total))
    assert (counted[-1], sound[-1]) == whole(releases)
    for curve in (counted, sound):
        assert list(curve) == sorted(curve) and curve[0] > 0 and all(map(math.isfinite, curve))


def test_a_point_is_what_these_charges_alone_cost_or_a_hair_more() -> None:
    found = {charges: sound for charges, _, sound in along((ONCE, DRAWN), 1e-5, whole((ONCE, DRAWN)))}
    for charges in (1, sorted(found)[9]):
        used = (ONCE, replace(DRAWN, max_uses=charges - 1))[: 1 + (charges > 1)]
        alone = epsilon(used, 1e-5, "sound")
        assert alone * (1 - 1e-6) <= found[charges] <= 1.03 * alone
