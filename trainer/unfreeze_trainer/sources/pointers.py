"""Files that stand for others: what `git clone` leaves without Git LFS, and pages that a download saved in their place."""

from __future__ import annotations

from pathlib import Path

_LFS = b"version https://git-lfs.github.com/spec/"
_LFS_BYTES = 1024
"""Bytes of the longest pointer, by its specification."""


def stand_in(head: bytes) -> str:
    """Return what a file is in place of the wanted one, by its first bytes, and what to do; nothing where it may be that."""
    if head.startswith(_LFS):
        return "is a pointer of Git LFS and not the file itself: run `git lfs pull` where it was cloned, and copy it from there"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "is a web page and not the file itself: download the file that the page shows, perhaps after logging in"
    return ""


def stand_in_at(path: Path) -> str:
    """Return what a file is in place of the wanted one, and what to do; nothing where it may be that."""
    with path.open("rb") as file:
        return stand_in(file.read(_LFS_BYTES))
