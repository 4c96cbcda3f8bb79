"""Numbers for a person to read, rounded so that an upper bound stays one."""

from __future__ import annotations

from decimal import Decimal

# Of a number: what a sum of doubles may be too large by.
_EXACT = 1e-12


def up(value: float, spec: str = ".4g") -> str:
    """Returns a number above 0, or inf, as `format(value, spec)` writes it, but rounded up; `spec` is of kind f or g.

    Example: `up(8.4881) == "8.489"`, and `up(0.1 + 0.2) == "0.3"`.
    """
    # With the zeros at its end, which say where its last digit stands.
    near = Decimal(format(value, f"#{spec}"))
    if float(near) < value * (1 - _EXACT):
        near += Decimal((0, (1,), near.as_tuple().exponent))
    return format(float(near), spec)
