"""Pins: hashes that say which data a run has seen."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from unfreeze_trainer.models.folders import hash_file


def hash_data(path: str) -> str:
    """Return the SHA-256 of a file, or of a folder: of the sorted relative paths and sizes of all files below it.

    A folder of images is not read for it: that would cost as much as an epoch.
    """
    if Path(path).is_file():
        return hash_file(path)
    digest = hashlib.sha256()
    files = (Path(root, name) for root, _, names in os.walk(path) for name in names)
    for file in sorted(files):
        digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\n".encode())
    return digest.hexdigest()
