"""All columns of a table as text, whatever they hold: for those who look at a table, not for training."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unfreeze_trainer.data.columnar import read_arrow, read_parquet, schema_of
from unfreeze_trainer.data.json_items import open_items
from unfreeze_trainer.data.json_lines import Cells as Kinds
from unfreeze_trainer.data.label_names import named, names_in_file
from unfreeze_trainer.data.partitions import name_below, values_of
from unfreeze_trainer.data.shards import is_several, shards
from unfreeze_trainer.data.suffixes import BY_COLUMNS, JSON, suffixes
from unfreeze_trainer.data.tables import read_table
from unfreeze_trainer.data.unread import Unread
from unfreeze_trainer.data.web_dataset import column_names, holds_media, read_reference, read_web_dataset

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
        Index in the file of each row, int64; counted through several files.
    rows
        How many of them were read, with broken ones.
    repeated
        Names that several columns have: these are left aside.
    """

    texts: dict[str, pa.ChunkedArray]
    contents: dict[str, bytes]
    numbers: np.ndarray
    rows: int
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
        A file, several by a pattern or a folder, and what messages start with.
    rows
        Read so many of the first rows, at least; all where None.

    Raises
    ------
    JobError
        InvalidData: no such file, or none that is read.
    """
    if not is_several(path):
        return _read_file(path, where, rows)
    found: list[Cells] = []
    for file in shards(path, where):
        name = name_below(file, path)
        found.append(_with_places(_read_file(file, f"{where}: {name}", rows), values_of(name)))
        if rows and sum(len(part.numbers) for part in found) >= rows:
            break
    return found[0] if len(found) == 1 else _together(found)


def _with_places(cells: Cells, values: Mapping[str, str | None]) -> Cells:
    """Return cells with what the place of their file tells."""
    import pyarrow as pa

    count = len(cells.numbers)
    told = {name: pa.chunked_array([pa.array([value] * count, pa.large_string())]) for name, value in values.items()}
    return replace(cells, texts=cells.texts | told) if told else cells


def _together(parts: Sequence[Cells]) -> Cells:
    """Return the cells of several files, one after the other; null where one lacks a column."""
    import pyarrow as pa

    names = dict.fromkeys(name for part in parts for name in part.texts)
    texts = {name: list[pa.Array]() for name in names}
    numbers, before = [], 0
    for part in parts:
        for name, chunks in texts.items():
            own = part.texts.get(name)
            chunks.extend([pa.nulls(len(part.numbers), pa.large_string())] if own is None else _large(own).chunks)
        numbers.append(part.numbers + before)
        before += part.rows
    contents = {name: content for part in reversed(parts) for name, content in part.contents.items()}
    repeated = tuple(dict.fromkeys(name for part in parts for name in part.repeated))
    whole = {name: pa.chunked_array(chunks, pa.large_string()) for name, chunks in texts.items()}
    return Cells(whole, contents, np.concatenate(numbers), before, repeated)


def _large(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa

    return column.cast(pa.large_string())


def _read_file(path: str, where: str, rows: int | None) -> Cells:
    suffix = suffixes(path)[0]
    if suffix in JSON:
        read_table(
            path, [], where, Unread(where, skip=True), head=True
        )  # whoever trains says what is wrong with the file
        found = _json(path, where, rows)
        if not found.names:  # with nothing to look at, it is said here
            read_table(path, [], where, head=True)
        return found
    if suffix == ".tar":
        return _web_dataset(path, where, rows)
    if suffix in BY_COLUMNS:
        read_table(path, [], where, head=True)
        return _by_columns(path, where, rows)
    unread = Unread(where, skip=True)
    names, repeated = _once(read_table(path, [], where, Unread(where, skip=True), head=True).column_names)
    table = read_table(path, names, where, unread, head=rows is not None)
    texts = {name: table[name] for name in names}
    total = table.num_rows + len(unread)
    return Cells(texts, {}, unread.others(total)[: table.num_rows], total, repeated)


def _once(names: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return names that stand there once, and those that stand there several times."""
    counts = Counter(names)
    return [name for name in counts if counts[name] == 1], tuple(name for name in counts if counts[name] > 1)


