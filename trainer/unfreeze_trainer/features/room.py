"""How much memory and disk there is for a cache."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

SHARE = 0.5
"""Of the memory that is free, what the caches of a machine's workers take at most."""

DISK_BYTES = 8 * 2**30
"""Of the folder for what is temporary, what the caches of a machine's workers take at most: pods have 20 GiB of it."""

_GROUPS = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Where a container's limit lies, and what of it is used, in both versions of control groups."""


def available_bytes(root: Path = Path("/")) -> int:
    """Return how much memory this worker's cache may take: its part of a share of what machine and container have free."""
    free = [int(line.split()[1]) * 1024 for line in _lines(root / "proc/meminfo") if line.startswith("MemAvailable:")]
    group = root / "sys/fs/cgroup"
    for place, most, now, pages in _GROUPS:
        limit, used = _number(group / place / most), _number(group / place / now)
        if limit is not None and used is not None:
            stat = dict(line.split() for line in _lines(group / place / "memory.stat"))
            # Pages of files that were read count as used, and are given back before anything else.
            free.append(max(0, limit - used + int(stat.get(pages, 0))))
    return int(SHARE * min(free, default=0) / _workers())


def available_disk(limit: int | None, root: Path = Path("/")) -> int:
    """Return how much of the disk this worker's cache may take for the time of the job; nothing where the folder lies in memory.

    Parameters
    ----------
    limit
        Bytes that the pod may write, beyond which it would be evicted; None where nobody says.
    """
    folder = Path(tempfile.gettempdir())
    if _file_system(folder, root) in ("tmpfs", "ramfs"):
        return 0
    most = min(DISK_BYTES, SHARE * shutil.disk_usage(folder).free, *([] if limit is None else [SHARE * limit]))
    return int(most / _workers())


def _workers() -> int:
    """Return how many workers have the same memory and disk: a pod's, or all of a job whose agents run on one machine."""
    together = os.environ.get("MASTER_ADDR", "").startswith("127.")
    return int(os.environ.get("WORLD_SIZE" if together else "LOCAL_WORLD_SIZE", "1"))


def _file_system(folder: Path, root: Path) -> str:
    """Return the kind of file system that a folder lies on."""
    mounts = [line.split() for line in _lines(root / "proc/self/mounts")]
    above = {str(parent) for parent in (folder.resolve(), *folder.resolve().parents)}
    return max((mount for mount in mounts if mount[1] in above), key=lambda mount: len(mount[1]), default=["", "", ""])[
        2
    ]


def _lines(file: Path) -> list[str]:
    with suppress(OSError):
        return file.read_text().splitlines()
    return []


def _number(file: Path) -> int | None:
    """Return the number in a file; None without one, as where there is no limit."""
    found = "".join(_lines(file)).strip()
    return int(found) if found.isdecimal() else None
