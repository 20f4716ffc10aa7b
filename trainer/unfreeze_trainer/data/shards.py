"""Tables in several files: a source whose file name is a pattern, `train-*.parquet`, or a folder of tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from unfreeze_trainer.data.split_names import split_of
from unfreeze_trainer.data.suffixes import TABLES, is_table, suffixes
from unfreeze_trainer.errors import JobError, some_of
from unfreeze_trainer.sources.closed import Closed

_SIGNS = "*?["


def is_pattern(path: str) -> bool:
    """Return whether a path stands for several files: its name has signs of a pattern, and nothing is called like it."""
    return any(sign in Path(path).name for sign in _SIGNS) and not os.path.lexists(path)


def is_several(path: str) -> bool:
    """Return whether a path stands for several tables: it is a pattern, or a folder."""
    return is_pattern(path) or Path(path).is_dir()


def is_table_folder(path: str) -> bool:
    """Return whether a path is a folder with tables and without sub-folders, which would be labels."""
    if not Path(path).is_dir():
        return False
    seen = [entry for entry in os.scandir(path) if not entry.name.startswith(".")]
    return not any(entry.is_dir() for entry in seen) and any(is_table(entry.name) for entry in seen)


def shards(path: str, where: str) -> list[str]:
    """Return the files that a pattern or a folder of tables stands for, sorted by name; a path that is neither alone.

    Parameters
    ----------
    path
        Signs are those of a shell: `*`, `?`, `[a-z]`; they stand in the file's name alone, and hidden files fit none. Of a
        folder it is the tables that lie in it, all of one format.
    where
        What messages start with: field and source.

    Raises
    ------
    JobError
        InvalidData: no file fits, they are of several splits or formats, or one of them leads out of its folder.
    """
    if not is_several(path):
        return [path]
    is_folder = Path(path).is_dir()
    folder = Path(path) if is_folder else Path(path).parent
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        names = [entry.name for entry in entries if not entry.is_dir()]
        folders = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise JobError(
            "InvalidData", f"{where}: no such folder: {folder}: {error.strerror}; check claim and path"
        ) from error
    found = [name for name in names if not name.startswith(".")]
    if is_folder:
        found = [name for name in found if is_table(name)]
        _require_one_table(found, names, folders, where)
    else:
        pattern = Path(path).name
        found = [name for name in found if fnmatchcase(name, pattern)]
        if not found:
            held = f"holds {some_of(names)}" if names else "is empty"
            raise JobError("InvalidData", f"{where}: no file fits {pattern}; the folder {folder} {held}")
    closed = Closed(folder, where, "InvalidData")
    return [closed.path(name) for name in found]


def _require_one_table(tables: Sequence[str], names: Sequence[str], folders: Sequence[str], where: str) -> None:
    """Raise JobError where the files of a folder are not one table in parts.

    Parameters
    ----------
    tables, names, folders
        Files that are called like tables, all files, and the folders that lie there.
    where
        What messages start with.
    """
    if not tables:
        held = f"files {some_of(names)}" if names else "no files"
        below = f" and the folders {some_of(folders)}" if folders else ""
        raise JobError(
            "InvalidData",
            f"{where}: this is a folder without tables ({', '.join(TABLES)}): it has {held}{below}; name a file, a pattern"
            " (*.parquet), or the folder that they lie in",
        )
    for what, kinds in (
        ("formats", {suffixes(name)[0] for name in tables}),
        ("splits", {str(split_of(name)) for name in tables}),
    ):
        if len(kinds) > 1:
            raise JobError(
                "InvalidData",
                f"{where}: the tables of this folder are of several {what}, {some_of(tables)}: name those of one by a pattern, as"
                " train-*.parquet",
            )
