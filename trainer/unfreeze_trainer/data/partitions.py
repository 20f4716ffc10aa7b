"""Tables in folders that are called by a column and its value (`label=spam/part-0.parquet`), as Spark, Hive, Dask and pandas write them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import numpy as np

from unfreeze_trainer.data.suffixes import lies_as_table
from unfreeze_trainer.errors import JobError, quoted

if TYPE_CHECKING:
    import pyarrow as pa

_NAME = re.compile(r"([^=]+)=(.*)", re.DOTALL)
_MISSING = "__HIVE_DEFAULT_PARTITION__"
"""What stands for a missing value."""
_MOST_DEEP = 16
_LOGS = {"_delta_log": "Delta Lake", ".hoodie": "Hudi"}
"""Folders of the programs that keep files which no longer count beside those that do."""


def is_partitioned(path: str) -> bool:
    """Return whether a path is a folder whose sub-folders are all called by a column and its value, and hold tables."""
    if not os.path.isdir(path) or not _parts(path):  # noqa: PTH112 - Path.is_dir raises where nobody may look
        return False
    return next(_tables(path, ""), None) is not None


def tables_below(path: str) -> list[str]:
    """Return the tables of a partitioned folder, relative to it, sorted."""
    return sorted(_tables(path, ""))


def name_below(file: str, path: str) -> str:
    """Return what messages and pins call a file of a source: its place below a partitioned folder, else its name."""
    place = Path(file)
    found = place.relative_to(path) if place.is_relative_to(path) else place
    return str(found) if len(found.parts) > 1 and _NAME.fullmatch(found.parts[0]) else place.name


def values_of(name: str) -> dict[str, str | None]:
    """Return the columns that a file's name below a partitioned folder tells, null where the value is missing."""
    found = {match[1]: unquote(match[2]) for part in Path(name).parent.parts if (match := _NAME.fullmatch(part))}
    return {column: None if value == _MISSING else value for column, value in found.items()}


def with_values(table: pa.Table, values: dict[str, str | None]) -> pa.Table:
    """Return a table with columns of one value each behind its own."""
    import pyarrow as pa

    for name, value in values.items():
        held = pa.array([value], pa.string())
        table = table.append_column(name, held.take(pa.array(np.zeros(table.num_rows, np.int64))))
    return table


def require_no_log(folder: Path, names: list[str], where: str) -> None:
    """Raise JobError InvalidData for a folder of which a log says which files count: all of them would be too many."""
    for name in _LOGS.keys() & set(names):
        raise JobError(
            "InvalidData",
            f"{where}: {quoted(folder / name)} makes this a table of {_LOGS[name]}, whose files hold rows that were replaced or"
            " deleted as well: have it write its rows into Parquet files of another folder, and name that",
        )


def _parts(path: str) -> list[str]:
    """Return the sub-folders of a folder that are partitions; none where one is another, or a table lies beside them."""
    found = list[str]()
    for entry in os.scandir(path):
        if entry.name.startswith((".", "_")):
            continue
        if entry.is_dir():
            if not _NAME.fullmatch(entry.name):
                return []
            found.append(entry.name)
        elif lies_as_table(entry.name):
            return []
    return sorted(found)


def _tables(path: str, inner: str, deep: int = 0) -> Iterator[str]:
    """Yield the tables below a folder of partitions, relative to the outermost."""
    if parts := _parts(path):
        for part in parts if deep < _MOST_DEEP else ():
            yield from _tables(f"{path}/{part}", f"{inner}{part}/", deep + 1)
        return
    for entry in sorted(os.scandir(path), key=lambda one: one.name):
        if deep and not entry.name.startswith((".", "_")) and not entry.is_dir() and lies_as_table(entry.name):
            yield inner + entry.name
