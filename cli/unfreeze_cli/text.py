"""Texts of the cluster as a terminal may have them, times, and where they are printed."""

from __future__ import annotations

import re
from datetime import datetime

from rich.console import Console

from unfreeze_api.durations import duration

WIDTH = 10_000

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(text: object) -> str:
    """Return a text without what moves cursors, sets colours or turns the direction: pods write what they like."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text))


def console() -> Console:
    """Return where people read. Lines are as long as they are, like kubectl's: a name that is cut cannot be copied."""
    return Console(highlight=False, markup=False, width=WIDTH)


def since(text: str | None, now: datetime) -> str:
    """Return how long ago a time of the API was."""
    if not text:
        return ""
    return duration(max(0, int((now - datetime.fromisoformat(text)).total_seconds())))
