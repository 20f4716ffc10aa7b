"""Processes below another, and what they are called."""

from __future__ import annotations

import contextlib
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """Every process below one, however deep."""
    children = " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")).split()
    return [found for child in map(int, children) for found in (child, *descendants(child))]


def name_of(pid: int) -> str:
    """Return the name that `ps` shows; empty once it has gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""
