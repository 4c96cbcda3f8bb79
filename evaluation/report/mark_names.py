"""Which marks of a plot bear their names: those whose names meet no mark, no line and no other name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# Pixels: plots on a page of 390 and of 1400, a letter, a line, from a mark to its name, what else stays clear.
WIDTHS, HEIGHT, LETTER, LINE, GAP, CLEAR = (290, 600), 320, 7, 14, 8, 4
MOST = 10
_STEP = 5  # pixels between the points that stand for a line


@dataclass(frozen=True)
class Mark:
    """A mark at `x` and `y`, each from 0 to 1 of the plot, y upwards; a line joins those of the `front`."""

    x: float
    y: float
    name: str
    front: bool = False


@dataclass(frozen=True)
class _Box:
    left: float
    right: float
    low: float
    high: float

    def meets(self, other: _Box) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.low < other.high and other.low < self.high


def sides(marks: Sequence[Mark], levels: Sequence[tuple[float, str]] = ()) -> list[str]:
    """Returns for each mark the alignment of its name, `left` (to the right of it) or `right`; "" where it has none.

    Marks of the front come first, then high ones. `levels` are (y from 0 to 1, name), whose names stand above their
    lines at the left edge.
    """
    rooms = [_Room(marks, levels, width) for width in WIDTHS]
    found = [""] * len(marks)
    for place in sorted(range(len(marks)), key=lambda i: (-marks[i].front, -marks[i].y)):
        free = [side for side in ("left", "right") if all(room.is_free(place, side) for room in rooms)]
        if free and sum(map(bool, found)) < MOST:
            found[place] = free[0]
            for room in rooms:
                room.taken.append(room.name(place, free[0]))
    return found


class _Room:
    """A plot of one width, and the boxes in it that a name must not meet."""

    def __init__(self, marks: Sequence[Mark], levels: Sequence[tuple[float, str]], width: int) -> None:
        self.marks, self.width = marks, width
        self.spots = [(mark.x * width, mark.y * HEIGHT) for mark in marks]
        self.taken = [_Box(0, CLEAR + LETTER * len(name), y * HEIGHT, y * HEIGHT + LINE) for y, name in levels]
        front = [spot for spot, mark in zip(self.spots, marks, strict=True) if mark.front]
        self.taken += [_around(spot) for spot in _line(front)]

    def name(self, place: int, side: str) -> _Box:
        x, y = self.spots[place]
        reach = LETTER * len(self.marks[place].name)
        left = x + GAP if side == "left" else x - GAP - reach
        return _Box(left, left + reach, y - LINE / 2, y + LINE / 2)

    def is_free(self, place: int, side: str) -> bool:
        box = self.name(place, side)
        marks = [_around(spot) for other, spot in enumerate(self.spots) if other != place]
        return box.left >= 0 and box.right <= self.width and not any(box.meets(one) for one in (*self.taken, *marks))


def _around(spot: tuple[float, float]) -> _Box:
    x, y = spot
    return _Box(x - CLEAR, x + CLEAR, y - CLEAR, y + CLEAR)


def _line(spots: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns points along the line through the spots, from left to right."""
    points = []
    for (x0, y0), (x1, y1) in pairwise(sorted(spots)):
        count = max(1, round(max(abs(x1 - x0), abs(y1 - y0)) / _STEP))
        points += [(x0 + (x1 - x0) * n / count, y0 + (y1 - y0) * n / count) for n in range(1, count)]
    return points
