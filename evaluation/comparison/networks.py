"""Which scores of a comparison are by another network on each side: these tell of the network, not of the method.

A data set's feature network and real2gen's classifiers are trained once, and score every run and seed. Where that
rounds otherwise, as on another processor, they are other networks: all that they score moves, which no seed's spread
covers. The reference row of real data shows it: both sides have it, of the same images.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from evaluation.comparison.changes import Limit, Row
from evaluation.comparison.summary import listed
from evaluation.scores import format_value
from workflow.common.contracts import REAL
from workflow.common.metrics import METRICS

Place = tuple[str, str, str]  # preset, data set, network


def changed(old: Mapping[Row, float], new: Mapping[Row, float]) -> set[Place]:
    """Returns the networks that are not the same on both sides, as far as the scores of real data tell."""
    return {
        _place(row) for row in old.keys() & new.keys()
        if row.run.method == REAL and METRICS[row.metric].network and format_value(old[row]) != format_value(new[row])
    }  # fmt: skip


def unknown(old: Mapping[Row, float], new: Mapping[Row, float]) -> set[Place]:
    """Returns the networks of which nobody knows whether they are the same: no score of real data is on both sides.

    One that scored all that both sides have equally is not among them.
    """
    shared = [row for row in old.keys() & new.keys() if METRICS[row.metric].network and row.run.source == "measured"]
    known = {_place(row) for row in shared if row.run.method == REAL}
    return {_place(row) for row in shared if format_value(old[row]) != format_value(new[row])} - known


def apart(rows: Collection[Row], networks: Collection[Place]) -> set[Row]:
    """Returns the rows whose sides do not compare, as another network scored each.

    Real data's own do, as they tell how good a network is, but for a distance: its scale is the network's.
    """
    return {
        row for row in rows
        if _place(row) in networks and (row.run.method != REAL or not METRICS[row.metric].higher_is_better)
    }  # fmt: skip


def marked(limits: Mapping[Row, Limit], rows: Collection[Row]) -> dict[Row, Limit]:
    """Returns the limits, those of `rows` as ones beyond which a move is no regression."""
    return {row: replace(limit, regresses=False) if row in rows else limit for row, limit in limits.items()}


def told(networks: Collection[Place], unknown: Collection[Place] = ()) -> list[str]:
    """Returns in words which networks are not the same, and of which it is not known, if any."""
    apart = f"not the same on both sides, as real data's scores say: {_named(networks)}; what they score may move"
    asked = (
        f"not known whether the same network scored both sides, which share no row of real data: {_named(unknown)};"
        " judged as if it had"
    )
    return [apart] * bool(networks) + [asked] * bool(unknown)


def _named(networks: Collection[Place]) -> str:
    named = listed(sorted({network for *_, network in networks}))
    where = listed(sorted({" ".join(filter(None, place[:2])) for place in networks}))
    return f"{named} of {where}"


def _place(row: Row) -> Place:
    return row.run.preset, row.run.dataset, METRICS[row.metric].network
