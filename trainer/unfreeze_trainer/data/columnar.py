"""Tables by columns: Parquet, and Arrow's files and streams (Feather)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unfreeze_trainer.data import packed
from unfreeze_trainer.data.arrow_messages import unpacked_sizes
from unfreeze_trainer.data.columns import check_columns
from unfreeze_trainer.data.json_lines import HEAD_ROWS
from unfreeze_trainer.data.parquet_footer import broken, read_footer
from unfreeze_trainer.data.parquet_pages import Pages, pages_of
from unfreeze_trainer.data.unpacked import declared_bytes, largest_in_dictionaries, pieces, unpacked_bytes
from unfreeze_trainer.data.unread import Unread
from unfreeze_trainer.errors import JobError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet

_FILE, _FIRST_FEATHER = b"ARROW1", b"FEA1"
_BATCH_BYTES = 2 << 20
"""Of the batches that Parquet is read in, by what its metadata say: what is written into a file is still in the processor's cache."""
_BATCH_ROWS = 65536
_BATCH_MOST_BYTES = 64 << 20
"""Of a batch, were each row the largest one."""
_FEW_BYTES = 64
"""Of a value of Parquet, below which it is taken for a reference to one that is used again."""
_BUFFER_BYTES = 1 << 20
"""Of a column of Parquet that are read at a time, in place of all that a row group has of it."""


