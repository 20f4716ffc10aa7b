"""Labels that stand in a table as numbers, and by name in what the data set says of itself."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unfreeze_api.contracts.resolved import Dataset
from unfreeze_trainer.data.shards import shards
from unfreeze_trainer.data.suffixes import BY_COLUMNS
from unfreeze_trainer.errors import JobError

if TYPE_CHECKING:
    import pyarrow as pa


def names_in_file(file: Path) -> dict[str, list[str]]:
    """Return what the numbers of columns stand for, as `datasets` writes it into Parquet and Arrow files."""
    from unfreeze_trainer.data.columnar import schema_of
    from unfreeze_trainer.sources.card import names_in_features

    if file.suffix.lower() not in BY_COLUMNS:
        return {}
    import pyarrow as pa

    try:
        said = json.loads((schema_of(os.fspath(file)).metadata or {}).get(b"huggingface", b"{}"))
        return names_in_features(said["info"]["features"])
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}  # whoever reads the file says what is wrong with it


def names_of(dataset: Dataset) -> Mapping[str, Sequence[str]]:
    """Return what the numbers of a table's columns stand for: as somebody has told, else as its first file says."""
    if dataset.label_names is not None:
        return dataset.label_names
    try:
        return names_in_file(Path(shards(dataset.path, "")[0]))
    except JobError:  # whoever reads it says so
        return {}


def named_alike(dataset: Dataset, train: Dataset) -> Dataset:
    """Return held-out data, of which nothing tells what numbers stand for, with the names of the training data's."""
    names = {} if names_of(dataset) else names_of(train)
    return dataset.model_copy(update={"label_names": dict(names)}) if names else dataset


def with_names(table: pa.Table, dataset: Dataset, columns: Sequence[str]) -> pa.Table:
    """Return a table with names in place of the numbers in some columns, or in their lists; null for numbers without one.

    `datasets` writes -1 where a sample has no label.
    """
    return named(table, names_of(dataset), columns)


def named(table: pa.Table, known: Mapping[str, Sequence[str]], columns: Sequence[str]) -> pa.Table:
    """Return what `with_names` does, by the names of each column's numbers."""
    for name in dict.fromkeys(columns):
        names = known.get(name)
        place = table.schema.get_field_index(name)
        if names and place >= 0 and (column := _named(table[name], names)) is not None:
            table = table.set_column(place, name, column)
    return table


def _named(column: pa.ChunkedArray, names: Sequence[str]) -> pa.ChunkedArray | None:
    """Return names of numbers, or lists of names of lists of them; None for a column of something else."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column = _read(column, names)
        kind = column.type
    if pa.types.is_integer(kind):
        return pa.chunked_array([_of_numbers(chunk, names) for chunk in column.chunks], pa.string())
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_integer(kind.value_type):
        return None
    many = pa.ListArray if pa.types.is_list(kind) else pa.LargeListArray
    made = [
        many.from_arrays(
            chunk.offsets, _of_numbers(chunk.values, names), mask=chunk.is_null() if chunk.null_count else None
        )
        for chunk in map(_whole, column.chunks)
    ]
    return pa.chunked_array(made, pa.list_(pa.string()) if pa.types.is_list(kind) else pa.large_list(pa.string()))


def _read(column: pa.ChunkedArray, names: Sequence[str]) -> pa.ChunkedArray:
    """Return the numbers, or lists of them as JSON, that all cells of a column of texts hold, as in CSV; itself where it has names.

    Where names are numbers themselves, but not their own, nobody can tell which of both a cell holds, and splits with other labels would be
    taken for other ones.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if any(re.fullmatch(_NUMBER, name) and name != str(number) for number, name in enumerate(names)):
        return column
    cells = pc.utf8_trim_whitespace(column)
    cells = pc.if_else(pc.equal(cells, ""), pa.scalar(None, cells.type), cells)
    named = pc.is_in(cells, value_set=pa.array(names, cells.type))
    if pc.all(pc.or_(named, pc.is_null(cells))).as_py():
        return column
    if pc.all(pc.match_substring_regex(cells, f"^{_NUMBER}$")).as_py():
        return cells.cast(pa.int64())
    if pc.all(pc.match_substring_regex(cells, rf"^\[\s*({_NUMBER}\s*(,\s*{_NUMBER}\s*)*)?\]$")).as_py():
        lists = [[cell and json.loads(cell) for cell in chunk.to_pylist()] for chunk in cells.chunks]
        return pa.chunked_array([pa.array(some, pa.list_(pa.int64())) for some in lists])
    return column


_NUMBER = "-?(0|[1-9][0-9]{0,8})"


def _whole(chunk: pa.Array) -> pa.Array:
    """Return an array that begins at its buffers' beginning: offsets of a slice may not have a mask."""
    import pyarrow as pa

    return pa.concat_arrays([chunk]) if chunk.offset == 0 else chunk.take(pa.array(range(len(chunk))))


def _of_numbers(numbers: pa.Array, names: Sequence[str]) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    known = pc.and_(pc.greater_equal(numbers, 0), pc.less(numbers, len(names)))
    return pa.array(names, pa.string()).take(pc.if_else(known, numbers, None))
