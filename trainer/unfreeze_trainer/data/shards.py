"""Tables in several files: a source whose file name is a pattern, `train-*.parquet`."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path

from unfreeze_trainer.errors import JobError, some_of
from unfreeze_trainer.sources.closed import Closed

_SIGNS = "*?["


def is_pattern(path: str) -> bool:
    """Return whether a path stands for several files: its name has signs of a pattern, and nothing is called like it."""
    return any(sign in Path(path).name for sign in _SIGNS) and not os.path.lexists(path)


def shards(path: str, where: str) -> list[str]:
    """Return the files that a pattern stands for, sorted by name; a path that is none alone.

    Parameters
    ----------
    path
        Signs are those of a shell: `*`, `?`, `[a-z]`; they stand in the file's name alone, and hidden files fit none.
    where
        What messages start with: field and source.

    Raises
    ------
    JobError
        InvalidData: no file fits, or one of them leads out of its folder.
    """
    if not is_pattern(path):
        return [path]
    folder, pattern = Path(path).parent, Path(path).name
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if not entry.is_dir())
    except OSError as error:
        raise JobError(
            "InvalidData", f"{where}: no such folder: {folder}: {error.strerror}; check claim and path"
        ) from error
    found = [name for name in names if fnmatchcase(name, pattern) and not name.startswith(".")]
    if not found:
        held = f"holds {some_of(names)}" if names else "is empty"
        raise JobError("InvalidData", f"{where}: no file fits {pattern}; the folder {folder} {held}")
    closed = Closed(folder, where, "InvalidData")
    return [closed.path(name) for name in found]
