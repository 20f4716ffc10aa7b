"""All columns of a table as text, whatever they hold: for those who look at a table, not for training."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unfreeze_trainer.data.tables import read_table
from unfreeze_trainer.data.unread import Unread

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK_ROWS = 65536
_HEAD_LINES = 1000
"""Lines of JSON whose names are columns."""


@dataclass(frozen=True, eq=False)
class Cells:
    """The columns of a table.

    Parameters
    ----------
    texts
        Cells of each column as text, null where one is missing; lists and objects as JSON.
    contents
        Columns of bytes, or of the hub's structs of bytes and path, each with its first content.
    numbers
        Index in the file of each row, int64.
    repeated
        Names that several columns have: these are left aside.
    """

    texts: dict[str, pa.ChunkedArray]
    contents: dict[str, bytes]
    numbers: np.ndarray
    repeated: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """Of all columns."""
        return [*self.texts, *self.contents]


def read_cells(path: str, where: str, *, rows: int | None = None) -> Cells:
    """Read a table as it lies there; broken rows are passed over, and null where lines of JSON are broken.

    Parameters
    ----------
    path, where
        A file, and what messages start with.
    rows
        Read so many of the first rows, at least; all where None.

    Raises
    ------
    JobError
        InvalidData: no such file, or none that is read.
    """
    suffix = Path(path).suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        read_table(
            path, [], where, Unread(where, skip=True), head=True
        )  # whoever trains says what is wrong with the file
        found = _json(path, rows)
        if not found.names:  # with nothing to look at, it is said here
            read_table(path, [], where, head=True)
        return found
    if suffix == ".parquet":
        return _parquet(path, where, rows)
    unread = Unread(where, skip=True)
    names, repeated = _once(read_table(path, [], where, Unread(where, skip=True), head=True).column_names)
    table = read_table(path, names, where, unread, head=rows is not None)
    texts = {name: table[name] for name in names}
    return Cells(texts, {}, unread.others(table.num_rows + len(unread))[: table.num_rows], repeated)


def _once(names: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return names that stand there once, and those that stand there several times."""
    counts = Counter(names)
    return [name for name in counts if counts[name] == 1], tuple(name for name in counts if counts[name] > 1)


def _json(path: str, most: int | None) -> Cells:
    import pyarrow as pa

    names: dict[str, None] = {}
    lines: list[dict[str, Any]] = []
    chunks: list[pa.Table] = []
    count = 0

    def keep() -> None:
        columns = {name: [_text(line.get(name)) for line in lines] for name in names}
        chunks.append(pa.table({name: pa.array(cells, pa.large_string()) for name, cells in columns.items()}))
        lines.clear()

    with Path(path).open(encoding="utf-8-sig", errors="replace") as file:
        for line in file:
            lines.append(_object(line))
            count += 1
            if count <= _HEAD_LINES:
                names |= dict.fromkeys(lines[-1])
            if len(lines) == _CHUNK_ROWS and count > _HEAD_LINES:
                keep()
            if count == most:
                break
    keep()
    table = pa.concat_tables(chunks)
    return Cells({name: table[name] for name in names}, {}, np.arange(count))


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str | None:
    text = value if isinstance(value, str) or value is None else json.dumps(value, ensure_ascii=False)
    return text and text.encode(errors="replace").decode()  # escapes may be halves of a character


def _parquet(path: str, where: str, rows: int | None) -> Cells:
    import pyarrow as pa
    from pyarrow import parquet

    read_table(path, [], where, head=True)
    texts: dict[str, pa.ChunkedArray] = {}
    contents: dict[str, bytes] = {}
    with parquet.ParquetFile(path) as file:
        names, repeated = _once(file.schema_arrow.names)
        held = {name: file.schema_arrow.field(name).type for name in names}
        files = [name for name, kind in held.items() if _holds_bytes(kind)]
        whole = [name for name in held if name not in files]
        if files:
            first = next(file.iter_batches(batch_size=_HEAD_LINES, columns=files), None)
            contents = {name: _first(first.column(name).to_pylist() if first else []) for name in files}
        batches = list(_until(file.iter_batches(columns=whole), rows)) if rows else []
        table = pa.Table.from_batches(batches) if batches else file.read(columns=whole)
        total = table.num_rows if whole else file.metadata.num_rows
    for name in whole:
        try:
            texts[name] = table[name].cast(pa.large_string())
        except pa.ArrowException:  # lists and structs
            texts[name] = pa.chunked_array([pa.array(map(_text, _plain(table[name])), pa.large_string())])
    return Cells(texts, contents, np.arange(total), repeated)


def _plain(column: pa.ChunkedArray) -> Iterator[Any]:
    for chunk in column.chunks:
        for start in range(0, len(chunk), _CHUNK_ROWS):
            yield from (
                json.loads(json.dumps(value, default=str)) for value in chunk.slice(start, _CHUNK_ROWS).to_pylist()
            )


def _until(batches: Iterator[Any], rows: int) -> Iterator[Any]:
    read = 0
    for batch in batches:
        yield batch
        read += batch.num_rows
        if read >= rows:
            return


def _holds_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _first(cells: list[Any]) -> bytes:
    """Return the first content that is there."""
    found = (cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells)
    return next((content for content in found if content), b"")
