"""What is cached of a split's samples while a job runs: in memory, or in a file of this process where that does not do."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from math import prod
from typing import cast

import torch
from torch import Tensor

from unfreeze_trainer.features.cut import Shape

Row = tuple[Tensor, ...]
_PART = 64 * 2**20
"""Bytes of rows that go from one worker to the others at a time."""


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the numbers of a tensor on the CPU, in the order of its places; a copy only where that is not how they lie."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def encoded(row: Row) -> bytes:
    """Return the numbers of a row on the CPU, one tensor after the other."""
    return b"".join(map(bytes_of, row))


def decoded(data: bytearray, shapes: Sequence[Shape], length: int) -> Row | None:
    """Return the row of a sample of so many tokens; None where it would have another size."""
    sizes = [shape(1, length)[1:] for shape in shapes]
    widths = [torch.empty((), dtype=shape.dtype).element_size() for shape in shapes]
    if len(data) != sum(prod(size) * width for size, width in zip(sizes, widths, strict=True)):
        return None
    found, place = [], 0
    for shape, size, width in zip(shapes, sizes, widths, strict=True):
        count = prod(size)
        value = torch.frombuffer(data, dtype=shape.dtype, count=count, offset=place) if count else torch.empty(0)
        found.append(value.to(shape.dtype).reshape(size))
        place += count * width
    return tuple(found)


class Scratch:
    """A file without a name, which goes with its process.

    Parameters
    ----------
    size
        Bytes that it will take; they are reserved. OSError where there is no room for them.
    """

    def __init__(self, size: int) -> None:
        self._file = tempfile.TemporaryFile(prefix="unfreeze-features-", buffering=0)  # noqa: SIM115 - as long as the rows
        self._end = 0
        if size:
            os.posix_fallocate(self._file.fileno(), 0, size)

    def put(self, data: bytes) -> int:
        """Write bytes; return where they begin."""
        place, self._end = self._end, self._end + len(data)
        done = 0
        while done < len(data):
            done += os.pwrite(self._file.fileno(), memoryview(data)[done:], place + done)
        return place

    def get(self, place: int, size: int) -> bytearray:
        """Read bytes that were written."""
        found = bytearray(size)
        os.preadv(self._file.fileno(), [found], place)
        return found


class Rows:
    """Values of samples by index.

    Parameters
    ----------
    samples
        Of the split.
    shapes
        Of the tensors of each.
    scratch
        Where they lie; None for memory.
    """

    def __init__(self, samples: int, shapes: Sequence[Shape], scratch: Scratch | None = None) -> None:
        self._rows: list[Row | tuple[int, int, int] | None] = [None] * samples
        self._shapes, self._scratch = shapes, scratch
        self._padded = next((number for number, shape in enumerate(shapes) if shape.padded), None)
        self.bytes = 0
        self.count = 0
        """Samples that there are."""

    def __getitem__(self, index: int) -> Row:
        row = self._rows[index]
        assert row is not None
        if self._scratch is None:
            return cast("Row", row)
        place, size, length = cast("tuple[int, int, int]", row)
        found = decoded(self._scratch.get(place, size), self._shapes, length)
        assert found is not None
        return found

    def add(self, indices: Sequence[int], rows: Sequence[Row]) -> None:
        """Keep the rows of samples, on the CPU."""
        for index, row in zip(indices, rows, strict=True):
            self.count += self._rows[index] is None
            kept = tuple(value.detach().to("cpu") for value in row)
            self.bytes += sum(value.nbytes for value in kept)
            if self._scratch is None:
                self._rows[index] = kept
                continue
            data = encoded(kept)
            length = 0 if self._padded is None else len(kept[self._padded])
            self._rows[index] = self._scratch.put(data), len(data), length

    def packed(self, indices: Sequence[int]) -> Iterator[dict[str, Tensor]]:
        """Yield rows as few tensors: indices, lengths, and each tensor's numbers one after the other."""
        part: list[int] = []
        size = 0
        for index in indices:
            part.append(index)
            if (size := size + sum(value.nbytes for value in self[index])) >= _PART:
                yield self._pack(part)
                part, size = [], 0
        if part:
            yield self._pack(part)

    def _pack(self, indices: Sequence[int]) -> dict[str, Tensor]:
        rows = [self[index] for index in indices]
        packed = {"indices": torch.tensor(indices)}
        for number, shape in enumerate(self._shapes):
            values = [row[number] for row in rows]
            packed[str(number)] = torch.cat(values) if shape.padded else torch.stack(values)
            packed[f"lengths.{number}"] = (
                torch.tensor([len(value) for value in values]) if shape.padded else torch.empty(0)
            )
        return packed

    def unpack(self, packed: dict[str, Tensor]) -> None:
        """Keep what another worker has packed."""
        parts = []
        for number, shape in enumerate(self._shapes):
            values = packed[str(number)]
            parts.append(torch.split(values, packed[f"lengths.{number}"].tolist()) if shape.padded else values.unbind())
        self.add(packed["indices"].tolist(), list(zip(*parts, strict=True)))
