"""Tables in several files: a source that is a pattern, `train-*.parquet`, `{00..12}.csv`, or a folder of tables."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from unfreeze_api.commands import explained
from unfreeze_trainer.data.partitions import is_partitioned, require_no_log, tables_below, values_of
from unfreeze_trainer.data.split_names import split_of
from unfreeze_trainer.data.suffixes import TABLES, lies_as_table, suffixes
from unfreeze_trainer.errors import JobError, some_of
from unfreeze_trainer.sources.closed import Closed

_SIGNS = "*?["
_BRACES = re.compile(r"\{([^{},]*,[^{}]*|(\d+)\.\.(\d+))\}")
"""`{a,b}` and `{000..012}`."""
MAX_FILES = 100_000
"""That braces stand for."""


def is_pattern(path: str) -> bool:
    """Return whether a path stands for several files: it has signs of a pattern, and nothing is called like it."""
    signs = any(sign in Path(path).name for sign in _SIGNS) or _BRACES.search(path)
    return bool(signs) and not os.path.lexists(path)


def expanded(path: str, where: str) -> list[str]:
    """Return what a path's braces stand for, in the order in which they say it: one path for each."""
    found, left = list[str](), [path]
    while left:
        one = left.pop()
        if not _BRACES.search(one):
            found.append(one)
            continue
        left.extend(reversed(_once_expanded(one, where)))
        if len(found) + len(left) > MAX_FILES:
            raise _too_many(where)
    return found


def _once_expanded(path: str, where: str) -> list[str]:
    found = _BRACES.search(path)
    assert found
    inner: Sequence[str] = found[1].split(",")
    if found[2]:
        first, last = int(found[2]), int(found[3])
        if abs(last - first) >= MAX_FILES:
            raise _too_many(where)
        step, width = (1 if last >= first else -1), max(map(len, found.group(2, 3)))
        padded = any(number.startswith("0") and number != "0" for number in found.group(2, 3))
        inner = [f"{number:0{width * padded}d}" for number in range(first, last + step, step)]
    return [path[: found.start()] + one + path[found.end() :] for one in inner]


def _too_many(where: str) -> JobError:
    return JobError("InvalidData", f"{where}: its braces stand for more than {MAX_FILES:,} files; use a pattern with *")


def _is_folder(path: str) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises where nobody may look: who reads says it better


def folder_of(path: str) -> Path:
    """Return the folder that a table lies in, or several: that of a pattern, the one that all of braces have in common."""
    if _is_folder(path):
        return Path(path)
    braces = _BRACES.search(path) if is_pattern(path) else None
    return Path(path[: braces.start()] + "x" if braces else path).parent


def is_several(path: str) -> bool:
    """Return whether a path stands for several tables: it is a pattern, or a folder."""
    return is_pattern(path) or _is_folder(path)


def is_table_folder(path: str) -> bool:
    """Return whether a path is a folder with tables and without sub-folders, which would be labels, or one of partitions."""
    if not _is_folder(path):
        return False
    seen = [entry for entry in os.scandir(path) if not entry.name.startswith((".", "_"))]
    if any(entry.is_dir() for entry in seen):
        return is_partitioned(path)
    return any(lies_as_table(entry.name) for entry in seen)


def shards(path: str, where: str) -> list[str]:
    """Return the files that a pattern or a folder of tables stands for, sorted by name, but for what braces say; a path that is neither alone.

    Parameters
    ----------
    path
        Signs are those of a shell: `*`, `?`, `[a-z]` stand in the file's name alone, and hidden files fit none; `{a,b}` and
        `{00..12}` stand anywhere, and for files that must be there. Of a folder it is the tables that lie in it, all of one format.
    where
        What messages start with: field and source.

    Raises
    ------
    JobError
        InvalidData: no file fits, they are of several splits or formats, or one of them leads out of its folder.
    """
    if not is_several(path):
        return [path]
    if _is_folder(path):
        return _in_folder(Path(path), where)
    found = dict.fromkeys(file for one in expanded(path, where) for file in _fitting(one, where))
    return list(found)


def _fitting(path: str, where: str) -> list[str]:
    """Return the files that a pattern without braces stands for."""
    folder, pattern = Path(path).parent, Path(path).name
    require_no_log(folder, [entry.name for entry in _entries(folder, where)], where)
    names = [entry.name for entry in _entries(folder, where) if not entry.is_dir()]
    found = [name for name in names if not name.startswith(".") and (name == pattern or fnmatchcase(name, pattern))]
    if not found:
        held = f"holds {some_of(names)}" if names else "is empty"
        raise JobError("InvalidData", f"{where}: no file fits {pattern}; the folder {folder} {held}")
    closed = Closed(folder, where, "InvalidData")
    return [closed.path(name) for name in found]


def _in_folder(folder: Path, where: str) -> list[str]:
    """Return the tables of a folder."""
    entries = _entries(folder, where)
    require_no_log(folder, [entry.name for entry in entries], where)
    closed = Closed(folder, where, "InvalidData")
    try:
        below = tables_below(str(folder)) if is_partitioned(str(folder)) else []
    except OSError as error:
        raise JobError("InvalidData", f"{where}: cannot be read: {explained(error)}") from error
    if below:
        _require_one_table(below, below, [], where)
        return [closed.path(name) for name in below]
    names = [entry.name for entry in entries if not entry.is_dir()]
    folders = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    found = [name for name in names if not name.startswith(".") and lies_as_table(name)]
    _require_one_table(found, names, folders, where)
    return [closed.path(name) for name in found]


def _entries(folder: Path, where: str) -> list[os.DirEntry[str]]:
    """Return what lies in a folder, sorted by name."""
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise JobError(
            "InvalidData", f"{where}: no such folder: {folder}: {error.strerror}; check claim and path"
        ) from error


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
            " (*.parquet), or the folder that they lie in"
            + "; texts in files of their own become a table by lines of docs/conversions.md"
            * bool(folders or any(name.endswith(".txt") for name in names)),
        )
    for what, kinds in (
        ("formats", {suffixes(name)[0] for name in tables}),
        ("splits", {str(_split_of(name)) for name in tables}),
    ):
        if len(kinds) > 1:
            raise JobError(
                "InvalidData",
                f"{where}: the tables of this folder are of several {what}, {some_of(tables)}: name those of one by a pattern, as"
                " train-*.parquet",
            )


def _split_of(name: str) -> str | None:
    """Return the split that a table's name tells, or its folder where it is one of partitions by splits."""
    values = values_of(name)
    return split_of(values.get("split") or Path(name).name)
