"""Parquet's footer, read without pyarrow: that one ends the process where it is asked about a column chunk that it finds broken.

So it does for one that is encrypted. Fields and their numbers are those of parquet.thrift (apache/parquet-format).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from unfreeze_trainer.data.thrift_compact import LIST, LONG, STRUCT, Compact
from unfreeze_trainer.errors import JobError

_END_BYTES = 8
"""Of a file: the length of its footer, and the format's sign."""
_MAGIC, _ENCRYPTED_FOOTER = b"PAR1", b"PARE"
_MOST_BYTES = 64 << 20
"""Of a footer that is read: it tells of about 400,000 column chunks."""
_ROW_GROUPS, _ENCRYPTION = 4, 8
"""Fields of the footer."""
_COLUMNS, _ROWS = 1, 3
"""Of a row group."""
_METADATA, _CRYPTO = 3, 8
"""Of a column chunk."""
_VALUES, _UNPACKED, _PACKED, _DATA, _DICTIONARY = 5, 6, 7, 9, 11
"""Of its metadata."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What the footer says of a column in a row group."""

    values: int
    unpacked: int
    """Bytes of its pages."""
    packed: int
    """Bytes that they take in the file."""
    data: int
    """Where its first page of data stands in the file."""
    dictionary: int
    """Where its dictionary stands; 0 where it has none."""


@dataclass(frozen=True, slots=True)
class RowGroup:
    """What the footer says of a row group."""

    rows: int
    chunks: list[Chunk]
    """By the places of their columns in the schema."""


class _EncryptedError(Exception):
    """Something of the file is encrypted."""


def read_footer(path: str, where: str) -> list[RowGroup]:
    """Return the row groups of a Parquet file; none of another one, of which pyarrow says what it is.

    Raises
    ------
    JobError
        InvalidData: the footer cannot be read, or anything of the file is encrypted.
    """
    with open(path, "rb") as file:  # noqa: PTH123 - for its number
        size = os.fstat(file.fileno()).st_size
        end = os.pread(file.fileno(), _END_BYTES, max(0, size - _END_BYTES))
        length = int.from_bytes(end[:4], "little")
        if end.endswith(_ENCRYPTED_FOOTER):
            raise _encrypted(where)
        if not end.endswith(_MAGIC) or length + _END_BYTES > size:
            return []
        if length > _MOST_BYTES:
            raise broken(where, f"its footer has more than {_MOST_BYTES >> 20} MiB")
        content = os.pread(file.fileno(), length, size - _END_BYTES - length)
    try:
        return _row_groups(Compact(content, "the footer"))
    except _EncryptedError as error:
        raise _encrypted(where) from error
    except IndexError as error:
        raise broken(where, "the footer is cut off") from error
    except ValueError as error:
        raise broken(where, str(error)) from error


def broken(where: str, why: str) -> JobError:
    """Return the error about a Parquet file that cannot be read."""
    return JobError("InvalidData", f"{where}: cannot be read as .parquet: {why}; copy or save it again")


def _encrypted(where: str) -> JobError:
    return JobError("InvalidData", f"{where}: it is encrypted, whole or in part; save it without encryption")


def _row_groups(reader: Compact) -> list[RowGroup]:
    found: list[RowGroup] = []
    for number, kind in reader.fields():
        if number == _ENCRYPTION:
            raise _EncryptedError
        if (number, kind) == (_ROW_GROUPS, LIST):
            count, _ = reader.list_head()  # whatever kind stands there, Arrow reads structs
            found = [_row_group(reader) for _ in range(count)]
        else:
            reader.skip(kind)
    return found


def _row_group(reader: Compact) -> RowGroup:
    rows, chunks = 0, list[Chunk]()
    for number, kind in reader.fields():
        if (number, kind) == (_COLUMNS, LIST):
            count, _ = reader.list_head()
            chunks = [_chunk(reader) for _ in range(count)]
        elif (number, kind) == (_ROWS, LONG):
            rows = reader.long()
        else:
            reader.skip(kind)
    return RowGroup(rows, chunks)


def _chunk(reader: Compact) -> Chunk:
    said: dict[int, int] = {}
    for number, kind in reader.fields():
        if number == _CRYPTO:
            raise _EncryptedError
        if (number, kind) == (_METADATA, STRUCT):
            said = _longs(reader)
        else:
            reader.skip(kind)
    values, unpacked, packed, data, dictionary = (
        said.get(number, 0) for number in (_VALUES, _UNPACKED, _PACKED, _DATA, _DICTIONARY)
    )
    return Chunk(values, unpacked, packed, data, dictionary)


def _longs(reader: Compact) -> dict[int, int]:
    """Read a struct; return its numbers of 64 bits by their fields."""
    found: dict[int, int] = {}
    for number, kind in reader.fields():
        if kind == LONG:
            found[number] = reader.long()
        else:
            reader.skip(kind)
    return found
