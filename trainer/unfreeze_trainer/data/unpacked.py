"""How large columns are once each of their values stands by itself: a small file may say one value a million times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from unfreeze_trainer.data.parquet_footer import RowGroup

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet

PIECE_BYTES = 16 << 20
"""Of a piece that is unpacked at a time."""
_WIDTHS = {"INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12}
_OFFSET_BYTES = 4


def declared_bytes(schema: parquet.ParquetSchema, groups: Sequence[RowGroup], columns: Sequence[str]) -> int:
    """Return the bytes that some columns of Parquet have at least, by what its footer says of pages and numbers of values."""
    found = 0
    for place in range(len(schema)):
        leaf = schema.column(place)
        if not belongs(leaf.path, columns):
            continue
        if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY":
            width = leaf.length
        else:
            width = _WIDTHS.get(leaf.physical_type, _OFFSET_BYTES if leaf.physical_type == "BYTE_ARRAY" else 0)
        found += sum(max(group.chunks[place].unpacked, width * group.chunks[place].values) for group in groups)
    return found


def belongs(path: str, columns: Sequence[str]) -> bool:
    """Return whether a column of Parquet's, by its path, is one of some or lies in it."""
    return any(path == name or path.startswith(f"{name}.") for name in columns)


def unpacked_bytes(column: pa.Array) -> int:
    """Return the bytes of a column once nothing in it stands for several values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    found = int(column.nbytes)
    if pa.types.is_dictionary(kind) and has_lengths(kind.value_type):
        found = int(pc.sum(_lengths(column.dictionary).take(column.indices)).as_py() or 0)
    elif pa.types.is_dictionary(kind):
        found = max(found, len(column) * _largest(column.dictionary))
    elif pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        found = max(found, int(pc.sum(_lengths(column)).as_py() or 0))
    elif pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        many = int(pc.sum(column.sizes.cast(pa.int64())).as_py() or 0)
        found = unpacked_bytes(column.values) if many <= len(column.values) else many * _largest(column.values)
    elif pa.types.is_struct(kind):
        found = sum(map(unpacked_bytes, column.flatten()))
    elif pa.types.is_map(kind):
        found = unpacked_bytes(column.cast(pa.list_(pa.struct([kind.key_field, kind.item_field]))))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        found = unpacked_bytes(column.flatten()) + _OFFSET_BYTES * len(column)
    return found


def largest_in_dictionaries(column: pa.Array) -> int:
    """Return the bytes of the largest value in the dictionaries of a column, also deep in it, whether it is used or not."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        return _largest(column.dictionary)
    if pa.types.is_struct(column.type):
        return max(map(largest_in_dictionaries, column.flatten()), default=0)
    return 0


def pieces(batch: pa.RecordBatch, size: int) -> Iterator[pa.RecordBatch]:
    """Yield a batch of an unpacked size in pieces of about PIECE_BYTES, or of one row."""
    if size <= PIECE_BYTES or batch.num_rows < 2:  # noqa: PLR2004 - one row cannot be cut
        yield batch
        return
    half = batch.num_rows // 2
    for part in (batch.slice(0, half), batch.slice(half)):
        yield from pieces(part, sum(map(unpacked_bytes, part.columns)))


def has_lengths(kind: pa.DataType) -> bool:
    """Return whether values of a type are texts or bytes."""
    import pyarrow as pa

    checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(check(kind) for check in (*checks, pa.types.is_string_view, pa.types.is_binary_view))


def _lengths(column: pa.Array) -> pa.Array:
    """Return the bytes of each text."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string_view(column.type) or pa.types.is_binary_view(column.type):
        # A view is four numbers of 32 bits, of which the first is the length; a missing one may have any.
        views = np.frombuffer(column.buffers()[1], np.int32).reshape(-1, 4)[column.offset : column.offset + len(column)]
        return pc.if_else(column.is_valid(), pa.array(views[:, 0], pa.int64()), 0)
    return pc.binary_length(column).cast(pa.int64())


def _largest(values: pa.Array) -> int:
    """Return the bytes of the largest of some values, or of all of them where one alone cannot be told."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if has_lengths(values.type):
        return int(pc.max(_lengths(values)).as_py() or 0)
    if pa.types.is_primitive(values.type):
        return max(1, values.type.bit_width // 8)
    return unpacked_bytes(values)
