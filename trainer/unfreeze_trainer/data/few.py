"""Columns that may be larger than memory: some rows of one, hashes of all. Arrow's own `take` copies a column of texts first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_RUNS = 100_000
_HASHED_ROWS = 4096
_WORD = 8
"""Bytes that are taken of a cell's middle and of its end."""
_KEY_BITS = 20
_MIXING = np.uint64(0x9E3779B97F4A7C15)
"""An odd number whose multiples are spread over 64 bits."""
_SHARE = 16
"""One of so many rows, up to which they are taken one by one."""


def ends_of(column: pa.ChunkedArray) -> np.ndarray:
    """Return behind which rows the chunks of a column end, int64 of shape (chunks,)."""
    return np.cumsum([len(chunk) for chunk in column.chunks], dtype=np.int64)


def few(column: pa.ChunkedArray, rows: Sequence[int] | np.ndarray, ends: np.ndarray | None = None) -> pa.ChunkedArray:
    """Return some rows of a column, by their indices: as many as a batch has. `ends` are those of `ends_of`, for who asks often."""
    import pyarrow as pa

    ends = ends_of(column) if ends is None else ends
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


def numbers_of(column: pa.ChunkedArray) -> np.ndarray:
    """Return a number of each cell, the same for equal ones and in each process, int64 of shape (rows,): they count in the order of the rows."""
    _, first, which = np.unique(hashes_of(column), return_index=True, return_inverse=True)
    numbers: np.ndarray = np.argsort(np.argsort(first))[which].astype(np.int64)
    return numbers


def among(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return which values stand among others, bool of shape (values,): those that can are found by a table of bits first."""
    maybe = _keys_held(others)[_keys(values)]
    theirs = others[_keys_held(values)[_keys(others)]]
    maybe[maybe] = np.isin(values[maybe], theirs)
    return maybe


def _keys_held(values: np.ndarray) -> np.ndarray:
    held = np.zeros(1 << _KEY_BITS, bool)
    held[_keys(values)] = True
    return held


def _keys(values: np.ndarray) -> np.ndarray:
    keys: np.ndarray = (values.view(np.uint64) * _MIXING) >> np.uint64(64 - _KEY_BITS)
    return keys


def shared_rows(
    column: pa.ChunkedArray, rows: np.ndarray, other: pa.ChunkedArray, other_rows: np.ndarray
) -> np.ndarray:
    """Return which rows of a column have a cell that stands in rows of another one, bool of shape (rows,).

    By their hashes, of those alone whose marks are alike.
    """
    marks = _marks(column)
    others = marks if other is column else _marks(other)
    if marks is None or others is None:
        return among(_hashes(column, rows), _hashes(other, other_rows))
    mine, theirs = marks[rows], others[other_rows]
    found = among(mine, theirs)
    if found.any():
        there = other_rows[among(theirs, mine[found])]
        found[found] = among(_hashes(column, rows[found]), _hashes(other, there))
    return found


def _hashes(column: pa.ChunkedArray, rows: np.ndarray) -> np.ndarray:
    return hashes_of(few(column, rows)) if len(rows) * _SHARE < len(column) else hashes_of(column)[rows]


def _marks(column: pa.ChunkedArray) -> np.ndarray | None:
    """Return a number of each cell, alike for equal ones, of its length and a few of its bytes, uint64 of shape (rows,); None if it has no bytes."""
    found = [np.empty(0, np.uint64)]
    for chunk in column.chunks:
        marks = np.zeros(len(chunk), np.uint64)
        for field in chunk.flatten() if chunk.type.num_fields else [chunk]:
            of_field = _marks_of_bytes(field)
            if of_field is None:
                return None
            marks = marks * _MIXING + of_field
        found.append(marks)
    return np.concatenate(found)


def _marks_of_bytes(cells: pa.Array) -> np.ndarray | None:
    import pyarrow as pa

    large = pa.types.is_large_string(cells.type) or pa.types.is_large_binary(cells.type)
    if not (large or pa.types.is_string(cells.type) or pa.types.is_binary(cells.type)):
        return None
    _, offsets, content = cells.buffers()
    width = np.int64 if large else np.int32
    ends = np.frombuffer(offsets, width, len(cells) + 1, cells.offset * np.dtype(width).itemsize).astype(np.int64)
    sizes = np.diff(ends)
    marks = sizes.astype(np.uint64)
    if content is not None and content.size >= _WORD:
        words = np.ndarray(content.size - _WORD + 1, "<u8", content, strides=(1,))  # one begins at each byte
        long = np.flatnonzero(sizes >= _WORD)
        starts, spare = ends[long], sizes[long] - _WORD
        for factor, places in ((0xC2B2AE3D27D4EB4F, starts + spare // 2), (0x165667B19E3779F9, starts + spare)):
            marks[long] += words[places] * np.uint64(factor)
    if cells.null_count:
        marks[~cells.is_valid().to_numpy(zero_copy_only=False)] = 0
    return marks
