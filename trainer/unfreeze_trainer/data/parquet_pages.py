"""The pages of Parquet by their own headers: what a footer says of them is no bound, since whoever wrote the file wrote that too.

Headers are Thrift's compact protocol; fields and their numbers are those of parquet.thrift (apache/parquet-format).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unfreeze_trainer.data.unpacked import belongs

if TYPE_CHECKING:
    from pyarrow import parquet

_HEADER_BYTES, _MOST_HEADER_BYTES = 1 << 10, 16 << 20
_DEEPEST = 16
_DICTIONARY = 2
"""A type of pages."""
_OF_DATA = {0: (5, 2), 3: (8, 4)}
"""By the type of a page of data, the field of a header that tells of it, and that one's field with the encoding."""
_NUMBER, _BINARY, _MAP, _STRUCT = 5, 8, 11, 12
_OTHER_NUMBERS, _MANY, _BOOLEANS = (4, 6), (9, 10, _MAP), (1, 2)
_WIDTHS = {1: 0, 2: 0, 3: 1, 7: 8}
"""Bytes of other kinds of values of a struct, by their numbers in the protocol."""
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


def pages_of(path: str, metadata: parquet.FileMetaData, columns: list[str], groups: int) -> list[Pages]:
    """Return what some columns have in the first row groups, by path.

    Raises
    ------
    ValueError
        A header is cut off or broken.
    """
    found: dict[str, Pages] = {}
    with open(path, "rb") as file:  # noqa: PTH123 - for its number
        for number in range(groups):
            group = metadata.row_group(number)
            for place in range(group.num_columns):
                one = group.column(place)
                if not belongs(one.path_in_schema, columns):
                    continue
                repeats = metadata.schema.column(place).max_repetition_level > 0
                pages = found.setdefault(one.path_in_schema, Pages(one.path_in_schema, repeats))
                start = one.data_page_offset
                if one.has_dictionary_page and 0 < one.dictionary_page_offset < start:
                    start = one.dictionary_page_offset
                left = (
                    one.num_values
                )  # of a chunk without values Arrow reads nothing, and what stands there may be no page
                for header in _headers(file.fileno(), start, start + one.total_compressed_size) if left > 0 else ():
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
                reader = _Compact(content)
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


class _Compact:
    """Reads values of Thrift's compact protocol; IndexError where they are cut off, ValueError where there is no such value."""

    def __init__(self, content: bytes) -> None:
        self._content, self.at = content, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Return the fields of a struct by their numbers; of texts, lists and maps nothing is kept."""
        found: dict[int, Any] = {}
        number = 0
        while kind := self._byte():
            number = number + (kind >> 4) if kind >> 4 else self._whole()
            if number in found or not 0 < number < 1 << 15:
                raise ValueError(f"the header of a page has a field that there is not, or twice: {number}")
            found[number] = self._value(kind & 15, depth)
        return found

    def _byte(self) -> int:
        self.at += 1
        return self._content[self.at - 1]

    def _varint(self) -> int:
        found = shift = 0
        while shift < 64:  # noqa: PLR2004 - bits
            byte = self._byte()
            found |= (byte & 127) << shift
            if byte < 128:  # noqa: PLR2004
                return found
            shift += 7
        raise ValueError("the header of a page has a number of more than 64 bits")

    def _whole(self) -> int:
        found = self._varint()
        if found >= 1 << 32:
            raise ValueError("the header of a page has a number of more than 32 bits")
        return (found >> 1) ^ -(found & 1)

    def _skip(self, count: int) -> None:
        self.at += count
        if self.at > len(self._content):
            raise IndexError

    def _value(self, kind: int, depth: int) -> Any:
        """Read a value; return a struct or a number of 32 bits, and None of others."""
        if depth > _DEEPEST:
            raise ValueError("the header of a page is too deep")
        if kind == _NUMBER:
            return self._whole()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in _OTHER_NUMBERS:
            self._varint()
        elif kind == _BINARY:
            self._skip(self._varint())
        elif kind in _MANY:
            self._many(kind, depth)
        elif kind in _WIDTHS:
            self._skip(_WIDTHS[kind])
        else:
            raise ValueError(f"the header of a page has a value of a kind that there is not: {kind}")
        return None

    def _many(self, kind: int, depth: int) -> None:
        """Read a list, a set or a map."""
        kinds: tuple[int, ...]
        if kind == _MAP:
            count = self._varint()
            head = self._byte() if count else 0
            kinds = (head >> 4, head & 15)
        else:
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()  # noqa: PLR2004 - four bits
            kinds = (head & 15,)
        for _ in range(count):
            for one in kinds:
                if one in _BOOLEANS:
                    self._skip(1)
                else:
                    self._value(one, depth + 1)
