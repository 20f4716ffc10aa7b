"""A disk that need not survive a power cut: what tests write is gone after them."""

from __future__ import annotations

import os


def flush_nothing() -> None:
    """Have `os.fsync` look whether the file is open, and wait for no disk, in this process and those forked from it.

    Programs that are started anew flush as ever.
    """
    os.fsync = looked_at


def looked_at(descriptor: int) -> None:
    os.fstat(descriptor)
