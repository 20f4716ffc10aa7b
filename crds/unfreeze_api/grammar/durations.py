"""Durations as people read them."""

from __future__ import annotations


def duration(seconds: int) -> str:
    """Return a time as kubectl writes it: its two largest units, like 1h5m or 35s."""
    units = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s")]
    while len(units) > 1 and units[0][0] == 0:
        units.pop(0)
    return "".join(f"{count}{unit}" for count, unit in units[:2] if count) or "0s"
