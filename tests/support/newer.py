"""JSON as a later version of Unfreeze would write it: with keys that this one does not know, in every object."""

from __future__ import annotations

from typing import Any

KEY = "plantedByALaterVersion"
MAPS = frozenset(
    {
        "metrics",
        "learningRates",
        "results",
        "pins",
        "splits",
        "sources",
        "versions",
        "config",
        "overlaps",
        "skipped",
        "unseenWords",
    }
)
"""Objects whose keys are data."""


def planted(value: Any) -> Any:
    """Return a JSON value with unknown keys in it."""
    if isinstance(value, list):
        return [planted(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    return {name: item if name in MAPS else planted(item) for name, item in value.items()} | {KEY: {"deep": [None, 1]}}
