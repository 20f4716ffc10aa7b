"""How large the batches of an Arrow file are once they are unpacked, by what stands before each of their buffers.

pyarrow unpacks a batch whole, and says its size then. The format is of flatbuffers (https://arrow.apache.org/docs/format/Columnar.html,
Message.fbs): of these five fields are read here. How many buffers a column has pyarrow says, by an empty one of its type.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_END = "<I6s"
"""What a file ends with, behind its footer: how long that is, and a word."""
_BLOCKS = (2, 3)
"""Places in Footer, of dictionaries and batches."""
_BODIES = {2: "dictionary", 3: "batch"}
"""Kinds of messages with buffers, by MessageHeader."""
_HEADER_TYPE, _HEADER, _DATA, _BUFFERS, _COMPRESSION, _MORE_BUFFERS = 1, 2, 1, 2, 3, 4
"""Places of fields in their tables: of Message, DictionaryBatch and RecordBatch."""


def unpacked_sizes(path: str, wanted: Collection[str], *, is_file: bool) -> Iterator[int]:
    """Yield the bytes that reading takes of each batch that is compressed, before anything is unpacked.

    Of a batch that are the columns that are wanted, or the first one where none is; of dictionaries all, since a reader unpacks them.

    Raises
    ------
    struct.error, pyarrow.ArrowException, ValueError
        It is no such file.
    """
    import pyarrow as pa

    with pa.memory_map(path) as file:
        schema = (pa.ipc.open_file if is_file else pa.ipc.open_stream)(file).schema
        columns = _Columns(schema, wanted)
        file.seek(0)
        for message in _by_footer(file) if is_file else pa.ipc.MessageReader.open_stream(file):
            table = _Table.root(message.metadata.to_pybytes())
            kind = _BODIES.get(table.byte(_HEADER_TYPE))
            batch = table.table(_HEADER) if kind else None
            batch = batch.table(_DATA) if batch and kind == "dictionary" else batch
            if batch and batch.table(_COMPRESSION):
                places = list(batch.structures(_BUFFERS, "<qq"))
                more = [number for (number,) in batch.structures(_MORE_BUFFERS, "<q")]
                read = columns.read(places, more) if kind == "batch" else places
                yield sum(_size(message.body, *place) for place in read)


def _by_footer(file: Any) -> Iterator[Any]:
    """Yield the messages of a file that a reader finds: they may stand anywhere in it."""
    import pyarrow as pa

    end = struct.calcsize(_END)
    length, _ = struct.unpack(_END, file.read_at(end, file.size() - end))
    footer = _Table.root(file.read_at(length, file.size() - end - length))
    for place in _BLOCKS:
        for offset, *_ in footer.structures(place, "<qixxxxq"):
            file.seek(offset)
            yield pa.ipc.read_message(file)


def _size(body: Any, offset: int, length: int) -> int:
    """Return the bytes of a buffer once it is unpacked: they stand before it, -1 for what is not packed."""
    if not length:
        return 0
    (size,) = struct.unpack("<q", body.slice(offset, 8).to_pybytes())
    return int(max(size, length if size < 0 else 0))


class _Columns:
    """Which buffers of a batch a reader of some columns unpacks."""

    def __init__(self, schema: pa.Schema, wanted: Collection[str]) -> None:
        self._wanted = {schema.names.index(name) for name in wanted if name in schema.names} or {0}
        self._buffers = [_buffers(kind) for kind in schema.types]

    def read(self, places: list[tuple[int, ...]], more: list[int]) -> list[tuple[int, ...]]:
        """Return those of the columns that are wanted; all where the batch has other buffers than its columns.

        Parameters
        ----------
        places
            Of all buffers, column by column.
        more
            How many each view of texts or bytes has besides.
        """
        found, at, views = [], 0, iter(more)
        for number, (count, own_views) in enumerate(self._buffers):
            end = at + count + sum(next(views, 0) for _ in range(own_views))
            found += places[at:end] if number in self._wanted else []
            at = end
        return found if at == len(places) and min(more, default=0) >= 0 else places


def _buffers(kind: pa.DataType) -> tuple[int, int]:
    """Return how many buffers a column of a type has, children included, and how many views that may have more."""
    import pyarrow as pa

    try:
        message = pa.ipc.read_message(pa.record_batch([pa.nulls(0, kind)], ["column"]).serialize())
    except pa.ArrowException:  # pyarrow makes no such column, and all buffers count
        return 0, 0
    batch = _Table.root(message.metadata.to_pybytes()).table(_HEADER)
    if batch is None:
        return 0, 0
    return sum(1 for _ in batch.structures(_BUFFERS, "<qq")), sum(1 for _ in batch.structures(_MORE_BUFFERS, "<q"))


class _Table:
    """A table of a flatbuffer."""

    def __init__(self, content: bytes, at: int) -> None:
        self._content, self._at = content, at
        self._fields = at - self._number("<i", at)

    @classmethod
    def root(cls, content: bytes) -> _Table:
        return cls(content, struct.unpack_from("<I", content)[0])

    def _number(self, form: str, at: int) -> int:
        if at < 0:
            raise struct.error("before its beginning")
        return int(struct.unpack_from(form, self._content, at)[0])

    def _field(self, place: int) -> int:
        """Return where a field lies, 0 where it is not there."""
        inside = 4 + 2 * place < self._number("<H", self._fields)
        offset = self._number("<H", self._fields + 4 + 2 * place) if inside else 0
        return self._at + offset if offset else 0

    def byte(self, place: int) -> int:
        return self._content[at] if (at := self._field(place)) else 0

    def table(self, place: int) -> _Table | None:
        at = self._field(place)
        return _Table(self._content, at + self._number("<I", at)) if at else None

    def structures(self, place: int, form: str) -> Iterator[tuple[int, ...]]:
        """Yield the structures of a vector, as `struct` has them."""
        if at := self._field(place):
            at += self._number("<I", at)
            for number in range(self._number("<I", at)):
                yield struct.unpack_from(form, self._content, at + 4 + struct.calcsize(form) * number)
