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


def processes_of(name: str, log: Path) -> list[int]:
    """Every process of that name, as `ps` shows it, whose output goes to a file."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has gone meanwhile
            if name_of(int(path.name)) == name and (path / "fd/1").readlink() == log:
                found.append(int(path.name))
    return found
