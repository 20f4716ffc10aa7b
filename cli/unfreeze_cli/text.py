"""Texts of the cluster as a terminal may have them, times, and where they are printed."""

from __future__ import annotations

import unicodedata
from datetime import datetime

from rich.console import Console

from unfreeze_api.grammar.durations import duration

WIDTH = 10_000

_KEPT = "\t\n"
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of Unicode: control and format characters, surrogates, separators of lines and paragraphs."""


def plain(text: object) -> str:
    """Return a text without what moves cursors, sets colours, turns the direction or is not seen: pods write what they like."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(one) in _UNSEEN and one not in _KEPT else one
        for one in str(text)
    )


def line(text: object) -> str:
    """Return a text as part of one line: one of several could pass for lines of ours."""
    return plain(text).replace("\n", " ")


def console() -> Console:
    """Return where people read. Lines are as long as they are, like kubectl's: a name that is cut cannot be copied."""
    return Console(highlight=False, markup=False, width=WIDTH)


def since(text: str | None, now: datetime) -> str:
    """Return how long ago a time of the API was."""
    if not text:
        return ""
    return duration(max(0, int((now - datetime.fromisoformat(text)).total_seconds())))