def _json(path: str, where: str, most: int | None) -> Cells:
    import pyarrow as pa

    names: dict[str, None] = {}
    lines: list[dict[str, Any]] = []
    chunks: list[pa.Table] = []
    count = 0

    def keep() -> None:
        columns = {name: [_text(line.get(name)) for line in lines] for name in names}
        chunks.append(pa.table({name: pa.array(cells, pa.large_string()) for name, cells in columns.items()}))
        lines.clear()

    with open_items(path, where, errors="replace") as (_, items):
        for line in items:
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
    return Cells({name: table[name] for name in names}, {}, np.arange(count), count)


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str | None:
    text = value if isinstance(value, str) or value is None else json.dumps(value, ensure_ascii=False)
    return text and text.encode(errors="replace").decode()  # escapes may be halves of a character


def _web_dataset(path: str, where: str, rows: int | None) -> Cells:
    """Read a shard of a WebDataset; null where a sample lacks a column."""
    import pyarrow as pa

    read_table(path, [], where, Unread(where, skip=True), head=True)
    names, unread = column_names(path, where), Unread(where, skip=True)
    files = [name for name in names if holds_media(name)]
    kinds: dict[str, Kinds | None] = dict.fromkeys(names, "Any")
    parts = _until(read_web_dataset(path, names, where, unread, head=False, kinds=kinds), rows)
    table = pa.concat_tables(parts, promote_options="default")
    contents = {name: _referred(table[name]) for name in files}
    texts = {
        name: pa.chunked_array([pa.array(map(_said, table[name].to_pylist()), pa.large_string())])
        for name in names
        if name not in files
    }
    total = table.num_rows + len(unread)
    return Cells(texts, contents, unread.others(total)[: table.num_rows], total)


def _by_columns(path: str, where: str, rows: int | None) -> Cells:
    """Read Parquet or Arrow's format."""
    import pyarrow as pa

    texts: dict[str, pa.ChunkedArray] = {}
    contents: dict[str, bytes] = {}
    schema = schema_of(path)
    names, repeated = _once(schema.names)
    files = [name for name in names if _holds_bytes(schema.field(name).type)]
    whole = [name for name in names if name not in files]
    if files:
        first = read_table(path, files, where, head=True)
        contents = {name: _first(first[name].slice(0, _HEAD_LINES).to_pylist()) for name in files}
    read = read_parquet if suffixes(path)[0] == ".parquet" else read_arrow
    parts = _until(read(path, whole or files[:1], where, Unread(where, skip=True), head=False), rows)
    if whole:
        table = named(pa.concat_tables(parts), names_in_file(Path(path)), whole)
        total = table.num_rows
    else:
        total = sum(part.num_rows for part in parts)
    for name in whole:
        try:
            texts[name] = table[name].cast(pa.large_string())
        except pa.ArrowException:  # lists and structs
            texts[name] = pa.chunked_array([pa.array(map(_text, _plain(table[name])), pa.large_string())])
    return Cells(texts, contents, np.arange(total), total, repeated)


def _said(cell: str | None) -> str | None:
    """Return a cell as text: what stands in a .txt, or a field of .json, which is JSON here."""
    try:
        return cell and _text(json.loads(cell))
    except (ValueError, RecursionError):
        return _text(cell)


def _referred(column: pa.ChunkedArray) -> bytes:
    """Return the first content that is there; none without."""
    found = (cell.as_py() for cell in column.slice(0, _HEAD_LINES) if cell.is_valid)
    return next((read_reference(cell) for cell in found), b"")


def _plain(column: pa.ChunkedArray) -> Iterator[Any]:
    for chunk in column.chunks:
        for start in range(0, len(chunk), _CHUNK_ROWS):
            yield from (
                json.loads(json.dumps(value, default=str)) for value in chunk.slice(start, _CHUNK_ROWS).to_pylist()
            )


def _until(parts: Iterator[pa.Table], rows: int | None) -> Iterator[pa.Table]:
    read = 0
    for part in parts:
        yield part
        read += part.num_rows
        if rows and read >= rows:
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
