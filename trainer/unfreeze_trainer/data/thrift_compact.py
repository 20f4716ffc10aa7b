"""Thrift's compact protocol, in which Parquet's footer and the headers of its pages are written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

LONG, LIST, STRUCT = 6, 9, 12
"""Kinds of values, by their numbers in the protocol: numbers of 64 bits, lists, structs."""
_NUMBER, _BINARY, _MAP = 5, 8, 11
_OTHER_NUMBERS, _MANY, _BOOLEANS = (4, LONG), (LIST, 10, _MAP), (1, 2)
_WIDTHS = {1: 0, 2: 0, 3: 1, 7: 8}
"""Bytes of other kinds of values of a struct."""
_DEEPEST = 16


class Compact:
    """Reads values of Thrift's compact protocol; IndexError where they are cut off, ValueError where there is no such value.

    Parameters
    ----------
    content
        What is read, from its beginning.
    what
        What it is called in errors.
    """

    def __init__(self, content: bytes, what: str) -> None:
        self._content, self._what, self.at = content, what, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Return the fields of a struct by their numbers; of texts, lists and maps nothing is kept."""
        found: dict[int, Any] = {}
        for number, kind in self.fields():
            if number in found:
                raise self._wrong(f"has a field twice: {number}")
            found[number] = self._value(kind, depth)
        return found

    def fields(self) -> Iterator[tuple[int, int]]:
        """Yield number and kind of each field of a struct; its value is read before the next one is asked for."""
        number = 0
        while kind := self._byte():
            number = number + (kind >> 4) if kind >> 4 else self._whole()
            if not 0 < number < 1 << 15:
                raise self._wrong(f"has a field that there is not: {number}")
            yield number, kind & 15

    def skip(self, kind: int, depth: int = 0) -> None:
        """Read a value of a list or of a field, and keep nothing of it."""
        self._value(kind, depth)

    def long(self) -> int:
        """Read a number of 64 bits."""
        found = self._varint()
        return (found >> 1) ^ -(found & 1)

    def list_head(self) -> tuple[int, int]:
        """Return how many values a list or set has, and their kind."""
        head = self._byte()
        return (head >> 4 if head >> 4 < 15 else self._varint()), head & 15  # noqa: PLR2004 - four bits

    def _wrong(self, how: str) -> ValueError:
        return ValueError(f"{self._what} {how}")

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
        raise self._wrong("has a number of more than 64 bits")

    def _whole(self) -> int:
        found = self._varint()
        if found >= 1 << 32:
            raise self._wrong("has a number of more than 32 bits")
        return (found >> 1) ^ -(found & 1)

    def _skip(self, count: int) -> None:
        self.at += count
        if self.at > len(self._content):
            raise IndexError

    def _value(self, kind: int, depth: int) -> Any:
        """Read a value; return a struct or a number of 32 bits, and None of others."""
        if depth > _DEEPEST:
            raise self._wrong("is too deep")
        if kind == _NUMBER:
            return self._whole()
        if kind == STRUCT:
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
            raise self._wrong(f"has a value of a kind that there is not: {kind}")
        return None

    def _many(self, kind: int, depth: int) -> None:
        """Read a list, a set or a map."""
        kinds: tuple[int, ...]
        if kind == _MAP:
            count = self._varint()
            head = self._byte() if count else 0
            kinds = (head >> 4, head & 15)
        else:
            count, of = self.list_head()
            kinds = (of,)
        for _ in range(count):
            for one in kinds:
                if one in _BOOLEANS:
                    self._skip(1)
                else:
                    self._value(one, depth + 1)
