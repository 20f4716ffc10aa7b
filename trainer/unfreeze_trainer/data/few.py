"""Columns that may be larger than memory: some rows of one, hashes of all. Arrow's own `take` copies a column of texts first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_RUNS = 100_000
_HASHED_ROWS = 4096


def few(column: pa.ChunkedArray, rows: Sequence[int] | np.ndarray) -> pa.ChunkedArray:
    """Return some rows of a column, by their indices: as many as a batch has."""
    import pyarrow as pa

    ends = np.cumsum([len(chunk) for chunk in column.chunks])
    chunks = np.searchsorted(ends, rows, side="right")
    parts = [
        column.chunk(int(chunk)).slice(int(row - (ends[chunk - 1] if chunk else 0)), 1)
        for chunk, row in zip(chunks, rows, strict=True)
    ]
    return pa.chunked_array([pa.concat_arrays(parts)] if parts else [], column.type)


def most(column: pa.ChunkedArray, rows: np.ndarray) -> pa.ChunkedArray:
    """Return nearly all rows of a column, by their sorted indices, without a copy where few are left out."""
    import pyarrow as pa

    if len(rows) == len(column):
        return column
    starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
    if len(starts) > _MOST_RUNS or not len(rows):
        return column.take(pa.array(rows))
    sizes = np.diff(np.append(starts, len(rows)))
    runs = (column.slice(int(rows[start]), int(size)) for start, size in zip(starts, sizes, strict=True))
    return pa.chunked_array([chunk for run in runs for chunk in run.chunks], column.type)


def hashes_of(column: pa.ChunkedArray) -> np.ndarray:
    """Return a hash of each cell that is good within this process, int64 of shape (rows,); of structs that of all fields."""
    found = [np.empty(0, np.int64)]
    for chunk in column.chunks:
        for start in range(0, len(chunk), _HASHED_ROWS):
            part = chunk.slice(start, _HASHED_ROWS)
            fields = part.flatten() if part.type.num_fields else [part]
            cells = zip(*(one.to_pylist() for one in fields), strict=True)
            found.append(np.fromiter(map(hash, cells), np.int64, len(part)))
    return np.concatenate(found)