def read_parquet(
    path: str,
    columns: list[str],
    where: str,
    unread: Unread,  # noqa: ARG001 - all or nothing
    *,
    head: bool,
) -> Iterator[pa.Table]:
    """Read some columns of Parquet."""
    from pyarrow import parquet

    wanted, size = list(dict.fromkeys(columns)), Path(path).stat().st_size
    footer = read_footer(path, where)
    with parquet.ParquetFile(path) as file:
        check_columns(columns, file.schema_arrow.names, where)
        schema, leaves, rows = file.schema_arrow, file.schema, file.metadata.num_rows
        if any(len(group.chunks) != len(leaves) for group in footer) or len(footer) != file.num_row_groups:
            raise broken(where, "its row groups have other columns than its schema")
    groups = footer[: next((n + 1 for n, group in enumerate(footer) if group.rows), None)] if head else footer
    try:
        pages = pages_of(path, leaves, groups, wanted)
    except ValueError as error:
        raise broken(where, str(error)) from error
    packed.check_fold(max(declared_bytes(leaves, footer, wanted), sum(one.size for one in pages)), size, where)
    repeating, others = _dictionaries(leaves, pages)
    at_once = _rows_at_once(rows, pages, where, head=head)
    if others:
        largest = _largest_value(path, len(groups), others)
        at_once = max(1, min(at_once, _BATCH_MOST_BYTES // max(1, largest)))
    with _opened(path, repeating) as file:
        measured = list(range(len(groups)))  # and no others, whatever the footer says that these have
        # Nested columns with one dictionary in a row group and another in the next have no batch in common.
        parts = [[number] for number in measured] if repeating else [measured]
        batches = (
            batch for some in parts for batch in file.iter_batches(batch_size=at_once, row_groups=some, columns=wanted)
        )
        yield from _tables(batches, schema, wanted, size, where, head=head)


def _opened(path: str, dictionaries: list[str]) -> parquet.ParquetFile:
    """Open Parquet, with columns that stay dictionaries; what is buffered before, by default all of the file, would stay until the end."""
    from pyarrow import parquet

    return parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False, read_dictionary=dictionaries)


def _dictionaries(schema: parquet.ParquetSchema, pages: list[Pages]) -> tuple[list[str], list[str]]:
    """Return columns of texts or bytes that have dictionaries, by their paths: those that are read as such, and others.

    A value may stand there many times, and be stored once. As dictionaries they stay small, and their size can be told before they are
    unpacked; that takes longer where values are many, so these are read as they are, a few rows at a time. How many values of
    a list a row has is not known.
    """
    kinds = {schema.column(n).path: schema.column(n).physical_type for n in range(len(schema))}
    held = [one for one in pages if one.dictionary and kinds[one.path] == "BYTE_ARRAY"]
    few = {one.path for one in held if one.repeats or one.size < _FEW_BYTES * max(1, one.values)}
    return sorted(few), sorted({one.path for one in held} - few)


def _largest_value(path: str, groups: int, leaves: list[str]) -> int:
    """Return the bytes of the largest value in the dictionaries of some columns, of which the first row of each row group is read."""
    found = 0
    with _opened(path, leaves) as file:
        for number in range(groups):
            for batch in file.iter_batches(batch_size=1, row_groups=[number], columns=leaves):
                found = max([found, *map(largest_in_dictionaries, batch.columns)])
                break
    return found


def _rows_at_once(count: int, pages: list[Pages], where: str, *, head: bool) -> int:
    """Return how many of so many rows have about _BATCH_BYTES, or HEAD_ROWS, and no more than _BATCH_MOST_BYTES wherever they lie."""
    most = HEAD_ROWS if head else _BATCH_ROWS
    rows = min(most, _BATCH_BYTES * max(1, count) // max(1, sum(one.size for one in pages)))
    for one in pages:
        if one.prefixed and one.repeats and one.values * one.prefixed > packed.FREE_BYTES:
            raise JobError(
                "InvalidData",
                f"{where}: column {one.path!r} has lists of values that are stored by what differs from the one before"
                " (DELTA_BYTE_ARRAY), and may become of any size: save it with another encoding",
            )
        rows = min(rows, _BATCH_MOST_BYTES // max(1, one.prefixed, 0 if one.repeats else one.densest))
    return max(1, rows)


def read_arrow(
    path: str,
    columns: list[str],
    where: str,
    unread: Unread,  # noqa: ARG001 - all or nothing
    *,
    head: bool,
) -> Iterator[pa.Table]:
    """Read some columns of Arrow's format, as a file or a stream; JobError InvalidData of one that is cut off, broken or of Feather's version 1."""
    import pyarrow as pa

    with Path(path).open("rb") as content:
        magic = content.read(len(_FILE))
    if magic.startswith(_FIRST_FEATHER):
        raise JobError(
            "InvalidData", f"{where}: this is Feather of version 1; save it again as version 2, or as Parquet"
        )
    wanted, size = list(dict.fromkeys(columns)), Path(path).stat().st_size
    try:
        packed.check_fold(sum(unpacked_sizes(path, wanted, is_file=magic == _FILE)), size, where)
    except (struct.error, IndexError) as error:
        raise JobError(
            "InvalidData", f"{where}: cannot be read as {Path(path).suffix}: it is cut off or broken"
        ) from error
    with ExitStack() as stack:
        file = stack.enter_context(pa.OSFile(path))
        schema = (pa.ipc.open_file(file) if magic == _FILE else pa.ipc.open_stream(file)).schema
        check_columns(columns, schema.names, where)
        file.seek(0)
        # Without any of its columns a file of many would be read whole.
        options = pa.ipc.IpcReadOptions(included_fields=sorted(map(schema.names.index, wanted)) or [0])
        batches: Iterator[pa.RecordBatch]
        if magic == _FILE:
            reader = stack.enter_context(pa.ipc.open_file(file, options=options))
            batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            batches = iter(stack.enter_context(pa.ipc.open_stream(file, options=options)))
        if not wanted:
            yield schema.empty_table()
            return
        yield from _tables(_valid(batches), schema, wanted, size, where, head=head)


def schema_of(path: str) -> pa.Schema:
    """Return the columns of Parquet or of Arrow's format, by a file that `read_parquet` or `read_arrow` reads."""
    import pyarrow as pa
    from pyarrow import parquet

    if Path(path).suffix.lower() == ".parquet":
        return parquet.read_schema(path)
    with pa.OSFile(path) as file:
        opened = pa.ipc.open_file if file.read(len(_FILE)) == _FILE else pa.ipc.open_stream
        file.seek(0)
        return opened(file).schema


def _valid(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield batches whose offsets and texts have been looked at: Arrow takes those of its own formats as they come."""
    for batch in batches:
        batch.validate(full=True)
        yield batch


def _tables(
    batches: Iterator[Any], schema: pa.Schema, wanted: list[str], size: int, where: str, *, head: bool
) -> Iterator[pa.Table]:
    """Yield batches of a file of some bytes as tables with types that Arrow's functions take; one at least."""
    import pyarrow as pa

    kept = pa.schema([schema.field(name).with_type(plain_type(schema.field(name).type)) for name in wanted])
    unpacked, read = 0, False
    for batch in batches:
        own = sum(map(unpacked_bytes, batch.columns))
        unpacked += own
        packed.check_fold(unpacked, size, where)
        for piece in pieces(batch, own):
            yield pa.table([_without_views(piece.column(name)) for name in wanted], wanted).cast(kept)
            read = True
        if head:
            return
    if not read:
        yield kept.empty_table()


def _without_views(column: pa.Array) -> pa.Array:
    """Return a column whose dictionary, if it has one, Arrow can take values from: polars writes one of views."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type) or not pa.types.is_string_view(column.type.value_type):
        return column
    return pa.DictionaryArray.from_arrays(column.indices, column.dictionary.cast(pa.large_string()))


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type whose cells are the same and which Arrow's functions take: no views, no dictionaries in lists."""
    import pyarrow as pa

    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_dictionary(kind):
        return kind if plain_type(kind.value_type) == kind.value_type else plain_type(kind.value_type)
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not (is_list or pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)):
        return kind
    inner = plain_type(kind.value_type.value_type if pa.types.is_dictionary(kind.value_type) else kind.value_type)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(inner, kind.list_size)
    # A view with offsets of as many bits as the list's is not cast where a list is missing.
    small = pa.types.is_list(kind) or pa.types.is_large_list_view(kind)
    return pa.list_(inner) if small else pa.large_list(inner)
