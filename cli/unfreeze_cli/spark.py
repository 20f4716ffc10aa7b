"""Numbers over time in one line of text (Tufte's sparklines, in block characters)."""

from __future__ import annotations

from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"


def spark(values: Sequence[float | None]) -> str:
    """Return a character for each value, the lowest and the highest block for least and greatest; a gap for None."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    top = len(BLOCKS) - 1

    def block(value: float) -> str:
        return BLOCKS[round((value - low) / (high - low) * top) if high > low else 0]

    return "".join(" " if value is None else block(value) for value in values)
