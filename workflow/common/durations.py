"""Durations as people read them."""

from __future__ import annotations


def describe(seconds: float) -> str:
    """Returns a duration for people: "40 s", "12 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def steps_in(steps: int, seconds: float) -> str:
    """Returns how long steps took, for people: "40 steps in 61 s", "1 step in less than 1 s"."""
    took = "less than 1 s" if seconds < 1 else f"{seconds:.0f} s"
    return f"{steps} step{'' if steps == 1 else 's'} in {took}"
