"""Figures as people read them."""

from __future__ import annotations

from math import isfinite

_SMALL, _LARGE = 1e-2, 1e6


def figure(value: float | None, digits: int = 3, sign: str = "") -> str:
    """Return a metric or loss with digits behind its point, or with three that count where it is very small or large.

    Parameters
    ----------
    value
        None, and what is no finite number, gives a dash.
    digits
        How many stand behind the point.
    sign
        "+" for a difference: it has a sign also where it is positive.
    """
    if value is None or not isfinite(value):
        return "\u2013"
    plain = value == 0 or _SMALL <= abs(value) < _LARGE
    return f"{value:{sign}.{digits}f}" if plain else f"{value:{sign}.3g}"
