"""Texts of the cluster as a terminal may have them, times, and where they are printed."""

from __future__ import annotations

import re
import sys
from datetime import datetime

from rich.console import Console

from unfreeze_api.durations import duration

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(text: object) -> str:
    """Return a text without what moves cursors, sets colours or turns the direction: pods write what they like."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text))


def console() -> Console:
    """Return where people read; wide enough for a pipe to get whole lines."""
    width = None if sys.stdout.isatty() else 200
    return Console(highlight=False, markup=False, soft_wrap=False, width=width)


def since(text: str | None, now: datetime) -> str:
    """Return how long ago a time of the API was."""
    if not text:
        return ""
    return duration(max(0, int((now - datetime.fromisoformat(text)).total_seconds())))
