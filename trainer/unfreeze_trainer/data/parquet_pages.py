"""The pages of Parquet by their own headers: what a footer says of them is no bound, since whoever wrote the file wrote that too.

Fields and their numbers are those of parquet.thrift (apache/parquet-format).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unfreeze_trainer.data.parquet_footer import RowGroup
from unfreeze_trainer.data.thrift_compact import Compact
from unfreeze_trainer.data.unpacked import belongs

if TYPE_CHECKING:
    from pyarrow import parquet

_HEADER_BYTES, _MOST_HEADER_BYTES = 1 << 10, 16 << 20
_DICTIONARY = 2
"""A type of pages."""
_OF_DATA = {0: (5, 2), 3: (8, 4)}
"""By the type of a page of data, the field of a header that tells of it, and that one's field with the encoding."""
_DELTA_BYTE_ARRAY = 7
"""An encoding: of a value only what differs from the one before it stands in the page."""


@dataclass
class Pages:
    """What the pages of a column have, in all row groups."""

    path: str
    repeats: bool
    """Whether a row may have many values."""
    size: int = 0
    """Bytes of all, unpacked."""
    values: int = 0
    densest: int = 0
    """Bytes of a value, in the page where they are most."""
    dictionary: bool = False
    """Whether a value may stand there once for many."""
    prefixed: int = 0
    """Bytes of the largest page whose values share beginnings: none of them is longer, and all may be as long."""


def pages_of(
    path: str, schema: parquet.ParquetSchema, groups: Sequence[RowGroup], columns: Sequence[str]
) -> list[Pages]:
    """Return what some columns have in some row groups, by path.

    Raises
    ------
    ValueError
        A header is cut off or broken.
    """
    found: dict[str, Pages] = {}
    wanted = [place for place in range(len(schema)) if belongs(schema.column(place).path, columns)]
    with open(path, "rb") as file:  # noqa: PTH123 - for its number
        for group in groups:
            for place in wanted:
                one, leaf = group.chunks[place], schema.column(place)
                pages = found.setdefault(leaf.path, Pages(leaf.path, leaf.max_repetition_level > 0))
                start = one.dictionary if 0 < one.dictionary < one.data else one.data
                left = one.values  # of a chunk without values Arrow reads nothing, and what stands there may be no page
                for header in _headers(file.fileno(), start, start + one.packed) if left > 0 else ():
                    left -= _add(header, pages)
                    if left <= 0:
                        break
    return list(found.values())


def _add(header: dict[int, Any], pages: Pages) -> int:
    """Add what a page has; return how many values that is."""
    size, kind = header[2], header.get(1)
    pages.size += size
    pages.dictionary |= kind == _DICTIONARY
    if kind in _OF_DATA:
        field, encoding = _OF_DATA[kind]
        data = header.get(field)
        if not isinstance(data, dict):
            raise ValueError("the header of a page does not tell of its data")
        values = max(0, data.get(1) or 0)
        pages.values += values
        pages.densest = max(pages.densest, size // max(1, values))
        if data.get(encoding) == _DELTA_BYTE_ARRAY:
            pages.prefixed = max(pages.prefixed, size)
        return values
    return 0


def _headers(number: int, start: int, end: int) -> Iterator[dict[int, Any]]:
    """Yield the header of each page of a chunk of an open file."""
    while start < end:
        length = _HEADER_BYTES
        while True:
            content = os.pread(number, length, start)
            try:
                reader = Compact(content, "the header of a page")
                header = reader.struct()
                break
            except IndexError:
                if len(content) < length or length >= _MOST_HEADER_BYTES:
                    raise ValueError("the header of a page is cut off") from None
                length *= 16
        sizes = (header.get(2), header.get(3))
        if not all(isinstance(size, int) and size >= 0 for size in sizes):
            raise ValueError("the header of a page has no sizes")
        yield header
        start += reader.at + header[3]
