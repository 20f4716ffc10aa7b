"""Sizes as people read them."""

from __future__ import annotations

_UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


def share(done: int, total: int) -> str:
    """Return how many bytes of how many are there, like 3.1 of 14.9 GiB."""
    unit, size = next(((unit, size) for unit, size in _UNITS if total >= size), _UNITS[-1])
    return f"{done / size:.1f} of {total / size:.1f} {unit}"


def size(count: float) -> str:
    """Return a number of bytes in the unit that suits it, like 14.9 GiB."""
    for unit, size in _UNITS:
        if abs(count) >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count:.0f} B"
